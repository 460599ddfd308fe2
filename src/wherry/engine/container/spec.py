"""From the words of the Engine API to what the runtime wants: one ``ContainerSpec``.

Everything here is decided from data alone. What must be looked up first (the user's numbers, the
namespaces to join) comes in as ``Joined`` and ``Account``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wherry.engine.container import devices, merge, security
from wherry.engine.container.container import Container
from wherry.engine.container.limits import limits
from wherry.engine.container.users import Account
from wherry.runtime.types import ContainerSpec, MountSpec, ProcessSpec

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
    cgroup: str | None = None
    user: str | None = None  # None here is the host's
    shm: Path | None = None  # what to mount at /dev/shm; None for one of its own


def container_spec(
    container: Container,
    account: Account,
    joined: Joined,
    mounted: Sequence[MountSpec],
    identity: Path,
    env: Sequence[str] = (),
) -> ContainerSpec:
    """Everything about ``container``.

    ``mounted`` are its mounts, ``identity`` is the directory with its identity files, ``env`` are
    variables that those of the container's own configuration go before.
    """
    config, host = container.config, container.host_config
    privileged = bool(host["Privileged"])
    args = [container.path, *container.args]
    mounts = list(mounted)
    taken = {mount.destination for mount in mounted}
    access = "ro" if host["ReadonlyRootfs"] else "rw"
    mounts += [
        MountSpec(f"/etc/{name}", str(identity / name), "bind", ("rbind", "rprivate", access))
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
    masked, readonly = security.confinement(host)
    own_uts = joined.uts is None
    sysctls = dict(host.get("Sysctls") or {})
    if own_uts and config["Domainname"]:
        # The specification has no field for it, and this has the same effect.
        sysctls.setdefault("kernel.domainname", config["Domainname"])
    return ContainerSpec(
        id=container.id,
        rootfs=container.rootfs,
        process=replace(
            process(container, account, args=args, linked=env), console_size=_console_size(host)
        ),
        hostname=config["Hostname"] if own_uts else "",
        mounts=sorted(mounts, key=lambda mount: mount.destination.count("/")),
        network_namespace=joined.network,
        pid_namespace=joined.pid,
        ipc_namespace=joined.ipc,
        uts_namespace=joined.uts,
        cgroup_namespace=joined.cgroup,
        user_namespace=joined.user,
        cgroup_parent=str(host["CgroupParent"]).strip("/"),
        limits=limits(host),
        readonly_rootfs=bool(host["ReadonlyRootfs"]),
        privileged=privileged,
        seccomp=security.seccomp_section(host),
        masked_paths=masked,
        readonly_paths=readonly,
        sysctls=sysctls,
        devices=devices.devices(host["Devices"]),
        device_rules=devices.rules(host["DeviceCgroupRules"]),
        writable_cgroups=security.writable_cgroups(host),
        shm_size=None if host["IpcMode"] == "none" else int(host["ShmSize"]),
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
    linked: Sequence[str] = (),
    cwd: str = "",
    terminal: bool | None = None,
    privileged: bool = False,
) -> ProcessSpec:
    """A process in ``container``: its own, or with the other parameters one that exec adds.

    ``linked`` are variables that tell of other containers; any other goes before them.
    """
    config, host = container.config, container.host_config
    tty = container.tty if terminal is None else terminal
    return ProcessSpec(
        args=args,
        env=merge.environment(
            [*linked, *(config["Env"] or []), *env],
            hostname=config["Hostname"],
            home=account.home,
            terminal=tty,
        ),
        cwd=cwd or config["WorkingDir"] or "/",
        user=account.user,
        terminal=tty,
        capabilities=security.chosen_capabilities(host, privileged=privileged),
        no_new_privileges=security.no_new_privileges(host),
        rlimits=rlimits(host["Ulimits"]),
        oom_score_adj=int(host["OomScoreAdj"]) or None,
    )


def _console_size(host: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = host["ConsoleSize"]
    return (width, height) if width and height else None


def rlimits(ulimits: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """``--ulimit`` values by the kernel's name."""
    return {
        f"RLIMIT_{str(entry['Name']).upper()}": (int(entry["Soft"]), int(entry["Hard"]))
        for entry in ulimits
    }
