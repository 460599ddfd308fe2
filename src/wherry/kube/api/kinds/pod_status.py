"""A pod's status: what its kubelet reports, and what of it must not go back.

Upstream: podStatusStrategy and ValidatePodStatusUpdate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wherry.kube.api import restarts
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.checks import Faults

Object = dict[str, Any]

_SYSTEM_CONDITIONS = frozenset({"PodScheduled", "Ready", "Initialized"})


def pair_addresses(status: Object) -> None:
    """``podIP`` is the first of ``podIPs``, ``hostIP`` of ``hostIPs``; clients may set either."""
    for one, many in (("podIP", "podIPs"), ("hostIP", "hostIPs")):
        first, listed = status.get(one), status.get(many)
        if first and (not listed or (many == "podIPs" and listed[0].get("ip") != first)):
            status[many] = [{"ip": first}]
        elif listed and not first:
            status[one] = listed[0].get("ip", "")


def prepare(new: Object, old: Object) -> None:
    """Keep of the old pod what a status update must not touch, in ``new``."""
    meta = new["metadata"]
    if "ownerReferences" in old["metadata"]:
        meta["ownerReferences"] = old["metadata"]["ownerReferences"]
    else:
        meta.pop("ownerReferences", None)
    before: Mapping[str, Any] = old.get("status") or {}
    status = new.setdefault("status", {})
    pair_addresses(status)
    for name in ("qosClass", "observedGeneration"):
        if not status.get(name) and before.get(name):
            status[name] = before[name]
    if conditions := status.get("conditions"):
        status["conditions"] = _with_generations(conditions, before.get("conditions") or ())


def _with_generations(conditions: Sequence[Object], before: Sequence[Object]) -> list[Object]:
    known: dict[str, list[int]] = {}
    for condition in before:
        generation = condition.get("observedGeneration", 0)
        known.setdefault(condition.get("type", ""), []).append(generation)
    kept = []
    for condition in conditions:
        generations = known.get(condition.get("type", ""))
        previous = generations.pop(0) if generations else 0
        if previous and not condition.get("observedGeneration"):
            condition = {**condition, "observedGeneration": previous}
        kept.append(condition)
    return kept


def check(new: Object, old: Object, faults: Faults) -> None:
    """Faults of a changed status."""
    status, before = new.get("status") or {}, old.get("status") or {}
    spec = old.get("spec") or {}
    for index, condition in enumerate(status.get("conditions") or ()):
        if (kind := condition.get("type", "")) not in _SYSTEM_CONDITIONS:
            where = f"metadata.conditions[{index}].Type"  # upstream's path, so clients know it
            checks.qualified_name(kind, where, faults)
    nominated = status.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        checks.node_name(nominated, "status.nominatedNodeName", faults)
    faults += fields.immutable("status.qosClass", status.get("qosClass"), before.get("qosClass"))
    if not restarts.may_restart_all(spec):
        for kind, containers in (
            ("containerStatuses", "containers"),
            ("initContainerStatuses", "initContainers"),
            ("ephemeralContainerStatuses", "ephemeralContainers"),
        ):
            _check_ended(spec, containers, status, before, kind, faults)
    if addresses := status.get("podIPs"):
        checks.ip_list(addresses, "status.podIPs", faults)
    if addresses := status.get("hostIPs"):
        if status.get("hostIP") != addresses[0].get("ip"):
            shown = addresses[0].get("ip", "")
            faults.append(
                fields.invalid("status.hostIPs[0].ip", shown, "must be equal to `hostIP`")
            )
        checks.ip_list(addresses, "status.hostIPs", faults)


def _check_ended(
    spec: Object, containers: str, status: Object, before: Object, kind: str, faults: Faults
) -> None:
    """A container that ended and is not to be restarted stays ended."""
    known = {c.get("name"): c for c in spec.get(containers) or ()}
    never = containers == "ephemeralContainers"
    now = {s.get("name"): s.get("state") or {} for s in status.get(kind) or ()}
    for index, previous in enumerate(before.get(kind) or ()):
        name = previous.get("name")
        ended = (previous.get("state") or {}).get("terminated")
        if ended is None or name not in now or "terminated" in now[name]:
            continue
        code = ended.get("exitCode", 0)
        if never or not restarts.is_restarted(spec, known.get(name) or {}, code):
            why = "may not be transitioned to non-terminated state"
            faults.append(fields.forbidden(f"status.{kind}[{index}].state", why))
