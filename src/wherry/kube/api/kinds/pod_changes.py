"""What may be changed of a pod: little, for most of it is what the kubelet already made.

Upstream: ValidatePodUpdate in pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.equality import difference, equal
from wherry.kube.api.kinds.podspec.spec import MIRROR

Object = Mapping[str, Any]

_CHANGEABLE: Final = (
    "`spec.containers[*].image`",
    "`spec.initContainers[*].image`",
    "`spec.activeDeadlineSeconds`",
    "`spec.tolerations` (only additions to existing tolerations)",
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
)
_TERMS: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def check(new: Object, old: Object, faults: Faults) -> None:
    """Faults of the step from ``old`` to ``new``."""
    check_annotations(new, old, faults)
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    for kind in ("containers", "initContainers"):
        if len(spec.get(kind) or ()) != len(before.get(kind) or ()):
            why = "pod updates may not add or remove containers"
            faults.append(fields.forbidden(f"spec.{kind}", why))
            return
    if not _check_deadline(spec, before, faults):
        return
    _check_tolerations(spec, before, faults)
    _check_gates(spec, before, faults)
    if equal(spec, before):
        return
    allowed = _with_changeable(spec, before)
    if before.get("schedulingGates"):
        _check_gated(allowed, before, faults)
    if not equal(allowed, before):
        lines = "\n".join(difference(before, allowed))
        why = f"pod updates may not change fields other than {','.join(_CHANGEABLE)}\n{lines}\n"
        faults.append(fields.forbidden("spec", why))


def check_annotations(new: Object, old: Object, faults: Faults) -> None:
    """The mark of a mirror pod can neither be set nor taken."""
    now = (new.get("metadata") or {}).get("annotations") or {}
    before = (old.get("metadata") or {}).get("annotations") or {}
    if now.get(MIRROR) == before.get(MIRROR):
        return
    what = "remove or update" if MIRROR in before else "add"
    why = f"may not {what} mirror pod annotation"
    faults.append(fields.forbidden(f"metadata.annotations[{MIRROR}]", why))


def _check_deadline(spec: Object, before: Object, faults: Faults) -> bool:
    """A deadline may be set, and brought forward; False ends the judging here."""
    path = "spec.activeDeadlineSeconds"
    deadline, previous = spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if deadline is None:
        if previous is not None:
            why = "must not update from a positive integer to nil value"
            faults.append(fields.invalid(path, None, why))
        return True
    if not 0 <= deadline <= fields.MAX_INT32:
        faults.append(fields.invalid(path, deadline, fields.between(0, fields.MAX_INT32)))
        return False
    if previous is not None and previous < deadline:
        why = "must be less than or equal to previous value"
        faults.append(fields.invalid(path, deadline, why))
        return False
    return True


def _check_tolerations(spec: Object, before: Object, faults: Faults) -> None:
    def bare(tolerations: Sequence[Object] | None) -> list[dict[str, Any]]:
        return [{k: v for k, v in t.items() if k != "tolerationSeconds"} for t in tolerations or ()]

    now = bare(spec.get("tolerations"))
    if any(not any(equal(old, new) for new in now) for old in bare(before.get("tolerations"))):
        why = "existing toleration can not be modified except its tolerationSeconds"
        faults.append(fields.forbidden("spec.tolerations", why))


def _check_gates(spec: Object, before: Object, faults: Faults) -> None:
    known = {gate.get("name") for gate in before.get("schedulingGates") or ()}
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        name = gate.get("name", "")
        if name not in known:
            why = f"only deletion is allowed, but found new scheduling gate '{name}'"
            faults.append(fields.forbidden(f"spec.schedulingGates[{index}].name", why))


def _with_changeable(spec: Object, before: Object) -> dict[str, Any]:
    """The new spec with the old one's values in every field that may change."""
    allowed = dict(spec)
    for kind in ("containers", "initContainers"):
        if kind in spec:
            pairs = zip(spec[kind], before.get(kind) or (), strict=True)
            allowed[kind] = [{**new, "image": old.get("image", "")} for new, old in pairs]
    # The alias of serviceAccountName says nothing of its own.
    for name in ("activeDeadlineSeconds", "tolerations", "schedulingGates", "serviceAccount"):
        if name in before:
            allowed[name] = before[name]
        else:
            allowed.pop(name, None)
    grace = before.get("terminationGracePeriodSeconds", 0)
    if grace < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        allowed["terminationGracePeriodSeconds"] = grace
    return allowed


def _check_gated(allowed: dict[str, Any], before: Object, faults: Faults) -> None:
    """A pod that no scheduler has looked at yet may be narrowed to fewer nodes; what was judged
    here is set back in ``allowed``."""
    selector, previous = allowed.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if any(selector.get(key) != value for key, value in previous.items()):
        why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        faults.append(fields.invalid("spec.nodeSelector", selector, why))
    _set_back(allowed, "nodeSelector", before)
    affinity, old_affinity = allowed.get("affinity") or {}, before.get("affinity") or {}
    _check_node_affinity(
        affinity.get("nodeAffinity") or {}, old_affinity.get("nodeAffinity") or {}, faults
    )
    affinity = {**affinity, "nodeAffinity": old_affinity.get("nodeAffinity")}
    allowed["affinity"] = {k: v for k, v in affinity.items() if v is not None}
    if not allowed["affinity"]:
        _set_back(allowed, "affinity", {} if old_affinity else before)


def _set_back(allowed: dict[str, Any], name: str, before: Object) -> None:
    """As it was: a field that was not there is not there as an empty one either."""
    if name in before:
        allowed[name] = before[name]
    else:
        allowed.pop(name, None)


def _check_node_affinity(new: Object, old: Object, faults: Faults) -> None:
    terms = (old.get(_TERMS) or {}).get("nodeSelectorTerms") or ()
    if not terms:
        return
    path = f"spec.affinity.nodeAffinity.{_TERMS}.nodeSelectorTerms"
    now = (new.get(_TERMS) or {}).get("nodeSelectorTerms") or []
    if len(now) != len(terms):
        why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        faults.append(fields.invalid(path, now, why))
        return
    for index, (term, previous) in enumerate(zip(now, terms, strict=True)):
        if not _only_adds(term, previous):
            why = "only additions are allowed (no mutations or deletions)"
            faults.append(fields.invalid(f"{path}[{index}]", term, why))


def _only_adds(term: Object, previous: Object) -> bool:
    names = ("matchExpressions", "matchFields")
    if not any(previous.get(name) for name in names):
        return not any(term.get(name) for name in names)
    return all(
        equal((term.get(name) or [])[: len(previous.get(name) or [])], previous.get(name) or [])
        for name in names
    )
