"""A pod's priority as a number, from the name of its class.

PriorityClass objects are not served yet; the two classes every cluster has are known by name.
"""

from __future__ import annotations

from wherry.kube.api.resources import PODS
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.cache import Cache

_SYSTEM_CLASSES = {
    "system-cluster-critical": 2_000_000_000,
    "system-node-critical": 2_000_001_000,
}


async def admit(attributes: Attributes, cache: Cache) -> None:
    if not attributes.is_for(PODS, "CREATE", "UPDATE"):
        return
    assert attributes.object is not None
    spec = attributes.object["spec"]
    if attributes.old is not None:
        for field in ("priority", "preemptionPolicy"):
            if field not in spec and field in attributes.old["spec"]:
                spec[field] = attributes.old["spec"][field]
        return
    name = spec.get("priorityClassName", "")
    if name and name not in _SYSTEM_CLASSES:
        raise attributes.forbidden(f"no PriorityClass with name {name} was found")
    priority = _SYSTEM_CLASSES.get(name, 0)
    if spec.get("priority", priority) != priority:
        raise attributes.forbidden(
            f"the integer value of priority ({spec['priority']}) must not be provided in pod "
            f"spec; priority admission controller computed {priority} from the given "
            "PriorityClass name"
        )
    if spec.get("preemptionPolicy", "PreemptLowerPriority") != "PreemptLowerPriority":
        raise attributes.forbidden(
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be "
            "provided in pod spec; priority admission controller computed PreemptLowerPriority "
            "from the given PriorityClass name"
        )
    spec["priority"] = priority
    spec["preemptionPolicy"] = "PreemptLowerPriority"
