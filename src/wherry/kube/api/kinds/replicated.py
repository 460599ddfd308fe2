"""What the kinds that keep a number of equal pods share: template, selector, counts, scale.

Upstream: pkg/apis/apps/validation/validation.go and pkg/registry/apps/*/storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields, label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.podspec.defaults import default_template
from wherry.kube.api.kinds.podspec.spec import check_template
from wherry.kube.api.selectors import LabelSelector

TEMPLATE_COLUMNS = (
    Column("Containers", description="Names of the template's containers.", priority=1),
    Column("Images", description="Images of the template's containers.", priority=1),
    Column("Selector", description="The selector of the pods.", priority=1),
)


def template_cells(spec: Mapping[str, Any]) -> list[str]:
    """The cells under Containers and Images."""
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or ()
    return [
        ",".join(c.get("name", "") for c in containers),
        ",".join(c.get("image", "") for c in containers),
    ]


class Replicated(Kind):
    """A kind with ``spec.replicas``, ``spec.selector`` and ``spec.template``."""

    has_generation = True
    status_counts: ClassVar[Sequence[str]] = ()
    """Counts in the status that are never negative."""
    counts_within_replicas: ClassVar[Sequence[str]] = ()
    """Counts in the status that are never above ``status.replicas``."""
    ready_field: ClassVar[str] = "readyReplicas"
    """How a text names the count of the ready."""

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        spec.setdefault("replicas", 1)
        if (template := spec.get("template")) is not None:
            default_template(template)

    def selector_of(self, o: Object) -> LabelSelector | None:
        """The selector of the pods; None if it is malformed."""
        return label_selectors.parse((o.get("spec") or {}).get("selector"))

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        status = new.get("status") or {}
        for name in ("observedGeneration", "replicas", *self.status_counts):
            if (count := status.get(name, 0)) < 0:
                faults.append(fields.invalid(f"status.{name}", count, fields.NEGATIVE))
        replicas = status.get("replicas", 0)
        for name in self.counts_within_replicas:
            if (count := status.get(name, 0)) > replicas:
                why = "cannot be greater than status.replicas"
                faults.append(fields.invalid(f"status.{name}", count, why))
        available = status.get("availableReplicas", 0)
        if available > status.get("readyReplicas", 0):
            why = f"cannot be greater than {self.ready_field}"
            faults.append(fields.invalid("status.availableReplicas", available, why))
        return faults

    def scale(self, o: Object) -> Object:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        shown: Object = {"replicas": status.get("replicas", 0)}
        if selector := str(self.selector_of(o) or ""):
            shown["selector"] = selector
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {name: meta[name] for name in names if name in meta},
            "spec": {"replicas": spec.get("replicas", 0)},
            "status": shown,
        }

    def apply_scale(self, o: Object, scale: Object) -> None:
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        o["spec"] = {**(o.get("spec") or {}), "replicas": replicas}

    def validate_scale(self, scale: Object) -> list[FieldError]:
        return fields.non_negative("spec.replicas", (scale.get("spec") or {}).get("replicas", 0))


def check_selector(
    selector: Mapping[str, Any] | None, faults: Faults, kind: str = "deployment"
) -> None:
    """Faults of a ``spec.selector`` of meta/v1's kind; ``kind`` is named in a text."""
    if selector is None:
        faults.append(fields.required("spec.selector"))
        return
    label_selectors.check_selector(selector, "spec.selector", faults)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        why = f"empty selector is invalid for {kind}"
        faults.append(fields.invalid("spec.selector", label_selectors.as_shown(selector), why))
    elif label_selectors.parse(selector) is None:
        shown = label_selectors.as_shown(selector)
        faults.append(fields.invalid("spec.selector", shown, "invalid label selector"))


def check_replicated_template(
    template: Mapping[str, Any] | None, selector: LabelSelector | None, kind: str, faults: Faults
) -> None:
    """Faults of a ``spec.template`` whose pods are kept running; ``kind`` is named in a text."""
    if template is None:
        faults.append(fields.required("spec.template"))
        return
    labels = (template.get("metadata") or {}).get("labels")
    if selector is not None and not selector.empty and not selector.matches(labels):
        why = "`selector` does not match template `labels`"
        faults.append(fields.invalid("spec.template.metadata.labels", labels, why))
    check_template(template, "spec.template", faults)
    spec = template.get("spec") or {}
    if (policy := spec.get("restartPolicy", "")) != "Always":
        where = "spec.template.spec.restartPolicy"
        faults.append(fields.not_supported(where, policy, ("Always",)))
    if spec.get("activeDeadlineSeconds") is not None:
        why = f"activeDeadlineSeconds in {kind} is not Supported"
        faults.append(fields.forbidden("spec.template.spec.activeDeadlineSeconds", why))


REPLICAS_COLUMNS = (
    NAME_COLUMN,
    Column("Desired", "integer", description="Pods asked for."),
    Column("Current", "integer", description="Pods there are."),
    Column("Ready", "integer", description="Pods that are ready."),
    AGE_COLUMN,
    *TEMPLATE_COLUMNS,
)


def replicas_cells(o: Object, now: datetime) -> list[Any]:
    """The cells of a ReplicaSet or ReplicationController, but for the selector."""
    meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
    return [
        meta.get("name", ""),
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age(meta.get("creationTimestamp"), now),
        *template_cells(spec),
    ]
