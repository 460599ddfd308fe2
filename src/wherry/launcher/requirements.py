"""What the machine must have before anything is started; each lack is one clear sentence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from wherry.host import mount_table

_PROGRAMS = {
    "catatonit": "catatonit",
}
_OCI_RUNTIMES = ("crun", "runc")


def missing() -> Sequence[str]:
    """What is not there, as sentences that say what to do; empty when all is well."""
    if os.geteuid() != 0:
        return ["wherry needs root: it makes namespaces, mounts and network links"]
    faults = [
        f"{program} is not installed (Debian package {package})"
        for program, package in _PROGRAMS.items()
        if shutil.which(program) is None
    ]
    if not any(shutil.which(runtime) for runtime in _OCI_RUNTIMES):
        faults.append("no OCI runtime is installed (Debian package crun or runc)")
    filesystems = _filesystems()
    if "overlay" not in filesystems:
        faults.append(
            "the kernel has no overlay file system (try `modprobe overlay`; CONFIG_OVERLAY_FS)"
        )
    if not any(line.split(" ")[2] in ("cgroup", "cgroup2") for line in _mounts()):
        faults.append("no cgroup hierarchy is mounted (mount cgroup2 on /sys/fs/cgroup)")
    for namespace in ("net", "pid", "mnt", "ipc", "uts"):
        if not Path(f"/proc/self/ns/{namespace}").exists():
            faults.append(f"the kernel has no {namespace} namespaces")
    return faults


def _filesystems() -> set[str]:
    return {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}


def _mounts() -> list[str]:
    return mount_table.lines(mount_table.read("mounts"))
