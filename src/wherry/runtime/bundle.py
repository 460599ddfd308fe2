"""From a container's specification to the ``config.json`` of an OCI bundle.

https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config-linux.md. The defaults are those
of Docker: mounts, devices, masked and read-only paths, namespaces.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import resource
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherry.runtime import capabilities
from wherry.runtime.features import Features
from wherry.runtime.types import BlockLimit, ContainerSpec, Limits, MountSpec, ProcessSpec

log = logging.getLogger(__name__)

MASKED_PATHS: tuple[str, ...] = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS: tuple[str, ...] = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)
# Every port is open to everyone and everyone may ping: a container's network is its own.
NETWORK_SYSCTLS: Mapping[str, str] = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}


# Annotations by which crun is told to do things, such as to run without seccomp or to write files
# of the host; whoever may label a container is not thereby allowed that.
_RUNTIMES_OWN = ("run.oci.", "org.systemd.property.")


@dataclass(frozen=True, slots=True)
class Host:
    """What of the machine, and of this daemon's rights on it, decides how a bundle is written."""

    cgroup_v2: bool
    capabilities: Collection[str] = field(default_factory=frozenset)
    rlimits: Mapping[str, int] = field(default_factory=dict)  # our own hard limits, -1 is none
    open_files: int | None = None  # our soft limit before we raised it for ourselves
    oom_score_adj: int = 0
    features: Features = field(default_factory=Features)

    @property
    def may_raise(self) -> bool:
        """Whether limits above our own can be given away."""
        return "CAP_SYS_RESOURCE" in self.capabilities


def this_host(features: Features) -> Host:
    """Look at the rights of this process; ``features`` are those of the machine."""
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return Host(
        cgroup_v2=features.cgroup_v2,
        capabilities=capabilities.effective(),
        rlimits={name: resource.getrlimit(getattr(resource, name))[1] for name in names},
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
        features=features,
    )


def config(spec: ContainerSpec, host: Host, cgroup_path: str) -> dict[str, Any]:
    """The ``config.json`` of ``spec``."""
    devices = [dict(device) for device in spec.devices]
    if spec.privileged:
        named = {device["path"] for device in devices}
        devices += [device for device in host_devices() if device["path"] not in named]
    mounts = _mounts(spec)
    linux: dict[str, Any] = {
        "namespaces": _namespaces(spec),
        "resources": resources(spec.limits, host) | {"devices": _device_rules(spec, devices)},
        "cgroupsPath": cgroup_path,
        "devices": [{k: v for k, v in device.items() if k != "access"} for device in devices],
    }
    if propagation := _propagation(mounts):
        linux["rootfsPropagation"] = propagation
    if not spec.privileged:
        masked = MASKED_PATHS if spec.masked_paths is None else spec.masked_paths
        readonly = READONLY_PATHS if spec.readonly_paths is None else spec.readonly_paths
        linux["maskedPaths"], linux["readonlyPaths"] = list(masked), list(readonly)
    sysctls = dict(spec.sysctls)
    if spec.network_namespace is None:
        sysctls = {**NETWORK_SYSCTLS, **sysctls}
    if sysctls:
        linux["sysctl"] = sysctls
    if spec.seccomp is not None:
        linux["seccomp"] = spec.seccomp
    out: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": process(spec.process, host),
        "root": {"path": str(spec.rootfs), "readonly": spec.readonly_rootfs},
        "mounts": mounts,
        "linux": linux,
    }
    if spec.uts_namespace is None and spec.hostname:
        out["hostname"] = spec.hostname
    out["annotations"] = {
        name: value
        for name, value in spec.annotations.items()
        if not name.startswith(_RUNTIMES_OWN)
    }
    return out


