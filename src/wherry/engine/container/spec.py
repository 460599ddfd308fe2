"""From the words of the Engine API to what the runtime wants: one ``ContainerSpec``.

Everything here is decided from data alone. What must be looked up first (the user's numbers, the
namespaces to join) comes in as ``Joined`` and ``Account``.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherry.engine.container import merge
from wherry.engine.container.container import Container, MountPoint
from wherry.engine.container.users import Account
from wherry.engine.errors import BadParameter
from wherry.runtime import capabilities, seccomp
from wherry.runtime.types import ContainerSpec, Limits, MountSpec, ProcessSpec

DEFAULT_CPU_PERIOD = 100_000
INIT_PATH = "/sbin/docker-init"
INIT_PROGRAM = Path("/usr/bin/catatonit")
IDENTITY_FILES = ("resolv.conf", "hostname", "hosts")


@dataclass(frozen=True, slots=True)
class Joined:
    """The namespaces to join: None for a new one, ``"host"``, or a path."""

    network: str | None = None
    pid: str | None = None
    ipc: str | None = None
    uts: str | None = None
    shm: Path | None = None  # what to mount at /dev/shm; None for one of its own


def container_spec(
    container: Container, account: Account, joined: Joined, identity: Path
) -> ContainerSpec:
    """Everything about ``container``; ``identity`` is the directory with its identity files."""
    config, host = container.config, container.host_config
    privileged = bool(host["Privileged"])
    args = [container.path, *container.args]
    mounts = [mount_spec(point) for point in container.mounts]
    taken = {point.destination for point in container.mounts}
    mounts += [
        MountSpec(f"/etc/{name}", str(identity / name), "bind", ("rbind", "rprivate", "rw"))
        for name in IDENTITY_FILES
        if f"/etc/{name}" not in taken and (identity / name).exists()
    ]
    if joined.shm is not None and "/dev/shm" not in taken:  # noqa: S108  the container's own
        mounts.append(
            MountSpec("/dev/shm", str(joined.shm), "bind", ("rbind", "rprivate", "rw"))  # noqa: S108
        )
    if host.get("Init"):
        args = [INIT_PATH, "--", *args]
        mounts.append(MountSpec(INIT_PATH, str(INIT_PROGRAM), "bind", ("bind", "ro")))
    masked, readonly = confinement(host)
    own_uts = joined.uts is None
    return ContainerSpec(
        id=container.id,
        rootfs=container.rootfs,
        process=process(container, account, args=args),
        hostname=config["Hostname"] if own_uts else "",
        mounts=sorted(mounts, key=lambda mount: mount.destination.count("/")),
        network_namespace=joined.network,
        pid_namespace=joined.pid,
        ipc_namespace=joined.ipc,
        uts_namespace=joined.uts,
        cgroup_parent=str(host["CgroupParent"]).strip("/"),
        limits=limits(host),
        readonly_rootfs=bool(host["ReadonlyRootfs"]),
        privileged=privileged,
        seccomp=seccomp_section(host),
        masked_paths=masked,
        readonly_paths=readonly,
        sysctls=host.get("Sysctls") or {},
        devices=[device(entry) for entry in host["Devices"]],
        shm_size=int(host["ShmSize"]),
        annotations=host.get("Annotations") or {},
        stdin_open=bool(config["OpenStdin"]),
        stdin_once=bool(config["StdinOnce"]),
    )


def process(
    container: Container,
    account: Account,
    *,
    args: Sequence[str],
    env: Sequence[str] = (),
    cwd: str = "",
    terminal: bool | None = None,
    privileged: bool = False,
) -> ProcessSpec:
    """A process in ``container``: its own, or with the other parameters one that exec adds."""
    config, host = container.config, container.host_config
    tty = container.tty if terminal is None else terminal
    return ProcessSpec(
        args=args,
        env=merge.environment(
            [*(config["Env"] or []), *env],
            hostname=config["Hostname"],
            home=account.home,
            terminal=tty,
        ),
        cwd=cwd or config["WorkingDir"] or "/",
        user=account.user,
        terminal=tty,
        capabilities=chosen_capabilities(host, privileged=privileged),
        no_new_privileges=no_new_privileges(host),
        rlimits=rlimits(host["Ulimits"]),
        oom_score_adj=int(host["OomScoreAdj"]) or None,
    )


def mount_spec(point: MountPoint) -> MountSpec:
    """A mount point as the OCI specification has it."""
    if point.type == "tmpfs":
        return MountSpec(point.destination, "tmpfs", "tmpfs", tuple(point.options))
    access = "rw" if point.writable else "ro"
    return MountSpec(
        point.destination, point.source, "bind", ("rbind", point.propagation or "rprivate", access)
    )


def chosen_capabilities(host: Mapping[str, Any], *, privileged: bool = False) -> tuple[str, ...]:
    """The set after ``--privileged``, ``--cap-add`` and ``--cap-drop``, in the kernel's order."""
    if privileged or host["Privileged"]:
        return tuple(capabilities.ALL)

    def names(values: Sequence[str] | None) -> set[str]:
        return {f"CAP_{value.upper().removeprefix('CAP_')}" for value in values or ()}

    added, dropped = names(host["CapAdd"]), names(host["CapDrop"])
    if "CAP_ALL" in added:
        chosen = set(capabilities.ALL) - dropped
    elif "CAP_ALL" in dropped:
        chosen = added
    else:
        chosen = (set(capabilities.DEFAULT) - dropped) | added
    return tuple(name for name in capabilities.ALL if name in chosen)


