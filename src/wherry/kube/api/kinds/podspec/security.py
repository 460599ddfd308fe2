"""Security contexts of pods and containers, and the operating system they are for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.podspec import paths

Spec = Mapping[str, Any]

_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_SYSCTL_SEGMENT = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL = rf"({_SYSCTL_SEGMENT}[\./])*{_SYSCTL_SEGMENT}"
_SYSCTL_LIMIT = 253
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "fs.mqueue.")

_WINDOWS: Final = "cannot be set for a windows pod"
_LINUX_ONLY_POD = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
)
_LINUX_ONLY_SPEC = ("hostUsers", "hostPID", "hostIPC", "shareProcessNamespace")
_LINUX_ONLY_CONTAINER = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
)


def containers_of(spec: Spec, path: str) -> Iterator[tuple[Spec, str]]:
    """Every container of every kind with its path, in upstream's order."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            yield container, f"{path}.{kind}[{index}]"


def check_pod(spec: Spec, path: str, faults: Faults) -> None:
    """Faults of ``spec.securityContext``; ``path`` is that of the spec."""
    context, where = spec.get("securityContext"), f"{path}.securityContext"
    if not context:
        return
    for name in ("fsGroup", "runAsUser", "runAsGroup"):
        _check_id(context.get(name), f"{where}.{name}", faults)
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        _check_id(group, f"{where}.supplementalGroups[{index}]", faults)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        why = "ShareProcessNamespace and HostPID cannot both be enabled"
        faults.append(fields.invalid(f"{where}.shareProcessNamespace", True, why))
    if context.get("sysctls"):
        _check_sysctls(spec, f"{where}.sysctls", faults)
    for name, supported in (
        ("fsGroupChangePolicy", ("Always", "OnRootMismatch")),
        ("supplementalGroupsPolicy", ("Merge", "Strict")),
        ("seLinuxChangePolicy", ("MountOption", "Recursive")),
    ):
        value = context.get(name)
        if value is not None and value not in supported:
            faults.append(fields.not_supported(f"{where}.{name}", value, supported))
    _check_profiles(context, where, faults)


def check_container(context: Spec, host_users: bool, path: str, faults: Faults) -> None:
    """Faults of a container's ``securityContext``."""
    for name in ("runAsUser", "runAsGroup"):
        _check_id(context.get(name), f"{path}.{name}", faults)
    if (mount := context.get("procMount")) is not None:
        if mount not in ("Default", "Unmasked"):
            supported = ("Default", "Unmasked")
            faults.append(fields.not_supported(f"{path}.procMount", mount, supported))
        if host_users and mount == "Unmasked":
            why = "`hostUsers` must be false to use `Unmasked`"
            faults.append(fields.invalid(f"{path}.procMount", mount, why))
    _check_profiles(context, path, faults)
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            faults.append(fields.invalid(path, context, why))
        for capability in (context.get("capabilities") or {}).get("add") or ():
            if capability == "CAP_SYS_ADMIN":
                why = (
                    "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` "
                    "CAP_SYS_ADMIN"
                )
                faults.append(fields.invalid(path, context, why))


def check_host_users(spec: Spec, path: str, faults: Faults) -> None:
    """A pod with its own user namespace shares no other with the host, and has no raw devices."""
    if spec.get("hostUsers") is not False:
        return
    why = "when `hostUsers` is false"
    for name, shown in (
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ):
        if spec.get(name):
            faults.append(fields.forbidden(f"{path}.{shown}", why))
    for container, at in containers_of(spec, path):
        if container.get("volumeDevices"):
            faults.append(fields.forbidden(f"{at}.volumeDevices", why))