def process(spec: ProcessSpec, host: Host) -> dict[str, Any]:
    """The ``process`` section, which ``exec`` takes by itself as well."""
    # A capability beyond ours makes the runtime fail; the kernel would refuse it anyway.
    granted = [name for name in spec.capabilities if name in host.capabilities]
    out: dict[str, Any] = {
        "terminal": spec.terminal,
        "user": {
            "uid": spec.user.uid,
            "gid": spec.user.gid,
            "additionalGids": list(spec.user.additional_gids),
        },
        "args": list(spec.args),
        "env": list(spec.env),
        "cwd": spec.cwd or "/",
        "capabilities": {"bounding": granted, "effective": granted, "permitted": granted},
        "noNewPrivileges": spec.no_new_privileges,
    }
    if spec.terminal and spec.console_size is not None:
        width, height = spec.console_size
        out["consoleSize"] = {"height": height, "width": width}
    limits = dict(spec.rlimits)
    if host.open_files is not None:
        limits.setdefault("RLIMIT_NOFILE", (host.open_files, host.rlimits["RLIMIT_NOFILE"]))
    if limits:
        out["rlimits"] = [_rlimit(name, soft, hard, host) for name, (soft, hard) in limits.items()]
    if spec.oom_score_adj is not None:
        adjusted = spec.oom_score_adj
        if adjusted < host.oom_score_adj and not host.may_raise:
            _say_refused("oom_score_adj", adjusted, host.oom_score_adj)
            adjusted = host.oom_score_adj
        out["oomScoreAdj"] = adjusted
    return out


@functools.cache
def _say_refused(name: str, wanted: int, ours: int) -> None:
    """Log it, once for each value: on such a machine it would be said for every container."""
    log.warning(
        "%s %d is refused without CAP_SYS_RESOURCE; using this daemon's %d", name, wanted, ours
    )


def _rlimit(name: str, soft: int, hard: int, host: Host) -> dict[str, Any]:
    """A resource limit, lowered to our own where we may not give away more."""
    ours = host.rlimits.get(name, -1)
    if not host.may_raise and ours >= 0:
        if hard < 0 or hard > ours:
            _say_refused(name, hard, ours)
            hard = ours
        if soft < 0 or soft > hard:
            soft = hard
    # The specification's numbers have no sign: no limit is the largest.
    return {"type": name, "soft": soft % 2**64, "hard": hard % 2**64}


_NAMESPACES = (
    ("network", "network_namespace"),
    ("pid", "pid_namespace"),
    ("ipc", "ipc_namespace"),
    ("uts", "uts_namespace"),
    ("cgroup", "cgroup_namespace"),
)


def _namespaces(spec: ContainerSpec) -> list[dict[str, str]]:
    out = [{"type": "mount"}]
    if spec.user_namespace:
        out.append({"type": "user", "path": spec.user_namespace})
    for kind, attribute in _NAMESPACES:
        where: str | None = getattr(spec, attribute)
        if where is None:
            out.append({"type": kind})
        elif where != "host":
            out.append({"type": kind, "path": where})
    return out


def _mount(destination: str, kind: str, options: Sequence[str], source: str = "") -> dict[str, Any]:
    return {
        "destination": destination,
        "type": kind,
        "source": source or kind,
        "options": list(options),
    }


def _mounts(spec: ContainerSpec) -> list[dict[str, Any]]:
    """The standard mounts, then those asked for, outer ones first, which replace the standard."""
    safe = ["nosuid", "noexec", "nodev"]
    access = "rw" if spec.privileged else "ro"
    groups = "rw" if spec.privileged or spec.writable_cgroups else "ro"
    pty = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    standard = [
        _mount("/proc", "proc", safe),
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", pty),
        _mount("/sys", "sysfs", [*safe, access]),
        _mount("/sys/fs/cgroup", "cgroup", [groups, *safe]),
        _mount("/dev/mqueue", "mqueue", safe),
    ]
    if spec.ipc_namespace == "host":
        standard.append(_mount("/dev/shm", "bind", ["rbind", *safe], "/dev/shm"))  # noqa: S108
    elif spec.shm_size is not None:
        size = [*safe, "mode=1777", f"size={spec.shm_size}"]
        standard.append(_mount("/dev/shm", "tmpfs", size, "shm"))  # noqa: S108
    asked = sorted(spec.mounts, key=lambda mount: mount.destination.rstrip("/").count("/"))
    replaced = {os.path.normpath(mount.destination) for mount in asked}

    def covered(path: str) -> bool:
        return path in replaced or ("/dev" in replaced and path.startswith("/dev/"))

    return [
        *(mount for mount in standard if not covered(mount["destination"])),
        *(_asked(mount) for mount in asked),
    ]


