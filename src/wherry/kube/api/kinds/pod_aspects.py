"""The sides of a pod that have a path of their own: ephemeral containers, and resources.

Everything else of what the client sends is left as it was. Upstream: podEphemeralContainersStrategy
and podResizeStrategy in pkg/registry/core/pod/strategy.go; ValidatePodEphemeralContainersUpdate and
ValidatePodResize in pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.base import Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.equality import difference, equal
from wherry.kube.api.kinds.podspec import resources
from wherry.kube.api.kinds.podspec.spec import MIRROR
from wherry.kube.api.meta import clone
from wherry.kube.api.pods import is_sidecar

_RESIZABLE = ("cpu", "memory")
_KINDS = ("containers", "initContainers")


def _keep_all_but(new: Object, old: Object, spec: Object) -> None:
    """Make ``new`` the old pod with another spec; who manages its fields is noted later."""
    managed = new["metadata"].get("managedFields")
    version = new["metadata"].get("resourceVersion")
    kept = clone(old)
    kept["spec"] = spec
    if managed is not None:
        kept["metadata"]["managedFields"] = managed
    if version:
        kept["metadata"]["resourceVersion"] = version
    if not equal(spec, old.get("spec")):
        kept["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
    new.clear()
    new.update(kept)


def prepare_ephemeral(new: Object, old: Object) -> None:
    """Leave nothing changed but ``spec.ephemeralContainers``."""
    spec = clone(old["spec"])
    given = (new.get("spec") or {}).get("ephemeralContainers")
    if given:
        spec["ephemeralContainers"] = given
    else:
        spec.pop("ephemeralContainers", None)
    _keep_all_but(new, old, spec)


def check_ephemeral(new: Object, old: Object, faults: Faults) -> None:
    """Faults of the step: ephemeral containers come, and stay as they are."""
    path = "spec.ephemeralContainers"
    if MIRROR in (old["metadata"].get("annotations") or {}):
        faults.append(fields.forbidden("", "static pods do not support ephemeral containers"))
    now = {c.get("name", ""): c for c in new["spec"].get("ephemeralContainers") or ()}
    for container in old["spec"].get("ephemeralContainers") or ():
        name = container["name"]
        if name not in now:
            why = f"existing ephemeral containers {fields.quote(name)} may not be removed\n"
            faults.append(fields.forbidden(path, why))
        elif not equal(now[name], container):
            lines = "\n".join(difference(container, now[name]))
            why = f"existing ephemeral containers {fields.quote(name)} may not be changed\n{lines}"
            faults.append(fields.forbidden(path, why))


def prepare_resize(new: Object, old: Object) -> None:
    """Leave nothing changed but ``resources``, where the containers are still the same ones."""
    spec = clone(old["spec"])
    given = new.get("spec") or {}
    for kind in _KINDS:
        wanted = given.get(kind) or []
        if [c.get("name") for c in wanted] != [c.get("name") for c in spec.get(kind) or []]:
            if wanted:
                spec[kind] = wanted  # refused by the rules
            continue
        for container, other in zip(spec.get(kind) or [], wanted, strict=True):
            for name in ("resources", "resizePolicy"):
                _take(container, other, name)
    _take(spec, given, "resources")
    _keep_all_but(new, old, spec)


def _take(target: Object, source: Mapping[str, Any], name: str) -> None:
    if name in source:
        target[name] = source[name]
    else:
        target.pop(name, None)


def check_resize(new: Object, old: Object, faults: Faults) -> None:
    """Faults of the step from the old amounts to the new ones."""
    if MIRROR in (old["metadata"].get("annotations") or {}):
        faults.append(fields.forbidden("", "static pods cannot be resized"))
    if ((old["spec"].get("os") or {}).get("name")) == "windows":
        faults.append(fields.forbidden("", "windows pods cannot be resized"))
    spec, before = new["spec"], old["spec"]
    for kind in _KINDS:
        now, was = spec.get(kind) or [], before.get(kind) or []
        if [c.get("name") for c in now] != [c.get("name") for c in was]:
            why = "pod resize may not add or remove containers"
            faults.append(fields.forbidden(f"spec.{kind}", why))
            return
        for index, (container, previous) in enumerate(zip(now, was, strict=True)):
            path = f"spec.{kind}[{index}]"
            if kind == "initContainers" and not is_sidecar(container):
                if not equal(container.get("resources"), previous.get("resources")):
                    why = "resources for non-sidecar init containers are immutable"
                    faults.append(fields.forbidden(f"{path}.resources", why))
                continue
            if not equal(container.get("resizePolicy"), previous.get("resizePolicy")):
                why = "resize policy cannot be changed"
                faults.append(fields.forbidden(f"{path}.resizePolicy", why))
            amounts, earlier = container.get("resources") or {}, previous.get("resources") or {}
            _check_amounts(amounts, earlier, f"{path}.resources", faults)
    _check_amounts(
        spec.get("resources") or {}, before.get("resources") or {}, "spec.resources", faults
    )
    now_class = resources.qos_class(spec)
    if now_class != ((old.get("status") or {}).get("qosClass") or resources.qos_class(before)):
        why = "Pod QOS Class may not change as a result of resizing"
        faults.append(fields.invalid("spec", now_class, why))


def _check_amounts(
    new: Mapping[str, Any], old: Mapping[str, Any], path: str, faults: Faults
) -> None:
    for part in ("requests", "limits"):
        now, was = new.get(part) or {}, old.get(part) or {}
        for name in sorted(now.keys() | was.keys()):
            if name not in _RESIZABLE:
                if not equal(now.get(name), was.get(name)):
                    why = "only cpu and memory resources are mutable"
                    faults.append(fields.forbidden("spec", why))
            elif name not in now:
                why = f"resource {part} cannot be removed"
                faults.append(fields.forbidden(f"{path}.{part}", why))
    if not equal(new.get("claims"), old.get("claims")):
        faults.append(fields.forbidden("spec", "only cpu and memory resources are mutable"))
