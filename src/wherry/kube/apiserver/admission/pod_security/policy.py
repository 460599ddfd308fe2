"""Levels, versions and the labels that say which hold in a namespace.

Upstream: k8s.io/pod-security-admission/api.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from wherry.kube.api.errors import FieldError
from wherry.kube.apiserver.admission.pod_security.words import Object, Violation

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
        from wherry.kube.apiserver.admission.pod_security.checks import checks

        judges = checks(self.level, _minor(self.version))
        return [wrong for judge in judges if (wrong := judge(metadata, spec)) is not None]


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
