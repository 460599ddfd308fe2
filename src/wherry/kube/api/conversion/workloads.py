"""Workloads before apps/v1: what they left out was filled in otherwise.

Upstream: pkg/apis/{extensions/v1beta1,apps/v1beta1,apps/v1beta2}/{defaults,conversion}.go and, for
what was allowed, pkg/registry/apps/*/strategy.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from wherry.kube.api.conversion.version import Conversion
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds.base import Object
from wherry.kube.api.kinds.daemon_set import TEMPLATE_GENERATION

_ROLLBACK_TO = "deprecated.deployment.rollback.to"
_UNLIMITED = 2**31 - 1
_NUMBER = re.compile(r"-?[0-9]{1,18}")


# --- defaults -----------------------------------------------------------------------------------


def _select_by_template(o: Object) -> Object:
    """The selector and the object's own labels are the template's where there are none. The
    spec."""
    spec: Object = o.setdefault("spec", {})
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        if spec.get("selector") is None:
            spec["selector"] = {"matchLabels": dict(labels)}
        metadata = o.setdefault("metadata", {})
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)
    return spec


def _default_set(o: Object) -> None:
    _select_by_template(o)


def _default_deployment_extensions(o: Object) -> None:
    spec = _select_by_template(o)
    strategy = spec.setdefault("strategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate" or "rollingUpdate" in strategy:
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 1)
    spec.setdefault("progressDeadlineSeconds", _UNLIMITED)
    spec.setdefault("revisionHistoryLimit", _UNLIMITED)


def _default_deployment_v1beta1(o: Object) -> None:
    spec = _select_by_template(o)
    spec.setdefault("revisionHistoryLimit", 2)


def _on_delete(o: Object) -> None:
    strategy = _select_by_template(o).setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "OnDelete"


# --- fields that became annotations -------------------------------------------------------------


def _annotated(
    name: str, annotation: str, read: Callable[[Any], str]
) -> Callable[[Object], Object]:
    """A conversion that moves ``spec.<name>`` into an annotation."""

    def to_stored(o: Object) -> Object:
        spec = o.get("spec") or {}
        if name not in spec:
            return o
        value = read(spec[name])
        metadata = o.get("metadata") or {}
        if value:
            annotations = {**(metadata.get("annotations") or {}), annotation: value}
            metadata = {**metadata, "annotations": annotations}
        return {
            **o,
            "metadata": metadata,
            "spec": {key: each for key, each in spec.items() if key != name},
        }

    return to_stored


def _unannotated(
    name: str, annotation: str, made: Callable[[int], Any]
) -> Callable[[Object], Object]:
    """The way back."""

    def from_stored(o: Object) -> Object:
        metadata = o.get("metadata") or {}
        value = (metadata.get("annotations") or {}).get(annotation, "")
        if "spec" not in o or not _NUMBER.fullmatch(value):
            return o
        annotations = {k: v for k, v in metadata["annotations"].items() if k != annotation}
        metadata = {**metadata, "annotations": annotations}
        if not annotations:
            del metadata["annotations"]
        return {**o, "metadata": metadata, "spec": {**o["spec"], name: made(int(value))}}

    return from_stored


_deployment_to_stored = _annotated(
    "rollbackTo", _ROLLBACK_TO, lambda given: str(given.get("revision", 0))
)
_deployment_from_stored = _unannotated(
    "rollbackTo", _ROLLBACK_TO, lambda revision: {"revision": revision} if revision else {}
)
_daemons_to_stored = _annotated("templateGeneration", TEMPLATE_GENERATION, str)
_daemons_from_stored = _unannotated("templateGeneration", TEMPLATE_GENERATION, int)


# --- what was allowed ---------------------------------------------------------------------------


def _selector_may_change(fault: FieldError) -> FieldError | None:
    changed = fault.field == "spec.selector" and fault.detail.endswith("field is immutable")
    return None if changed else fault


# --- the table ----------------------------------------------------------------------------------

DEPLOYMENT_EXTENSIONS = Conversion(
    _deployment_to_stored,
    _deployment_from_stored,
    _default_deployment_extensions,
    _selector_may_change,
    orphans=True,
)
DEPLOYMENT_V1BETA1 = Conversion(
    _deployment_to_stored,
    _deployment_from_stored,
    _default_deployment_v1beta1,
    _selector_may_change,
    orphans=True,
)
REPLICA_SET_EXTENSIONS = Conversion(default=_default_set, fault=_selector_may_change, orphans=True)
DAEMON_SET_EXTENSIONS = Conversion(
    _daemons_to_stored,
    _daemons_from_stored,
    _on_delete,
    _selector_may_change,
    orphans=True,
)
STATEFUL_SET_V1BETA1 = Conversion(default=_on_delete, orphans=True)
V1BETA2 = Conversion(orphans=True)
CRON_JOB = Conversion(orphans=True)
