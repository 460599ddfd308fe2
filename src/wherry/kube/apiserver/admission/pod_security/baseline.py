"""The checks of level baseline: known ways to escalate privileges.

https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline
"""

from __future__ import annotations

from collections.abc import Iterator

from wherry.kube.api.pods import all_containers
from wherry.kube.apiserver.admission.pod_security.words import (
    CheckPod,
    Object,
    Violation,
    context,
    in_user_namespace,
    named,
    plural,
    quoted,
    setters,
)

_PROFILES = ("RuntimeDefault", "Localhost")

# --- AppArmor ---------------------------------------------------------------------------------

_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def app_armor(metadata: Object, spec: Object) -> Violation | None:
    values: set[str] = set()

    def wrong(security: Object) -> bool:
        profile = security.get("appArmorProfile")
        if profile is None or profile.get("type") in _PROFILES:
            return False
        values.add(profile.get("type", ""))
        return True

    found = setters(spec, wrong)
    annotations = sorted(
        f'{key}="{value}"'
        for key, value in (metadata.get("annotations") or {}).items()
        if key.startswith(_APPARMOR)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    )
    if annotations:
        found.append(plural("annotation", "annotations", len(annotations)))
    if not found:
        return None
    bad = [*sorted(values), *annotations]
    return Violation(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", len(bad)),
        f"{' and '.join(found)} must not set AppArmor profile type to {quoted(bad)}",
    )


# --- capabilities -----------------------------------------------------------------------------

_CAPABILITIES = frozenset(
    (
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    )
)


def added(spec: Object, allowed: frozenset[str]) -> tuple[list[str], list[str]]:
    """Which containers add capabilities that are not allowed, and which those are."""
    names, bad = [], set()
    for container in all_containers(spec):
        given = set((context(container).get("capabilities") or {}).get("add") or ()) - allowed
        if given:
            names.append(container["name"])
            bad |= given
    return names, sorted(bad)


def capabilities(metadata: Object, spec: Object) -> Violation | None:
    names, bad = added(spec, _CAPABILITIES)
    if not names:
        return None
    return Violation(
        "non-default capabilities",
        f"{named(names)} must not include {quoted(bad)} in securityContext.capabilities.add",
    )


# --- the host ---------------------------------------------------------------------------------


def host_namespaces(metadata: Object, spec: Object) -> Violation | None:
    found = [field for field in ("hostIPC", "hostNetwork", "hostPID") if spec.get(field)]
    return Violation("host namespaces", ", ".join(found)) if found else None


def host_path_volumes(metadata: Object, spec: Object) -> Violation | None:
    names = [v["name"] for v in spec.get("volumes") or () if v.get("hostPath") is not None]
    if not names:
        return None
    return Violation(
        "hostPath volumes", f"{plural('volume', 'volumes', len(names))} {quoted(names)}"
    )


def host_ports(metadata: Object, spec: Object) -> Violation | None:
    names, ports = [], set()
    for container in all_containers(spec):
        given = {str(p["hostPort"]) for p in container.get("ports") or () if p.get("hostPort")}
        if given:
            names.append(container["name"])
            ports |= given
    if not names:
        return None
    return Violation(
        "hostPort",
        f"{named(names)} {plural('uses', 'use', len(names))} "
        f"{plural('hostPort', 'hostPorts', len(ports))} {', '.join(sorted(ports))}",
    )


def _hosts(container: Object) -> Iterator[str]:
    handlers = [container.get(f"{name}Probe") for name in ("liveness", "readiness", "startup")]
    lifecycle = container.get("lifecycle") or {}
    handlers += [lifecycle.get("postStart"), lifecycle.get("preStop")]
    for handler in handlers:
        for kind in ("httpGet", "tcpSocket"):
            if host := ((handler or {}).get(kind) or {}).get("host"):
                yield host


def hosts_of_probes(metadata: Object, spec: Object) -> Violation | None:
    names, hosts = set(), set()
    for container in all_containers(spec):
        if given := set(_hosts(container)):
            names.add(container["name"])
            hosts |= given
    if not names:
        return None
    return Violation(
        "probe or lifecycle host",
        f"{named(sorted(names))} {plural('uses', 'use', len(names))} "
        f"{plural('probe or lifecycle host', 'probe or lifecycle hosts', len(hosts))} "
        f"{quoted(sorted(hosts))}",
    )


def host_process(metadata: Object, spec: Object) -> Violation | None:
    found = setters(spec, lambda s: bool((s.get("windowsOptions") or {}).get("hostProcess")))
    if not found:
        return None
    who = " and ".join(found)
    return Violation(
        "hostProcess", f"{who} must not set securityContext.windowsOptions.hostProcess=true"
    )


# --- the kernel -------------------------------------------------------------------------------


