"""Paths in a pod spec that must not lead out of where they start."""

from __future__ import annotations

from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.checks import Faults


def check_no_backsteps(target: str, path: str, faults: Faults) -> None:
    """No ``..`` among the path's elements."""
    if ".." in target.split("/"):
        faults.append(fields.invalid(path, target, "must not contain '..'"))


def check_local_descending(target: str, path: str, faults: Faults) -> None:
    """Relative, and without ``..``."""
    if target.startswith("/"):
        faults.append(fields.invalid(path, target, "must be a relative path"))
    check_no_backsteps(target, path, faults)


def check_local_not_reserved(target: str, path: str, faults: Faults) -> None:
    """As above, and not named ``..something``, which the kubelet uses itself."""
    check_local_descending(target, path, faults)
    if target.startswith("..") and not target.startswith("../"):
        faults.append(fields.invalid(path, target, "must not start with '..'"))