def security_options(host: Mapping[str, Any]) -> dict[str, str]:
    """``--security-opt`` values by key; an option without a value is "true"."""
    options = {}
    for option in host["SecurityOpt"] or ():
        key, separator, value = option.partition("=" if "=" in option else ":")
        options[key] = value if separator else "true"
    return options


def no_new_privileges(host: Mapping[str, Any]) -> bool:
    """Whether set-user-id programs and file capabilities have no effect."""
    return security_options(host).get("no-new-privileges") == "true"


def confinement(
    host: Mapping[str, Any],
) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Masked and read-only paths; None stands for Docker's default lists."""
    open_ = host["Privileged"] or security_options(host).get("systempaths") == "unconfined"
    default: Sequence[str] | None = () if open_ else None
    masked, readonly = host["MaskedPaths"], host["ReadonlyPaths"]
    return (default if masked is None else masked), (default if readonly is None else readonly)


def seccomp_section(host: Mapping[str, Any]) -> Mapping[str, object] | None:
    """The filter of system calls; None is unconfined.

    Raises:
        BadParameter: the profile given by the client cannot be read.
    """
    chosen = security_options(host).get("seccomp", "")
    if chosen == "unconfined" or (host["Privileged"] and not chosen):
        return None
    granted = chosen_capabilities(host)
    if not chosen or chosen in ("builtin", "default"):
        return seccomp.default_profile(granted)
    try:
        profile = json.loads(chosen)
        return seccomp.resolve(profile, granted, os.uname().machine)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadParameter(f"Decoding seccomp profile failed: {error}") from None


def limits(host: Mapping[str, Any]) -> Limits:
    """The resources of a container, in the kernel's units."""
    quota, period = host["CpuQuota"] or None, host["CpuPeriod"] or None
    if host["NanoCpus"]:
        period = DEFAULT_CPU_PERIOD
        quota = host["NanoCpus"] * period // 1_000_000_000
    pids = host["PidsLimit"]
    return Limits(
        memory=host["Memory"] or None,
        memory_swap=host["MemorySwap"] or None,
        memory_reservation=host["MemoryReservation"] or None,
        cpu_shares=host["CpuShares"] or None,
        cpu_quota=quota,
        cpu_period=period,
        cpuset_cpus=host["CpusetCpus"],
        cpuset_mems=host["CpusetMems"],
        pids=pids if pids and pids > 0 else None,
        blkio_weight=host["BlkioWeight"] or None,
    )


def rlimits(ulimits: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """``--ulimit`` values by the kernel's name."""
    return {
        f"RLIMIT_{str(entry['Name']).upper()}": (int(entry["Soft"]), int(entry["Hard"]))
        for entry in ulimits
    }


def device(entry: Mapping[str, Any]) -> dict[str, object]:
    """A ``--device`` as the OCI specification's ``linux.devices`` has it, with its ``access``.

    Raises:
        BadParameter: the host has no such device.
    """
    source = str(entry["PathOnHost"])
    path = str(entry.get("PathInContainer") or source)
    try:
        found = Path(source).stat()
    except OSError as error:
        raise BadParameter(
            f'error gathering device information while adding custom device "{source}": '
            f"{(error.strerror or '').lower()}"
        ) from None
    if stat.S_ISBLK(found.st_mode):
        kind = "b"
    elif stat.S_ISCHR(found.st_mode):
        kind = "c"
    else:
        raise BadParameter(
            f'error gathering device information while adding custom device "{source}": '
            "not a device node"
        )
    return {
        "path": path,
        "type": kind,
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "access": str(entry.get("CgroupPermissions") or "rwm"),
    }
