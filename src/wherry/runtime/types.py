"""What the runtime is asked for and what it answers.

Sizes are bytes, CPU times microseconds, as in the OCI runtime specification 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class RuntimeFailure(Exception):
    """The OCI runtime or its monitor refused; the text is what it said.

    ``exit_code`` is what Docker makes of it: 127 where the command does not exist, 126 where it
    cannot be executed, else 128.
    """

    def __init__(self, message: str, exit_code: int = 128) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class User:
    """Whom a process runs as, in numbers."""

    uid: int = 0
    gid: int = 0
    additional_gids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process in a container: its own, or one that exec adds."""

    args: Sequence[str]
    env: Sequence[str] = ()  # "NAME=value"
    cwd: str = "/"
    user: User = field(default_factory=User)
    terminal: bool = False
    console_size: tuple[int, int] | None = None  # width and height of the terminal at its start
    capabilities: Sequence[str] = ()  # "CAP_CHOWN", …
    no_new_privileges: bool = False
    rlimits: Mapping[str, tuple[int, int]] = field(
        default_factory=dict
    )  # RLIMIT_NOFILE: soft, hard
    oom_score_adj: int | None = None


@dataclass(frozen=True, slots=True)
class MountSpec:
    """One mount inside the container, as in the OCI specification."""

    destination: str
    source: str
    type: str = "bind"
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class BlockLimit:
    """A limit for one block device: its weight, or bytes or operations in a second."""

    major: int
    minor: int
    value: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Resources the container may use; None or empty means no limit."""

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    memory_swappiness: int | None = None  # 0 to 100
    oom_kill_disable: bool = False
    cpu_shares: int | None = None
    cpu_quota: int | None = None  # negative takes the limit away, in an update
    cpu_period: int | None = None
    cpu_realtime_period: int | None = None
    cpu_realtime_runtime: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int | None = None  # -1 takes the limit away, in an update
    blkio_weight: int | None = None
    blkio_weight_devices: Sequence[BlockLimit] = ()
    read_bytes: Sequence[BlockLimit] = ()
    write_bytes: Sequence[BlockLimit] = ()
    read_operations: Sequence[BlockLimit] = ()
    write_operations: Sequence[BlockLimit] = ()
    huge_pages: Mapping[str, int] = field(default_factory=dict)  # bytes by size: "2MB"


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that makes a container, independent of the OCI runtime that will run it.

    A namespace is ``None`` for a new one of its own, ``"host"`` for the host's, else the path of
    the one to join (``/proc/<pid>/ns/ipc``, ``/run/…/netns/<id>``).
    """

    id: str  # 64 hex digits
    rootfs: Path
    process: ProcessSpec
    hostname: str = ""
    mounts: Sequence[MountSpec] = ()  # besides the standard ones (/proc, /dev, /sys, …)
    network_namespace: str | None = None
    pid_namespace: str | None = None
    ipc_namespace: str | None = None
    uts_namespace: str | None = None
    cgroup_namespace: str | None = None
    user_namespace: str | None = None  # a path, or None for the host's
    cgroup_parent: str = ""  # below the runtime's own root; "" is the root for plain containers
    limits: Limits = field(default_factory=Limits)
    readonly_rootfs: bool = False
    privileged: bool = False
    seccomp: Mapping[str, object] | None = None  # an OCI seccomp section; None is unconfined
    masked_paths: Sequence[str] | None = None  # None is Docker's default list
    readonly_paths: Sequence[str] | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)
    devices: Sequence[Mapping[str, object]] = ()
    device_rules: Sequence[Mapping[str, object]] = ()  # beyond the devices, as in the OCI section
    writable_cgroups: bool = False
    shm_size: int | None = 64 << 20  # None: no /dev/shm
    annotations: Mapping[str, str] = field(default_factory=dict)
    stdin_open: bool = False
    # Whose its pipes are, in the ids of the host: who cannot own what root has made.
    streams_owner: tuple[int, int] | None = None
    stdin_once: bool = False


class LogSink(Protocol):
    """Where a container's output is kept: one object for one run of a container.

    The runtime calls it from one task at a time. What it awaits holds the container at its pipe.
    """

    async def write(self, stream: int, data: bytes) -> None:
        """Keep ``data`` of ``stream`` (1 stdout, 2 stderr): a piece as it was read, not a line.

        Must not raise: what cannot be kept, as on a full disk, is told in the daemon's log.
        """

    async def close(self) -> None:
        """The run's last byte has been written: keep an unfinished line as one, let go of files."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a container's process ended; ``finished_at`` is nanoseconds since the epoch."""

    id: str
    exit_code: int  # 128 + n where signal n ended it
    oom_killed: bool
    finished_at: int


@dataclass(frozen=True, slots=True)
class BlockCount:
    """A count of one block device: bytes or operations, by operation ("Read", "Write" …)."""

    major: int
    minor: int
    operation: str
    value: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container's cgroup counted: times in nanoseconds, memory in bytes.

    ``block`` has lists by the name that the Engine API has for them. v2 has no ``per_cpu`` and no
    ``memory_maximum``.
    """

    cpu_total: int
    memory: int
    memory_working_set: int
    memory_limit: int
    pids: int
    cpu_user: int = 0
    cpu_system: int = 0
    per_cpu: Sequence[int] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0
    memory_maximum: int = 0
    memory_failures: int = 0  # how often it reached its limit
    memory_stat: Mapping[str, int] = field(default_factory=dict)
    pids_limit: int = 0
    block: Mapping[str, Sequence[BlockCount]] = field(default_factory=dict)
