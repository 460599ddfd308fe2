"""The checks that level restricted adds: what is best practice for all that is not the system's.

https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
"""

from __future__ import annotations

from collections.abc import Callable

from wherry.kube.api.pods import all_containers
from wherry.kube.apiserver.admission.pod_security.baseline import added, seccomp
from wherry.kube.apiserver.admission.pod_security.words import (
    CheckPod,
    Object,
    Violation,
    context,
    in_user_namespace,
    is_windows,
    named,
    plural,
    quoted,
    setters,
)


def _unless(exempt: Callable[[Object], bool], check: CheckPod) -> CheckPod:
    """The check, but not of pods that are exempt by their spec."""
    return lambda metadata, spec: None if exempt(spec) else check(metadata, spec)


def privilege_escalation(metadata: Object, spec: Object) -> Violation | None:
    names = [
        c["name"]
        for c in all_containers(spec)
        if context(c).get("allowPrivilegeEscalation") is not False
    ]
    if not names:
        return None
    return Violation(
        "allowPrivilegeEscalation != false",
        f"{named(names)} must set securityContext.allowPrivilegeEscalation=false",
    )


privilege_escalation_1_25 = _unless(is_windows, privilege_escalation)


def capabilities(metadata: Object, spec: Object) -> Violation | None:
    keep = [
        c["name"]
        for c in all_containers(spec)
        if "ALL" not in ((context(c).get("capabilities") or {}).get("drop") or ())
    ]
    names, bad = added(spec, frozenset(("NET_BIND_SERVICE",)))
    details = []
    if keep:
        details.append(f'{named(keep)} must set securityContext.capabilities.drop=["ALL"]')
    if names:
        details.append(
            f"{named(names)} must not include {quoted(bad)} in securityContext.capabilities.add"
        )
    return Violation("unrestricted capabilities", "; ".join(details)) if details else None


capabilities_1_25 = _unless(is_windows, capabilities)

_VOLUMES = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
)


def volumes(metadata: Object, spec: Object) -> Violation | None:
    names, kinds = [], set()
    for volume in spec.get("volumes") or ():
        if any(volume.get(kind) is not None for kind in _VOLUMES):
            continue
        names.append(volume["name"])
        other = [k for k, source in volume.items() if k != "name" and source is not None]
        kinds.add(other[0] if other else "unknown")
    if not names:
        return None
    return Violation(
        "restricted volume types",
        f"{plural('volume', 'volumes', len(names))} {quoted(names)} "
        f"{plural('uses', 'use', len(names))} restricted volume "
        f"{plural('type', 'types', len(kinds))} {quoted(sorted(kinds))}",
    )


def run_as_non_root(metadata: Object, spec: Object) -> Violation | None:
    reason = "runAsNonRoot != true"
    if found := setters(spec, lambda s: s.get("runAsNonRoot") is False):
        who = " and ".join(found)
        return Violation(reason, f"{who} must not set securityContext.runAsNonRoot=false")
    if context(spec).get("runAsNonRoot"):
        return None
    names = [c["name"] for c in all_containers(spec) if context(c).get("runAsNonRoot") is None]
    if not names:
        return None
    return Violation(reason, f"pod or {named(names)} must set securityContext.runAsNonRoot=true")


run_as_non_root_1_35 = _unless(in_user_namespace, run_as_non_root)


def run_as_user(metadata: Object, spec: Object) -> Violation | None:
    found = setters(spec, lambda s: s.get("runAsUser") == 0)
    if not found:
        return None
    return Violation("runAsUser=0", f"{' and '.join(found)} must not set runAsUser=0")


run_as_user_1_35 = _unless(in_user_namespace, run_as_user)


def seccomp_set(metadata: Object, spec: Object) -> Violation | None:
    if wrong := seccomp(metadata, spec):
        return wrong
    if context(spec).get("seccompProfile") is not None:
        return None
    names = [c["name"] for c in all_containers(spec) if context(c).get("seccompProfile") is None]
    if not names:
        return None
    return Violation(
        "seccompProfile",
        f"pod or {named(names)} must set securityContext.seccompProfile.type to "
        '"RuntimeDefault" or "Localhost"',
    )


seccomp_set_1_25 = _unless(is_windows, seccomp_set)
