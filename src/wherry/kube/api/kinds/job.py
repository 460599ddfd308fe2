"""Jobs.

Upstream: pkg/apis/batch/v1/defaults.go, pkg/apis/batch/validation/validation.go and
pkg/registry/batch/job/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from wherry.kube.api import conditions, names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields, job_policies, label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age, human
from wherry.kube.api.kinds.equality import equal
from wherry.kube.api.kinds.podspec.defaults import default_template
from wherry.kube.api.kinds.podspec.spec import check_template
from wherry.kube.api.kinds.replicated import TEMPLATE_COLUMNS, template_cells
from wherry.kube.api.meta import parse_time

UID_LABEL: Final = "batch.kubernetes.io/controller-uid"
NAME_LABEL: Final = "batch.kubernetes.io/job-name"
_OLD_UID_LABEL: Final = "controller-uid"
_OLD_NAME_LABEL: Final = "job-name"

_MODES = ("Indexed", "NonIndexed")
_RESTART = ("OnFailure", "Never")
_PARALLELISM_LIMIT: Final = 100_000
_BACKOFF_LIMIT: Final = 6
_STATES = (
    ("Complete", "Complete"),
    ("Failed", "Failed"),
    ("", "Terminating"),
    ("Suspended", "Suspended"),
    ("FailureTarget", "FailureTarget"),
    ("SuccessCriteriaMet", "SuccessCriteriaMet"),
)
"""Conditions and what a table says of them, in the order in which they count."""

_SCHEDULING = ("nodeSelector", "tolerations", "schedulingGates", "affinity")
"""What of its pods a job that has not started yet may change."""


class Job(Kind):
    """Pods that are run until enough of them have succeeded."""

    has_generation = True
    orphans = True
    columns = (
        NAME_COLUMN,
        Column("Status", description="Running, Complete, Failed, Suspended, …"),
        Column("Completions", description="Pods that succeeded, of those needed."),
        Column("Duration", description="How long it has taken."),
        AGE_COLUMN,
        *TEMPLATE_COLUMNS,
    )
    field_names = frozenset({"status.successful"})

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        if "completions" not in spec and "parallelism" not in spec:
            spec["completions"] = 1
        spec.setdefault("parallelism", 1)
        each = "backoffLimitPerIndex" in spec
        spec.setdefault("backoffLimit", fields.MAX_INT32 if each else _BACKOFF_LIMIT)
        template = spec.setdefault("template", {})
        default_template(template)
        labels = template["metadata"].get("labels")
        meta = o.setdefault("metadata", {})
        if labels and not meta.get("labels"):
            meta["labels"] = dict(labels)
        spec.setdefault("completionMode", "NonIndexed")
        spec.setdefault("suspend", False)
        spec.setdefault("manualSelector", False)
        policy = spec.get("podFailurePolicy")
        replacement = "TerminatingOrFailed" if policy is None else "Failed"
        spec.setdefault("podReplacementPolicy", replacement)
        job_policies.default_failure_policy(policy or {})

    def prepare_create(self, o: Object) -> None:
        super().prepare_create(o)
        if not o["spec"].get("manualSelector"):
            _select_own_pods(o)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        _check_generated_selector(o, faults)
        check_job_spec(spec, "spec", faults)
        _check_selector(spec, faults)
        name, completions = o["metadata"].get("name", ""), spec.get("completions") or 0
        if spec.get("completionMode") == "Indexed" and completions > 0:
            longest = f"{name}-{completions - 1}"
            if names.is_dns1123_label(longest):
                why = f"will not able to create pod with invalid DNS label: {longest}"
                faults.append(fields.invalid("metadata.name", name, why))
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        after, before = new.get("spec") or {}, old.get("spec") or {}
        check_job_spec(after, "spec", faults)
        _check_selector(after, faults)
        _check_completions(after, before, faults)
        for name in ("selector", "template", "completionMode", "podFailurePolicy"):
            was = before.get(name)
            if name == "template" and _not_started(old):
                was = _rescheduled(was or {}, after.get(name) or {})
            if not equal(after.get(name), was):
                value = after.get(name)
                shown = label_selectors.as_shown(value) if name == "selector" else value
                faults.append(fields.invalid(f"spec.{name}", shown, fields.IMMUTABLE))
        for name in ("backoffLimitPerIndex", "managedBy", "successPolicy"):
            if not equal(after.get(name), before.get(name)):
                faults.append(fields.invalid(f"spec.{name}", after.get(name), fields.IMMUTABLE))
        return faults

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        status, before = new.get("status") or {}, old.get("status") or {}
        for name in ("active", "succeeded", "failed", "ready", "terminating"):
            faults += fields.non_negative(f"status.{name}", status.get(name, 0))
        if "completionTime" in status and "startTime" not in status:
            why = "completionTime cannot be set for a job without startTime"
            faults.append(fields.invalid("status.completionTime", status["completionTime"], why))
        for condition in ("Complete", "Failed"):
            if _holds(before, condition) and not _holds(status, condition):
                why = f"the terminal condition {condition} cannot be removed"
                faults.append(fields.invalid("status.conditions", fields.Struct(), why))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        return [
            meta.get("name", ""),
            _state(meta, status),
            _completions(spec, status),
            _duration(status, now),
            age(meta.get("creationTimestamp"), now),
            *template_cells(spec),
            label_selectors.selector_text(spec.get("selector")),
        ]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        values = super().selectable_fields(o)
        values["status.successful"] = str((o.get("status") or {}).get("succeeded", 0))
        return values


def check_job_spec(spec: Object, path: str, faults: Faults) -> None:
    """Faults of what a job does, but for its selector."""
    for name in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ):
        if spec.get(name) is not None:
            faults += fields.non_negative(f"{path}.{name}", spec[name])
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        why = "when maxFailedIndexes is specified"
        faults.append(fields.required(f"{path}.backoffLimitPerIndex", why))
    if (manager := spec.get("managedBy")) is not None:
        job_policies.check_manager(manager, f"{path}.managedBy", faults)
    _check_mode(spec, path, faults)
    if (failure := spec.get("podFailurePolicy")) is not None:
        job_policies.check_failure_policy(failure, spec, f"{path}.podFailurePolicy", faults)
    if (success := spec.get("successPolicy")) is not None:
        if spec.get("completionMode") != "Indexed":
            shown = fields.Struct(success)
            why = "requires indexed completion mode"
            faults.append(fields.invalid(f"{path}.successPolicy", shown, why))
        else:
            job_policies.check_success_policy(success, spec, f"{path}.successPolicy", faults)
    if (replacement := spec.get("podReplacementPolicy")) is not None:
        supported: tuple[str, ...] = ("Failed", "TerminatingOrFailed")
        if failure is not None:
            supported = ("Failed",)
        checks.one_of(replacement, supported, f"{path}.podReplacementPolicy", faults)
    template = spec.get("template") or {}
    check_template(template, f"{path}.template", faults)
    restart, where = (template.get("spec") or {}).get("restartPolicy", ""), f"{path}.template.spec"
    if restart in ("", "Always"):
        why = 'valid values: "OnFailure", "Never"'
        faults.append(fields.required(f"{where}.restartPolicy", why))
    elif restart not in _RESTART:
        faults.append(fields.not_supported(f"{where}.restartPolicy", restart, _RESTART))
    elif failure is not None and restart != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        faults.append(fields.invalid(f"{where}.restartPolicy", restart, why))


def _check_mode(spec: Object, path: str, faults: Faults) -> None:
    mode, completions = spec.get("completionMode"), spec.get("completions")
    if mode is None:
        return
    if mode not in _MODES:
        faults.append(fields.not_supported(f"{path}.completionMode", mode, _MODES))
    if mode == "Indexed":
        if completions is None:
            why = "when completion mode is Indexed"
            faults.append(fields.required(f"{path}.completions", why))
        parallelism = spec.get("parallelism") or 0
        if parallelism > _PARALLELISM_LIMIT:
            limit = f"must be less than or equal to {_PARALLELISM_LIMIT}"
            why = f"{limit} when completion mode is Indexed"
            faults.append(fields.invalid(f"{path}.parallelism", parallelism, why))
        failed = spec.get("maxFailedIndexes") or 0
        if completions is not None and failed > completions:
            why = "must be less than or equal to completions"
            faults.append(fields.invalid(f"{path}.maxFailedIndexes", failed, why))
    elif "backoffLimitPerIndex" in spec:
        why = "requires indexed completion mode"
        for name in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if name in spec:
                faults.append(fields.invalid(f"{path}.{name}", spec[name], why))


def _select_own_pods(o: Object) -> None:
    """The job's pods are those that carry its uid: nobody else's are ever taken for them."""
    meta, spec = o["metadata"], o["spec"]
    uid, name = meta.get("uid", ""), meta.get("name", "")
    template = spec["template"]
    wanted = {
        _OLD_NAME_LABEL: name,
        NAME_LABEL: name,
        _OLD_UID_LABEL: uid,
        UID_LABEL: uid,
    }
    labels = {**wanted, **(template["metadata"].get("labels") or {})}
    selector = spec.get("selector") or {}
    matched = {UID_LABEL: uid, **(selector.get("matchLabels") or {})}
    o["spec"] = {
        **spec,
        "selector": {**selector, "matchLabels": matched},
        "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
    }


def _check_generated_selector(o: Object, faults: Faults) -> None:
    meta, spec = o["metadata"], o.get("spec") or {}
    if spec.get("manualSelector") or spec.get("selector") is None:
        return
    uid, name = meta.get("uid", ""), meta.get("name", "")
    if not uid:
        faults.append(fields.required("metadata.uid"))
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    wanted = {_OLD_UID_LABEL: uid, _OLD_NAME_LABEL: name, UID_LABEL: uid, NAME_LABEL: name}
    for key, value in wanted.items():
        where, why = f"spec.template.metadata.labels[{key}]", f"must be '{value}'"
        if key not in labels:
            faults.append(fields.required(where, why))
        elif labels[key] != value:
            faults.append(fields.invalid(where, labels, why))
    selector = label_selectors.parse(spec["selector"])
    if selector is not None and not selector.matches(wanted):
        shown = label_selectors.as_shown(spec["selector"])
        faults.append(fields.invalid("spec.selector", shown, "`selector` not auto-generated"))


def _check_selector(spec: Object, faults: Faults) -> None:
    given = spec.get("selector")
    if given is None:
        faults.append(fields.required("spec.selector"))
        return
    label_selectors.check_selector(given, "spec.selector", faults)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    selector = label_selectors.parse(given)
    if selector is not None and not selector.matches(labels or {}):
        why = "`selector` does not match template `labels`"
        faults.append(fields.invalid("spec.template.metadata.labels", labels, why))


def _check_completions(after: Object, before: Object, faults: Faults) -> None:
    """They are fixed, but for an indexed job that runs all at once: it may grow or shrink."""
    count, was = after.get("completions"), before.get("completions")
    if count == was:
        return
    if before.get("completionMode") != "Indexed" or count is None or was is None:
        faults.append(fields.invalid("spec.completions", count, fields.IMMUTABLE))
    elif count != after.get("parallelism") or was != before.get("parallelism"):
        why = "can only be modified in tandem with spec.parallelism"
        faults.append(fields.invalid("spec.completions", count, why))


def _not_started(o: Object) -> bool:
    return bool((o.get("spec") or {}).get("suspend")) and "startTime" not in (o.get("status") or {})


def _rescheduled(before: Object, after: Object) -> Object:
    """The template as it was, but for where its pods go, which is as in ``after``."""
    meta, spec = dict(before.get("metadata") or {}), dict(before.get("spec") or {})
    new_meta, new_spec = after.get("metadata") or {}, after.get("spec") or {}
    meta |= {key: new_meta.get(key) for key in ("labels", "annotations")}
    spec |= {key: new_spec.get(key) for key in _SCHEDULING}
    return {**before, "metadata": meta, "spec": spec}


def _holds(status: Object, condition: str) -> bool:
    return conditions.holds(status.get("conditions") or (), condition)


def _state(meta: Object, status: Object) -> str:
    for condition, text in _STATES:
        if _holds(status, condition) if condition else "deletionTimestamp" in meta:
            return text
    return "Running"


def _completions(spec: Object, status: Object) -> str:
    done = status.get("succeeded", 0)
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _duration(status: Object, now: datetime) -> str:
    if not status.get("startTime"):
        return ""
    end = status.get("completionTime")
    until = parse_time(end) if end else now
    return human((until - parse_time(status["startTime"])).total_seconds())
