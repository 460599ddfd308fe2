"""A pod gets the overhead of its RuntimeClass, and goes where that can run.

https://kubernetes.io/docs/concepts/containers/runtime-class/
Upstream: plugin/pkg/admission/runtimeclass.
"""

from __future__ import annotations

from wherry.kube.api import amounts
from wherry.kube.api.meta import clone
from wherry.kube.api.resources import RUNTIME_CLASSES
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.tolerations import merge
from wherry.kube.apiserver.objects import Object

_DIFFERS = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
_ALONE = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"


def admit(attributes: Attributes, context: Context) -> None:
    found = _class(attributes, context)
    if found is None:
        return
    spec = attributes.new["spec"]
    if overhead := found.get("overhead"):
        fixed = overhead.get("podFixed") or {}
        if "overhead" in spec and not _same(spec["overhead"], fixed):
            raise attributes.forbidden(_DIFFERS)
        if fixed:
            spec["overhead"] = clone(fixed)
    if scheduling := found.get("scheduling"):
        _place(attributes, spec, scheduling)


def validate(attributes: Attributes, context: Context) -> None:
    overhead = attributes.new["spec"].get("overhead")
    found = _class(attributes, context)
    if found is None or not found.get("overhead"):
        if overhead is not None:
            raise attributes.forbidden(_ALONE)
    elif not _same(overhead, found["overhead"].get("podFixed")):
        raise attributes.forbidden(_DIFFERS)


def _class(attributes: Attributes, context: Context) -> Object | None:
    name = attributes.new["spec"].get("runtimeClassName")
    if name is None:
        return None
    found = context.cache.of(RUNTIME_CLASSES).get("", name)
    if found is None:
        raise attributes.forbidden(f'pod rejected: RuntimeClass "{name}" not found')
    return found.object


def _same(a: Object | None, b: Object | None) -> bool:
    return amounts.read(a) == amounts.read(b)


def _place(attributes: Attributes, spec: Object, scheduling: Object) -> None:
    selector = dict(spec.get("nodeSelector") or {})
    for key, value in (scheduling.get("nodeSelector") or {}).items():
        if selector.setdefault(key, value) != value:
            raise attributes.forbidden(
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                f"pod.spec.nodeSelector[{key}] = {selector[key]}"
            )
    if selector:
        spec["nodeSelector"] = selector
    if more := scheduling.get("tolerations"):
        spec["tolerations"] = merge(spec.get("tolerations") or [], more)
