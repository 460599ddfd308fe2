"""kube-apiserver's ``--audit-*`` options."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from wherry.kube.apiserver.audit import policy
from wherry.kube.apiserver.audit.log import AuditLog
from wherry.kube.apiserver.audit.record import Auditor


@dataclass(frozen=True, slots=True)
class Audit:
    """The policy, and where the log lies (``-``: standard output) and how large it gets, see
    `AuditLog`."""

    policy: Path
    log: str
    max_size: int = 100
    max_backups: int = 0
    max_age: int = 0

    def open(self) -> tuple[Auditor, AuditLog]:
        """Raises ValueError, OSError."""
        rules = policy.read(self.policy)
        log = AuditLog(
            self.log,
            max_size=self.max_size,
            max_backups=self.max_backups,
            max_age=self.max_age,
        )
        return Auditor(rules, log), log


def add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("audit")
    group.add_argument("--audit-policy-file", type=Path)
    group.add_argument("--audit-log-path", default="", help="'-' is standard output")
    group.add_argument("--audit-log-maxsize", type=int, default=100, help="megabytes")
    group.add_argument("--audit-log-maxbackup", type=int, default=0)
    group.add_argument("--audit-log-maxage", type=int, default=0, help="days")


def from_flags(given: argparse.Namespace) -> Audit | None:
    """None: there is no audit. Raises ValueError, OSError where the policy is wrong."""
    path: str = given.audit_log_path
    if not path or given.audit_policy_file is None:
        return None  # as upstream: one without the other is none
    for name in ("maxsize", "maxbackup", "maxage"):
        if (value := getattr(given, f"audit_log_{name}")) < 0:
            raise ValueError(f"--audit-log-{name} {value} can't be a negative number")
    policy.read(given.audit_policy_file)
    if path != "-":
        path = str(Path(path).absolute())
    return Audit(
        given.audit_policy_file,
        path,
        given.audit_log_maxsize,
        given.audit_log_maxbackup,
        given.audit_log_maxage,
    )
