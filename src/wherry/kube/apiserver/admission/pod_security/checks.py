"""The table of checks, and which of them a level has at a version. Loaded when a pod is first
judged.

Upstream: k8s.io/pod-security-admission/policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from wherry.kube.apiserver.admission.pod_security import baseline, restricted
from wherry.kube.apiserver.admission.pod_security.words import CheckPod


@dataclass(frozen=True, slots=True)
class Check:
    """One control. ``versions``: from which minor version on which function judges it.
    ``overrides`` are checks of baseline that this one includes."""

    name: str
    level: str
    versions: tuple[tuple[int, CheckPod], ...]
    overrides: tuple[str, ...] = ()

    def at(self, minor: int) -> CheckPod | None:
        found = [check for since, check in self.versions if since <= minor]
        return found[-1] if found else None


def _check(name: str, level: str, *versions: Any, overrides: tuple[str, ...] = ()) -> Check:
    return Check(name, level, versions, overrides)


CHECKS: tuple[Check, ...] = (
    _check("appArmorProfile", "baseline", (0, baseline.app_armor)),
    _check("capabilities_baseline", "baseline", (0, baseline.capabilities)),
    _check("hostNamespaces", "baseline", (0, baseline.host_namespaces)),
    _check("hostPathVolumes", "baseline", (0, baseline.host_path_volumes)),
    _check("hostPorts", "baseline", (0, baseline.host_ports)),
    _check("hostProbesAndHostLifecycle", "baseline", (34, baseline.hosts_of_probes)),
    _check("privileged", "baseline", (0, baseline.privileged)),
    _check("procMount", "baseline", (0, baseline.proc_mount), (35, baseline.proc_mount_1_35)),
    _check("seLinuxOptions", "baseline", (0, baseline.selinux), (31, baseline.selinux_1_31)),
    _check(
        "seccompProfile_baseline",
        "baseline",
        (0, baseline.seccomp_annotations),
        (19, baseline.seccomp),
    ),
    _check(
        "sysctls",
        "baseline",
        (0, baseline.sysctls),
        (27, baseline.sysctls_1_27),
        (29, baseline.sysctls_1_29),
        (32, baseline.sysctls_1_32),
        (37, baseline.sysctls_1_37),
    ),
    _check("windowsHostProcess", "baseline", (0, baseline.host_process)),
    _check(
        "allowPrivilegeEscalation",
        "restricted",
        (8, restricted.privilege_escalation),
        (25, restricted.privilege_escalation_1_25),
    ),
    _check(
        "capabilities_restricted",
        "restricted",
        (22, restricted.capabilities),
        (25, restricted.capabilities_1_25),
        overrides=("capabilities_baseline",),
    ),
    _check(
        "procMount_restricted", "restricted", (35, baseline.proc_mount), overrides=("procMount",)
    ),
    _check(
        "restrictedVolumes", "restricted", (0, restricted.volumes), overrides=("hostPathVolumes",)
    ),
    _check(
        "runAsNonRoot",
        "restricted",
        (0, restricted.run_as_non_root),
        (35, restricted.run_as_non_root_1_35),
    ),
    _check(
        "runAsUser",
        "restricted",
        (23, restricted.run_as_user),
        (35, restricted.run_as_user_1_35),
    ),
    _check(
        "seccompProfile_restricted",
        "restricted",
        (19, restricted.seccomp_set),
        (25, restricted.seccomp_set_1_25),
        overrides=("seccompProfile_baseline",),
    ),
)
"""In the order in which violations are named."""


@lru_cache(128)
def checks(level: str, minor: int) -> tuple[CheckPod, ...]:
    """Those of a level at a version."""
    found = {
        check: judge
        for check in CHECKS
        if check.level in ("baseline", level) and (judge := check.at(minor)) is not None
    }
    overridden = {name for check in found for name in check.overrides}
    return tuple(judge for check, judge in found.items() if check.name not in overridden)
