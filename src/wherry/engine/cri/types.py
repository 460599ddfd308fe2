"""Messages of the Container Runtime Interface (runtime/v1) and the protocol itself.

Times are nanoseconds since the epoch, as in CRI; 0 means "not yet". Memory and storage are bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

POD_CIDR_IN_USE = "PodCIDRInUse"
"""The reason for which a range is refused as long as sandboxes have addresses of another."""


class CRIError(Exception):
    """A call failed; the text is for the user (events and container status carry it).

    ``reason`` is the kubelet's word for it where there is one, such as ``ErrImagePull``,
    ``CreateContainerError``, ``RunContainerError``.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class CRINotFound(CRIError):
    """No such sandbox, container or image."""


class PodSandboxState(Enum):
    """Whether the sandbox's pause process runs and its network is set up."""

    READY = "SANDBOX_READY"
    NOTREADY = "SANDBOX_NOTREADY"


class ContainerState(Enum):
    """Where a container is in its life."""

    CREATED = "CONTAINER_CREATED"
    RUNNING = "CONTAINER_RUNNING"
    EXITED = "CONTAINER_EXITED"
    UNKNOWN = "CONTAINER_UNKNOWN"


class NamespaceMode(Enum):
    """Whose namespace a container joins."""

    POD = "POD"
    CONTAINER = "CONTAINER"
    NODE = "NODE"
    TARGET = "TARGET"  # that of another container of the pod


@dataclass(frozen=True, slots=True)
class PodSandboxMetadata:
    """The identity of a pod, with the number of times its sandbox was made anew."""

    name: str
    namespace: str
    uid: str
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class ContainerMetadata:
    """The name of a container in its pod, with the number of its restarts."""

    name: str
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the pod published on the host (``hostPort``)."""

    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class DNSConfig:
    """What the pod's ``/etc/resolv.conf`` says; all empty: as on the host."""

    servers: Sequence[str] = ()
    searches: Sequence[str] = ()
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PodSandboxConfig:
    """What a sandbox is made from."""

    metadata: PodSandboxMetadata
    hostname: str
    log_directory: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    dns: DNSConfig = field(default_factory=DNSConfig)
    port_mappings: Sequence[PortMapping] = ()
    resources: LinuxResources | None = None  # of the pod as a whole, on ``cgroup_parent``
    cgroup_parent: str = ""  # e.g. "kubepods/burstable/pod<uid>"; relative to the engine's root
    network: NamespaceMode = NamespaceMode.POD
    pid: NamespaceMode = NamespaceMode.CONTAINER
    ipc: NamespaceMode = NamespaceMode.POD
    sysctls: Mapping[str, str] = field(default_factory=dict)
    privileged: bool = False
    runtime_handler: str = ""  # of the pod's RuntimeClass; empty: the usual one
    user_range: tuple[int, int] | None = None  # its users on the host: the first, how many
    ingress_rate: int = 0  # bits a second to the pod; 0: as many as go
    egress_rate: int = 0  # and from it


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of the host in the container, or the files of an image.

    ``recursive_readonly``: what is mounted below is read-only, too. ``image`` is an image's id and
    ``image_sub_path`` a path within it; ``host_path`` means nothing then.
    """

    container_path: str
    host_path: Path
    readonly: bool = False
    propagation: str = "rprivate"
    recursive_readonly: bool = False
    image: str = ""
    image_sub_path: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host in the container; ``permissions`` of the letters r, w, m."""

    host_path: Path
    container_path: str
    permissions: str = "mrw"


@dataclass(frozen=True, slots=True)
class LinuxResources:
    """Limits in the kernel's units: CPU as quota of period in microseconds, memory in bytes."""

    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    memory_limit: int = 0
    oom_score_adj: int = 0
    pids_limit: int = 0
    hugepage_limits: Mapping[str, int] = field(default_factory=dict)  # bytes by size: "2MB"