def privileged(metadata: Object, spec: Object) -> Violation | None:
    names = [c["name"] for c in all_containers(spec) if context(c).get("privileged")]
    if not names:
        return None
    return Violation("privileged", f"{named(names)} must not set securityContext.privileged=true")


def proc_mount(metadata: Object, spec: Object) -> Violation | None:
    names, kinds = [], set()
    for container in all_containers(spec):
        kind = context(container).get("procMount")
        if kind not in (None, "Default"):
            names.append(container["name"])
            kinds.add(kind)
    if not names:
        return None
    return Violation(
        "procMount",
        f"{named(names)} must not set securityContext.procMount to {quoted(sorted(kinds))}",
    )


def proc_mount_1_35(metadata: Object, spec: Object) -> Violation | None:
    return None if in_user_namespace(spec) else proc_mount(metadata, spec)


def _selinux(types: frozenset[str]) -> CheckPod:
    def check(metadata: Object, spec: Object) -> Violation | None:
        bad: set[str] = set()
        told: set[str] = set()

        def wrong(security: Object) -> bool:
            options = security.get("seLinuxOptions") or {}
            kind = options.get("type", "")
            if kind not in types:
                bad.add(kind)
            rest = {name for name in ("user", "role") if options.get(name)}
            told.update(rest)
            return bool(rest) or kind not in types

        found = setters(spec, wrong)
        if not found:
            return None
        data = [f"{plural('type', 'types', len(bad))} {quoted(sorted(bad))}"] if bad else []
        data += [f"{name} may not be set" for name in ("user", "role") if name in told]
        return Violation(
            "seLinuxOptions",
            f"{' and '.join(found)} set forbidden securityContext.seLinuxOptions: "
            f"{'; '.join(data)}",
        )

    return check


_TYPES = frozenset(("", "container_t", "container_init_t", "container_kvm_t"))
selinux = _selinux(_TYPES)
selinux_1_31 = _selinux(_TYPES | {"container_engine_t"})

_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"


def seccomp_annotations(metadata: Object, spec: Object) -> Violation | None:
    annotations = metadata.get("annotations") or {}
    keys = {_SECCOMP_POD, *(f"{_SECCOMP_CONTAINER}{c['name']}" for c in all_containers(spec))}
    bad = sorted(
        f'{key}="{annotations[key]}"'
        for key in keys & annotations.keys()
        if annotations[key] not in ("runtime/default", "docker/default")
        and not annotations[key].startswith("localhost/")
    )
    if not bad:
        return None
    return Violation(
        "seccompProfile",
        f"forbidden {plural('annotation', 'annotations', len(bad))} {', '.join(bad)}",
    )


def seccomp(metadata: Object, spec: Object) -> Violation | None:
    bad: set[str] = set()

    def wrong(security: Object) -> bool:
        profile = security.get("seccompProfile")
        if profile is None or profile.get("type") in _PROFILES:
            return False
        bad.add(profile.get("type", ""))
        return True

    found = setters(spec, wrong)
    if not found:
        return None
    return Violation(
        "seccompProfile",
        f"{' and '.join(found)} must not set securityContext.seccompProfile.type to "
        f"{quoted(sorted(bad))}",
    )


def _sysctls(allowed: frozenset[str]) -> CheckPod:
    def check(metadata: Object, spec: Object) -> Violation | None:
        given = [sysctl["name"] for sysctl in context(spec).get("sysctls") or ()]
        bad = [name for name in given if name not in allowed]
        return Violation("forbidden sysctls", ", ".join(bad)) if bad else None

    return check


_V4 = "net.ipv4."
_SAFE = frozenset(
    (
        "kernel.shm_rmid_forced",
        f"{_V4}ip_local_port_range",
        f"{_V4}tcp_syncookies",
        f"{_V4}ping_group_range",
        f"{_V4}ip_unprivileged_port_start",
    )
)
_SAFE_1_27 = _SAFE | {f"{_V4}ip_local_reserved_ports"}
_SAFE_1_29 = _SAFE_1_27 | {
    f"{_V4}tcp_keepalive_time",
    f"{_V4}tcp_fin_timeout",
    f"{_V4}tcp_keepalive_intvl",
    f"{_V4}tcp_keepalive_probes",
}
_SAFE_1_32 = _SAFE_1_29 | {f"{_V4}tcp_rmem", f"{_V4}tcp_wmem"}
_SAFE_1_37 = _SAFE_1_32 | {f"{_V4}tcp_slow_start_after_idle", f"{_V4}tcp_notsent_lowat"}

sysctls = _sysctls(_SAFE)
sysctls_1_27 = _sysctls(_SAFE_1_27)
sysctls_1_29 = _sysctls(_SAFE_1_29)
sysctls_1_32 = _sysctls(_SAFE_1_32)
sysctls_1_37 = _sysctls(_SAFE_1_37)