def check_os(spec: Spec, path: str, faults: Faults) -> None:
    """Faults of ``spec.os``, and of what only the other system has."""
    name, where = spec["os"].get("name"), f"{path}.securityContext"
    context = spec.get("securityContext") or {}
    if not name:
        faults.append(fields.required(f"{path}.os.name", "cannot be empty"))
    elif name == "linux":
        why = "windows options cannot be set for a linux pod"
        if "windowsOptions" in context:
            faults.append(fields.forbidden(f"{where}.windowsOptions", why))
        for container, at in containers_of(spec, path):
            if "windowsOptions" in (container.get("securityContext") or {}):
                faults.append(fields.forbidden(f"{at}.securityContext.windowsOptions", why))
    elif name == "windows":
        for field in _LINUX_ONLY_POD:
            if field in context:
                faults.append(fields.forbidden(f"{where}.{field}", _WINDOWS))
        for field in _LINUX_ONLY_SPEC:
            if field in spec and (spec[field] or not field.startswith("host")):
                faults.append(fields.forbidden(f"{path}.{field}", _WINDOWS))
        for container, at in containers_of(spec, path):
            for field in _LINUX_ONLY_CONTAINER:
                if field in (container.get("securityContext") or {}):
                    faults.append(fields.forbidden(f"{at}.securityContext.{field}", _WINDOWS))
    else:
        faults.append(fields.not_supported(f"{path}.os", name, ("linux", "windows")))


def _check_id(value: int | None, path: str, faults: Faults) -> None:
    if value is not None and not 0 <= value <= fields.MAX_INT32:
        faults.append(fields.invalid(path, value, fields.between(0, fields.MAX_INT32)))


def _check_profiles(context: Spec, path: str, faults: Faults) -> None:
    if (profile := context.get("seccompProfile")) is not None:
        _check_seccomp(profile, f"{path}.seccompProfile", faults)
    if (profile := context.get("appArmorProfile")) is not None:
        _check_app_armor(profile, f"{path}.appArmorProfile", faults)


def _check_seccomp(profile: Spec, path: str, faults: Faults) -> None:
    kind, local = profile.get("type"), profile.get("localhostProfile")
    if not kind:
        why = "type is required when seccompProfile is set"
        faults.append(fields.required(f"{path}.type", why))
    elif kind not in _PROFILES:
        faults.append(fields.not_supported(f"{path}.type", kind, _PROFILES))
    if kind == "Localhost":
        if local is None:
            why = "must be set when seccomp type is Localhost"
            faults.append(fields.required(f"{path}.localhostProfile", why))
        else:
            paths.check_local_descending(local, f"{path}.localhostProfile", faults)
    elif local is not None:
        why = "can only be set when seccomp type is Localhost"
        shown = fields.Struct(Type=kind or "", LocalhostProfile=local)
        faults.append(fields.invalid(f"{path}.localhostProfile", shown, why))


def _check_app_armor(profile: Spec, path: str, faults: Faults) -> None:
    kind, local = profile.get("type"), profile.get("localhostProfile")
    where = f"{path}.localhostProfile"
    if not kind:
        why = "type is required when appArmorProfile is set"
        faults.append(fields.required(f"{path}.type", why))
    elif kind not in _PROFILES:
        faults.append(fields.not_supported(f"{path}.type", kind, _PROFILES))
    elif kind != "Localhost":
        if local is not None:
            why = "can only be set when AppArmor type is Localhost"
            faults.append(fields.invalid(where, local, why))
    elif not local:
        why = "must be set when AppArmor type is Localhost"
        faults.append(fields.required(where, why))
    elif local.strip() != local:
        faults.append(fields.invalid(where, local, "must not be padded with whitespace"))
    elif len(local.encode()) > 4095:
        faults.append(fields.too_long(where, 4095))


def _check_sysctls(spec: Spec, path: str, faults: Faults) -> None:
    seen: set[str] = set()
    for index, sysctl in enumerate(spec["securityContext"]["sysctls"]):
        where, name = f"{path}[{index}].name", sysctl.get("name", "")
        if not name:
            faults.append(fields.required(where))
        elif len(name) > _SYSCTL_LIMIT or not re.fullmatch(_SYSCTL, name):
            why = f"must have at most {_SYSCTL_LIMIT} characters and match regex ^{_SYSCTL}$"
            faults.append(fields.invalid(where, name, why))
        elif name in seen:
            faults.append(fields.duplicate(where, name))
        seen.add(name)
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            why = "may not be specified when 'hostNetwork' is true"
            faults.append(fields.invalid(where, name, why))
        elif spec.get("hostIPC") and (dotted.startswith(_IPC_SYSCTLS) or dotted == "kernel.sem"):
            why = "may not be specified when 'hostIPC' is true"
            faults.append(fields.invalid(where, name, why))