@dataclass(frozen=True, slots=True)
class LinuxSecurity:
    """Who the process is and what it may do."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_username: str = ""
    supplemental_groups: Sequence[int] = ()
    privileged: bool = False
    readonly_rootfs: bool = False
    no_new_privileges: bool = False
    add_capabilities: Sequence[str] = ()
    drop_capabilities: Sequence[str] = ()
    seccomp_unconfined: bool = False
    seccomp_profile: Path | None = None  # a file with the filter; None: the default one
    strict_groups: bool = False  # no groups but those named here (supplementalGroupsPolicy)
    unmasked: bool = False  # all of /proc is seen (procMount)
    pid: NamespaceMode = NamespaceMode.CONTAINER
    pid_target: str = ""  # the id of the container whose namespace TARGET is


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """What a container is made from."""

    metadata: ContainerMetadata
    image: str  # a reference or an image id
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    working_dir: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    devices: Sequence[Device] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""  # relative to the sandbox's log directory
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: LinuxResources = field(default_factory=LinuxResources)
    security: LinuxSecurity = field(default_factory=LinuxSecurity)
    stop_signal: str = ""


@dataclass(frozen=True, slots=True)
class PodSandboxStatus:
    """A sandbox as it is."""

    id: str
    metadata: PodSandboxMetadata
    state: PodSandboxState
    created_at: int
    ips: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """A container as it is."""

    id: str
    pod_sandbox_id: str
    metadata: ContainerMetadata
    state: ContainerState
    created_at: int
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    image: str = ""
    image_ref: str = ""  # the image's id, sha256:…
    reason: str = ""  # "Completed", "Error", "OOMKilled", "ContainerCannotRun"
    message: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: Path | None = None
    user: Sequence[int] = ()  # user, group and further groups, once it was started


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Who pulls an image: a user and a password, or a token."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"AuthConfig(username={self.username!r})"  # the rest is for nobody's eyes


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the store."""

    id: str
    repo_tags: Sequence[str] = ()
    repo_digests: Sequence[str] = ()
    size: int = 0
    user: str = ""


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """What a container used: CPU in nanoseconds since its start, memory in bytes."""

    id: str
    labels: Mapping[str, str]
    cpu_usage: int
    memory_working_set: int
    memory_rss: int = 0
    name: str = ""  # as the engine calls it
    image: str = ""
    cgroup: str = ""
    started_at: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled: int = 0  # nanoseconds
    memory_usage: int = 0
    memory_cache: int = 0
    memory_mapped: int = 0
    memory_swap: int = 0
    memory_maximum: int = 0
    memory_failures: int = 0
    memory_limit: int = 0  # that of the machine where it has none
    page_faults: int = 0
    major_page_faults: int = 0
    processes: int = 0
    interfaces: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # of a sandbox


@dataclass(frozen=True, slots=True)
class FilesystemUsage:
    """What lies in a directory: bytes on the disk, and how many files."""

    used_bytes: int
    inodes_used: int


IMAGE_ADDED = "image added"


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something happened to a container or sandbox; ``kind`` is created, started, stopped, deleted.

    ``pod_uid`` names the pod it belongs to. ``IMAGE_ADDED`` is of no container: there is an image
    more, or another name for one.
    """

    kind: str
    container_id: str
    pod_sandbox_id: str
    pod_uid: str


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a synchronous exec ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class ProcessStream(Protocol):
    """The live ends of a process started by ``exec`` or reached by ``attach``."""

    async def read(self) -> tuple[int, bytes]:
        """The next output as (1 for stdout or 2 for stderr, data); ``(0, b"")`` at the end."""

    async def write(self, data: bytes) -> None:
        """Send ``data`` to the standard input."""

    async def close_stdin(self) -> None:
        """End the standard input."""

    async def resize(self, width: int, height: int) -> None:
        """Give the terminal a new size, in characters."""

    async def wait(self) -> int:
        """The exit code, once the process has ended (for attach: once the container has)."""

    async def close(self) -> None:
        """Let go; an exec'd process that still runs is killed, an attached container goes on."""


@dataclass(frozen=True, slots=True)
class RuntimeHandler:
    """A handler that a RuntimeClass may name, and what it can; empty is the usual one."""

    name: str
    recursive_read_only: bool
    user_namespaces: bool