def _asked(mount: MountSpec) -> dict[str, Any]:
    options = list(mount.options)
    if mount.type == "bind" and not {"bind", "rbind"} & set(options):
        options.insert(0, "rbind")
    return _mount(mount.destination, mount.type, options, mount.source)


def _propagation(mounts: Sequence[Mapping[str, Any]]) -> str:
    """What the container's root must be for a mount's own propagation to have an effect."""
    options = {option for mount in mounts for option in mount["options"]}
    if options & {"shared", "rshared"}:
        return "shared"
    return "rslave" if options & {"slave", "rslave"} else ""


def _device_rules(
    spec: ContainerSpec, devices: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    if spec.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    for device in devices:
        kind = "c" if device["type"] == "u" else device["type"]
        if kind in ("c", "b"):
            rules.append(
                {
                    "allow": True,
                    "type": kind,
                    "major": device["major"],
                    "minor": device["minor"],
                    "access": device.get("access", "rwm"),
                }
            )
    return [*rules, *map(dict, spec.device_rules)]


# What the container gets of its own, or what is not a device.
_OWN_DEVICES = {"/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/console"}  # noqa: S108


def host_devices(root: Path = Path("/dev")) -> list[dict[str, Any]]:
    """All devices of the host, for a privileged container."""
    found: list[dict[str, Any]] = []
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.path in _OWN_DEVICES or entry.name.startswith(".") or entry.is_symlink():
                continue
            with contextlib.suppress(FileNotFoundError):  # the host has just lost it
                if entry.is_dir(follow_symlinks=False):
                    found += host_devices(Path(entry.path))
                elif device := _device(entry):
                    found.append(device)
    return found


def _device(entry: os.DirEntry[str]) -> dict[str, Any] | None:
    status = entry.stat(follow_symlinks=False)
    kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    return {
        "path": entry.path,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def resources(limits: Limits, host: Host) -> dict[str, Any]:
    """The ``resources`` section, which ``update`` takes by itself as well.

    What this kernel cannot limit is left out, with a word in the log, as Docker does.
    """
    features = host.features
    memory = {
        "limit": limits.memory,
        "swap": limits.memory_swap,
        "reservation": limits.memory_reservation,
        "swappiness": limits.memory_swappiness if features.swappiness else None,
        "disableOOMKiller": (limits.oom_kill_disable and features.oom_kill_disable) or None,
    }
    if limits.memory_swap is not None and not features.swap:
        log.warning("this kernel cannot limit swap; going on without")
        memory["swap"] = None
    weight = limits.blkio_weight
    if weight and not features.block_weight:
        log.warning("this kernel cannot weight block I/O; going on without")
        weight = None
    sections: dict[str, dict[str, Any]] = {
        "memory": memory,
        "cpu": {
            "shares": limits.cpu_shares,
            "quota": limits.cpu_quota if (limits.cpu_quota or 0) > 0 else None,
            "period": limits.cpu_period,
            "realtimePeriod": limits.cpu_realtime_period,
            "realtimeRuntime": limits.cpu_realtime_runtime,
            "cpus": limits.cpuset_cpus or None,
            "mems": limits.cpuset_mems or None,
        },
        "pids": {"limit": limits.pids},
        "blockIO": {
            "weight": weight or None,
            "weightDevice": _block(limits.blkio_weight_devices, "weight"),
            "throttleReadBpsDevice": _block(limits.read_bytes, "rate"),
            "throttleWriteBpsDevice": _block(limits.write_bytes, "rate"),
            "throttleReadIOPSDevice": _block(limits.read_operations, "rate"),
            "throttleWriteIOPSDevice": _block(limits.write_operations, "rate"),
        },
    }
    kept = {
        name: {key: value for key, value in section.items() if value is not None}
        for name, section in sections.items()
    }
    made: dict[str, Any] = {name: section for name, section in kept.items() if section}
    if limits.huge_pages and features.huge_pages:
        made["hugepageLimits"] = [
            {"pageSize": size, "limit": bytes_}
            for size, bytes_ in sorted(limits.huge_pages.items())
        ]
    elif limits.huge_pages:
        log.warning("this kernel cannot limit huge pages; going on without")
    return made


def _block(limits: Sequence[BlockLimit], key: str) -> list[dict[str, int]] | None:
    return [
        {"major": limit.major, "minor": limit.minor, key: limit.value} for limit in limits
    ] or None
