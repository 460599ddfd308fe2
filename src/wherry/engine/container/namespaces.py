"""Which namespaces a container joins, and the shared memory that goes with a shared IPC one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wherry.engine.container.container import Container
from wherry.engine.container.spec import Joined
from wherry.engine.container.store import ContainerStore
from wherry.engine.errors import BadParameter, Conflict, EngineError, NotFound
from wherry.host import syscalls
from wherry.runtime.rootfs import unmount

PREFIX = "container:"


def network_owner(container: Container, store: ContainerStore) -> Container:
    """The container whose network, hosts and resolv.conf ``container`` uses; mostly itself.

    Raises:
        NotFound: it is gone.
        EngineError: that would be itself, by its own name or by way of others.
    """
    passed = set()
    while container.network_mode.startswith(PREFIX):
        passed.add(container.id)
        container = store.get(container.network_mode.removeprefix(PREFIX))
        if container.id in passed:
            raise EngineError("cannot join own network namespace")
    return container


def check(host: Mapping[str, Any]) -> None:
    """Judge the modes.

    Raises:
        BadParameter: one of them is none.
    """
    for field, label, allowed in (
        ("PidMode", "PID", ("", "host")),
        ("IpcMode", "IPC", ("", "none", "private", "shareable", "host")),
        ("UTSMode", "UTS", ("", "host")),
        ("UsernsMode", "user namespace", ("", "host")),
        ("CgroupnsMode", "cgroup namespace", ("", "private", "host")),
    ):
        value = host[field]
        joins = value.startswith(PREFIX) and field in ("PidMode", "IpcMode")
        # Containers of a pod share it; it goes with the network.
        joins = joins or (field == "UTSMode" and value == host["NetworkMode"])
        if not (value in allowed or (joins and value != PREFIX)):
            raise BadParameter(f"invalid {label} mode: {value}")


def check_remapped(host: Mapping[str, Any]) -> None:
    """Judge what does not go with a user namespace of the container's own.

    Raises:
        BadParameter: the container would have to have power over the host.
    """
    if host["UsernsMode"] == "host":
        return
    if host["Privileged"]:
        raise BadParameter(
            "privileged mode is incompatible with user namespaces.  "
            "You must run the container in the host namespace when running privileged mode"
        )
    if host["NetworkMode"] == "host":
        raise BadParameter(
            "cannot share the host's network namespace when user namespaces are enabled"
        )
    if host["PidMode"] == "host":
        raise BadParameter("cannot share the host PID namespace when user namespaces are enabled")


def joined(
    container: Container, store: ContainerStore, network_namespace: Callable[[str], Path]
) -> Joined:
    """The namespaces of ``container``; ``network_namespace`` tells where one by id is.

    Raises:
        NotFound: a container to be joined is gone.
        Conflict: it does not run.
        BadParameter: it keeps its IPC namespace to itself.
    """
    host = container.host_config
    owner = network_owner(container, store)
    if owner is not container:
        if not owner.state.running:
            raise Conflict(f"cannot join network of a non running container: {owner.id}")
        if owner.state.restarting:
            raise _is_restarting(owner)
    network = "host" if owner.network_mode == "host" else str(network_namespace(owner.id))
    ipc, shm = _ipc(host["IpcMode"], container, store)
    return Joined(
        network=network,
        pid=_process_namespace(host["PidMode"], "pid", "PID", store),
        ipc=ipc,
        uts=_process_namespace(host["UTSMode"], "uts", "UTS", store),
        cgroup=None if host["CgroupnsMode"] == "private" else "host",
        shm=shm,
    )


def user_namespace(container: Container, store: ContainerStore) -> str:
    """The user namespace of a remapped container: that of those whose namespaces it joins."""
    for mode in ("NetworkMode", "IpcMode", "PidMode"):
        value = container.host_config[mode]
        if value.startswith(PREFIX):
            other = store.get(value.removeprefix(PREFIX))
            return f"/proc/{other.state.pid}/ns/user"
    return str(container.user_namespace)


def _is_restarting(other: Container) -> Conflict:
    return Conflict(f"Container {other.id} is restarting, wait until the container is running")


def _process_namespace(mode: str, kind: str, label: str, store: ContainerStore) -> str | None:
    if mode == "host":
        return "host"
    if not mode.startswith(PREFIX):
        return None
    problem = f"failed to join {label} namespace: "
    try:
        other = store.get(mode.removeprefix(PREFIX))
    except NotFound as error:
        raise BadParameter(problem + error.message) from None
    if not other.state.running or not other.state.pid:
        raise Conflict(f"{problem}container {other.id} is not running")
    if other.state.restarting:
        raise Conflict(problem + _is_restarting(other).message)
    return f"/proc/{other.state.pid}/ns/{kind}"


def _ipc(mode: str, container: Container, store: ContainerStore) -> tuple[str | None, Path | None]:
    if mode == "shareable":
        return None, shared_memory(container)
    namespace = _process_namespace(mode, "ipc", "IPC", store)
    if namespace in (None, "host"):
        return namespace, None
    other = store.get(mode.removeprefix(PREFIX))
    if other.host_config["IpcMode"] == "host":
        return "host", None
    if other.host_config["IpcMode"] != "shareable":
        raise BadParameter(
            f"failed to join IPC namespace: container {other.id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
    return namespace, shared_memory(other)


def shared_memory(container: Container) -> Path:
    """What a container with a shareable IPC namespace, and those who join it, see as /dev/shm."""
    return container.home / "shm"


def mount_shared_memory(container: Container) -> None:
    """Make it, where the container has one."""
    if container.host_config["IpcMode"] != "shareable":
        return
    target = shared_memory(container)
    target.mkdir(mode=0o700, exist_ok=True)
    unmount(target)
    syscalls.mount(
        "shm",
        str(target),
        "tmpfs",
        syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC,
        f"mode=1777,size={container.host_config['ShmSize']}",
    )


def unmount_shared_memory(container: Container) -> None:
    """Give it back; nothing happens without one."""
    if (target := shared_memory(container)).exists():
        unmount(target)
        target.rmdir()
