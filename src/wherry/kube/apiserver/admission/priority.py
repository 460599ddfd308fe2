"""A pod's priority as a number, from its PriorityClass or the default one; and no second default.

Upstream: plugin/pkg/admission/priority/admission.go.
"""

from __future__ import annotations

from wherry.kube.api.kinds.priority_class import PREEMPT, SYSTEM_CLASSES
from wherry.kube.api.resources import PRIORITY_CLASSES
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object

_ZERO: Object = {"metadata": {"name": ""}, "value": 0}


def admit(attributes: Attributes, context: Context) -> None:
    spec = attributes.new["spec"]
    if attributes.old is not None:
        for field in ("priority", "preemptionPolicy"):
            if field not in spec and field in attributes.old["spec"]:
                spec[field] = attributes.old["spec"][field]
        return
    chosen = _class_of(attributes, context.cache, spec.get("priorityClassName", ""))
    if name := chosen["metadata"]["name"]:
        spec["priorityClassName"] = name
    priority, policy = chosen["value"], chosen.get("preemptionPolicy") or PREEMPT
    if spec.get("priority", priority) != priority:
        raise attributes.forbidden(
            f"the integer value of priority ({spec['priority']}) must not be provided in pod "
            f"spec; priority admission controller computed {priority} from the given "
            "PriorityClass name"
        )
    if spec.get("preemptionPolicy", policy) != policy:
        raise attributes.forbidden(
            f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be "
            f"provided in pod spec; priority admission controller computed {policy} "
            "from the given PriorityClass name"
        )
    spec["priority"] = priority
    spec["preemptionPolicy"] = policy


def _class_of(attributes: Attributes, cache: Cache, name: str) -> Object:
    """The class a pod names, or the one for those that name none.

    Raises:
        StatusError: 403, there is no such class.
    """
    if not name:
        default = _default(cache)
        return _ZERO if default is None else default
    found = cache.of(PRIORITY_CLASSES).get("", name)
    if found is not None:
        return found.object
    if name in SYSTEM_CLASSES:  # known before they are there
        return {"metadata": {"name": name}, "value": SYSTEM_CLASSES[name]}
    raise attributes.forbidden(f"no PriorityClass with name {name} was found")


def _default(cache: Cache) -> Object | None:
    """The default class; the least of them where there are several."""
    classes = [stored.object for stored in cache.of(PRIORITY_CLASSES).list()]
    defaults = [o for o in classes if o.get("globalDefault")]
    return min(defaults, key=lambda o: int(o["value"]), default=None)


def validate(attributes: Attributes, context: Context) -> None:
    """Of PriorityClasses at most one is the default."""
    if not attributes.new.get("globalDefault"):
        return
    default = _default(context.cache)
    if default is not None and default["metadata"]["name"] != attributes.name:
        name = default["metadata"]["name"]
        raise attributes.forbidden(
            f"PriorityClass {name} is already marked as default. Only one default can exist"
        )