class ContainerRuntime(Protocol):
    """RuntimeService and ImageService of CRI, as asyncio calls.

    Every call raises CRIError (CRINotFound for what is not there). Stop and remove are idempotent.
    """

    async def version(self) -> Mapping[str, str]:
        """``runtime_name``, ``runtime_version``, ``runtime_api_version``."""

    async def handlers(self) -> Sequence[RuntimeHandler]:
        """The handlers on this node."""

    async def pod_cidr(self) -> str:
        """The range that was last taken, also by a runtime that has ended since; empty: none."""

    async def update_runtime_config(self, pod_cidr: str) -> None:
        """The range from which this node's sandboxes get their addresses; it may be refused with
        reason ``POD_CIDR_IN_USE``."""

    async def network_changed(self) -> None:
        """Return when a range that was refused may be taken; never where that is not known."""

    async def run_pod_sandbox(self, config: PodSandboxConfig) -> str:
        """Create and start a sandbox (pause process, namespaces, network); returns its id."""

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Kill what runs in it and give its network back."""

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Remove it and its containers, by force."""

    async def pod_sandbox_status(self, sandbox_id: str) -> PodSandboxStatus:
        """One sandbox."""

    async def list_pod_sandboxes(self) -> Sequence[PodSandboxStatus]:
        """All sandboxes."""

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox_config: PodSandboxConfig
    ) -> str:
        """Create a container in a sandbox; returns its id. The image must be there."""

    async def start_container(self, container_id: str) -> None:
        """Start it; fails with reason RunContainerError where the command cannot run."""

    async def stop_container(self, container_id: str, timeout: float) -> None:
        """Its stop signal, then SIGKILL after ``timeout`` seconds; returns when it has ended."""

    async def update_container_resources(
        self, container_id: str, resources: LinuxResources
    ) -> None:
        """Change the limits of a running container; zeros take a limit away."""

    async def update_group(self, group: str, resources: LinuxResources) -> None:
        """Limit what all pods below a cgroup (``kubepods/burstable``) use together; makes it."""

    async def remove_groups(self, group: str, keep: Collection[str]) -> None:
        """Remove the empty groups right below ``group`` but those named in ``keep``."""

    async def remove_container(self, container_id: str) -> None:
        """Remove it, by force."""

    async def container_status(self, container_id: str) -> ContainerStatus:
        """One container."""

    async def list_containers(self) -> Sequence[ContainerStatus]:
        """All containers of all sandboxes."""

    async def exec_sync(self, container_id: str, cmd: Sequence[str], timeout: float) -> ExecResult:
        """Run ``cmd`` to its end; raises CRIError when ``timeout`` seconds pass (0: no limit)."""

    async def exec(
        self, container_id: str, cmd: Sequence[str], *, tty: bool, stdin: bool
    ) -> ProcessStream:
        """Start ``cmd`` with live streams."""

    async def rotate_logs(self, size: int, rotate: Callable[[Path], Awaitable[None]]) -> None:
        """From now on ``rotate`` is awaited with each log that has reached ``size`` bytes.

        It moves the file away (or raises OSError); the runtime writes on in a new one of its name.
        The container that writes waits meanwhile.
        """

    async def attach(self, container_id: str, *, stdin: bool) -> ProcessStream:
        """The live streams of the container's own process."""

    async def port_forward(self, sandbox_id: str, port: int) -> int:
        """A connected TCP socket (its descriptor) to 127.0.0.1:``port`` in the sandbox."""

    async def image_status(self, image: str) -> Image | None:
        """The image, None where it is not in the store."""

    async def pull_image(self, image: str, auth: AuthConfig | None = None) -> str:
        """Fetch it; returns its id. Fails with reason ErrImagePull."""

    async def list_images(self) -> Sequence[Image]:
        """All images."""

    async def images_in_use(self) -> Collection[str]:
        """The ids of the images of which there is a container, whoever made it."""

    async def remove_image(self, image: str) -> None:
        """Untag it and remove what nothing else uses."""

    async def container_stats(self) -> Sequence[ContainerStats]:
        """Usage of all running containers."""

    async def pod_sandbox_stats(self) -> Sequence[ContainerStats]:
        """Usage of all ready sandboxes: their pause process, and the pod's network."""

    async def container_filesystem(self, container_id: str) -> FilesystemUsage:
        """How much a container has written to its own layer. It is counted, which takes time."""

    def events(self) -> AsyncIterator[ContainerEvent]:
        """What happens from now on, as it happens."""
