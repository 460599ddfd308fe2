"""Levels, versions and the labels that say which hold in a namespace; and the table of checks.

Upstream: k8s.io/pod-security-admission (api, policy).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.apiserver.admission.pod_security import baseline, restricted
from wherry.kube.apiserver.admission.pod_security.words import CheckPod, Object, Violation

PREFIX = "pod-security.kubernetes.io/"
LEVELS = ("privileged", "baseline", "restricted")
"""The laxest first."""
_MINOR = re.compile(r"v1\.(0|[1-9][0-9]{0,8})")
_LATEST = 10**9


@dataclass(frozen=True, slots=True)
class Standard:
    """A level as a version of Kubernetes defines it."""

    level: str = "privileged"
    version: str = "latest"

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"

    def violations(self, metadata: Object, spec: Object) -> list[Violation]:
        """What of the pod is against it."""
        if self.level == "privileged":
            return []
        checks = _checks(self.level, _minor(self.version))
        return [wrong for check in checks if (wrong := check(metadata, spec)) is not None]


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds in a namespace."""

    enforce: Standard = Standard()
    audit: Standard = Standard()
    warn: Standard = Standard()

    def __str__(self) -> str:
        """What is not privileged."""
        parts = (("enforce", self.enforce), ("audit", self.audit), ("warn", self.warn))
        return ", ".join(f"{mode}={s}" for mode, s in parts if s.level != "privileged")

    @property
    def privileged(self) -> bool:
        """Whether all is allowed, and nobody is told."""
        return not str(self)


def _minor(version: str) -> int:
    return _LATEST if version == "latest" else int(version.removeprefix("v1."))


def stricter(a: str, b: str) -> bool:
    """Whether level ``a`` is stricter than ``b``."""
    return LEVELS.index(a) > LEVELS.index(b)


def of_labels(labels: Mapping[str, str], defaults: Policy) -> tuple[Policy, list[FieldError]]:
    """What a namespace's labels ask for, and what is wrong with them. A level that is none is
    restricted where it is enforced, and privileged where it is only told."""
    policy, faults = defaults, []
    for mode in ("enforce", "audit", "warn"):
        standard: Standard = getattr(policy, mode)
        level = labels.get(f"{PREFIX}{mode}")
        if level is not None:
            if level not in LEVELS:
                faults.append(_fault(mode, level, f"must be one of {', '.join(LEVELS)}"))
                level = "restricted" if mode == "enforce" else "privileged"
            standard = replace(standard, level=level)
        version = labels.get(f"{PREFIX}{mode}-version")
        if version is not None:
            if version != "latest" and not _MINOR.fullmatch(version):
                why = 'must be "latest" or "v1.x"'
                faults.append(_fault(f"{mode}-version", version, why))
                version = "latest"
            standard = replace(standard, version=version)
        policy = replace(policy, **{mode: standard})
    return policy, faults


def _fault(label: str, value: str, why: str) -> FieldError:
    return FieldError(
        f"metadata.labels[{PREFIX}{label}]",
        "FieldValueInvalid",
        f'Invalid value: "{value}": {why}',
    )


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
def _checks(level: str, minor: int) -> tuple[CheckPod, ...]:
    """Those of a level at a version."""
    found = {
        check: judge
        for check in CHECKS
        if check.level in ("baseline", level) and (judge := check.at(minor)) is not None
    }
    overridden = {name for check in found for name in check.overrides}
    return tuple(judge for check, judge in found.items() if check.name not in overridden)
