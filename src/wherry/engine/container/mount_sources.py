"""What the mounts of a container need on the host while it runs, and giving it back.

Directories of binds are made, volumes mounted, the wanted parts of volumes and images mounted below
the container's home, so that the OCI runtime finds every source under a path that nobody can
exchange meanwhile. All of it follows from the container's document, so it can be given back by a
daemon that did not make it.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from wherry.engine.container import confined, mount_options, remapping
from wherry.engine.container.container import Container, MountPoint
from wherry.engine.errors import BadParameter, EngineError
from wherry.engine.events import EventBus
from wherry.engine.image.store import ImageStore
from wherry.engine.image.threads import in_thread
from wherry.engine.volume.volume import DRIVER
from wherry.engine.volume.volumes import Volumes
from wherry.host import mount_table, syscalls
from wherry.host.beneath import hold_within
from wherry.runtime.rootfs import mount_layers, unescape, unmount
from wherry.runtime.types import MountSpec, RuntimeFailure

_SHARED = ("shared", "rshared")
_SLAVE = ("slave", "rslave")
# Files of /proc with figures of the container instead of the machine's.
_MADE_UP_BY_LXCFS = {
    *(f"/proc/{name}" for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime")),
    *(f"/proc/{name}" for name in ("loadavg", "slabinfo", "net/dev", "sys/kernel/ns_last_pid")),
    "/proc/sys/crypto/fips_enabled",
}
_FORBIDDING = {"nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}
# mount_setattr(2), which makes mounts read-only all the way down.
RECURSIVE_READ_ONLY_SINCE = (5, 12)


class MountSources:
    """Takes and gives back for the containers of one engine."""

    def __init__(self, volumes: Volumes, images: ImageStore, events: EventBus) -> None:
        self._volumes = volumes
        self._images = images
        self._events = events

    async def take(self, container: Container) -> list[MountSpec]:
        """Make ready all that ``container`` mounts, and say how it is to be mounted.

        What was made before an error is given back by ``give_back``.

        Raises:
            EngineError: a source cannot be had.
            OSError: the kernel refuses.
        """
        mounts = []
        for index, point in enumerate(container.mounts):
            own = _own_path(container, index)
            match point.type:
                case "volume":
                    mounts.append(await self._volume(container, point, own))
                case "image":
                    mounts.append(await asyncio.to_thread(self._image, point, own))
                case "tmpfs":
                    chosen = mount_options.effective_tmpfs(point.options)
                    mounts.append(MountSpec(_destination(point), "tmpfs", "tmpfs", tuple(chosen)))
                case _:
                    # In a thread: the source may be on a file system that does not answer.
                    mounts.append(await asyncio.to_thread(_bind, container, point, own))
        return mounts

    async def _volume(self, container: Container, point: MountPoint, own: Path) -> MountSpec:
        try:
            path = await self._volumes.mount(point.name, container.id)
        except EngineError as error:
            raise type(error)(
                f"error while mounting volume '{point.source}': {error.message}"
            ) from error
        if point.subpath:
            await asyncio.to_thread(_bind_within, path, point.subpath, own)
            path = own
        if container.user_namespace is not None:
            mapped = _mapped_path(own)
            await asyncio.to_thread(remapping.mount_volume, path, mapped, container)
            path = mapped
        self._publish(
            "mount",
            container,
            point,
            {
                "destination": point.destination,
                "read/write": "true" if point.writable else "false",
                "propagation": point.propagation,
            },
        )
        return await asyncio.to_thread(bind_spec, point, str(path))

    def _image(self, point: MountPoint, own: Path) -> MountSpec:
        layers = self._images.layers(self._images.by_id(point.image_id))
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        unmount(own)  # a failed clean-up may have left it
        mount_layers(layers, own)
        if point.subpath:
            _bind_within(own, point.subpath, _part(own))
            return bind_spec(point, str(_part(own)))
        return bind_spec(point, str(own))

    @asynccontextmanager
    async def borrowed(self, container: Container) -> AsyncIterator[list[tuple[MountPoint, Path]]]:
        """What is behind the mount points of ``container``, for who looks at it from outside.

        Who asks holds the container's lock: what does not run does not start meanwhile.
        """
        if container.state.running:
            yield [
                (point, self._place(container, index, point))
                for index, point in enumerate(container.mounts)
                if point.type != "tmpfs"
            ]
            return
        found: list[tuple[MountPoint, Path]] = []
        try:
            for index, point in enumerate(container.mounts):
                own = _own_path(container, index)
                match point.type:
                    case "volume":
                        path = await self._volumes.mount(point.name, container.id)
                        if point.subpath:
                            await in_thread(_bind_within, path, point.subpath, own)
                    case "image":
                        await in_thread(self._image, point, own)
                    case "tmpfs":
                        continue
                found.append((point, self._place(container, index, point)))
            yield found
        finally:
            # Also when the client has left, which cancels whatever is awaited next.
            returning = asyncio.ensure_future(self._return(container))
            try:
                await asyncio.shield(returning)
            except asyncio.CancelledError:
                await asyncio.wait([returning])
                raise

    async def _return(self, container: Container) -> None:
        await asyncio.to_thread(release_own, container)
        for point in container.mounts:
            if point.type == "volume":
                await self._volumes.unmount(point.name, container.id)

    @staticmethod
    def _place(container: Container, index: int, point: MountPoint) -> Path:
        own = _own_path(container, index)
        if point.type == "image" and point.subpath:
            return _part(own)
        return own if point.subpath or point.type == "image" else Path(point.source)

    def hold(self, container: Container) -> None:
        """A daemon that has just started finds ``container`` running with all of it."""
        for point in container.mounts:
            if point.type == "volume":
                self._volumes.hold(point.name, container.id)

    async def give_back(self, container: Container) -> None:
        """Undo ``take``; may be repeated at any time.

        Raises:
            OSError: something cannot be unmounted.
        """
        if (container.home / "mounts").exists():
            await asyncio.to_thread(release_own, container)
        for point in container.mounts:
            if point.type == "volume" and await self._volumes.unmount(point.name, container.id):
                self._publish("unmount", container, point, {})

    def _publish(
        self, action: str, container: Container, point: MountPoint, more: dict[str, str]
    ) -> None:
        attributes = {"driver": point.driver or DRIVER, "container": container.id, **more}
        self._events.publish("volume", action, point.name, attributes)


def check_destinations(rootfs: Path, mounts: Sequence[MountSpec]) -> None:
    """Nothing may lie over what the kernel shows in /proc, wherever the image's links lead.

    Programs that set up a process trust what they find there. crun does not look; the rules are
    those of runc.

    Raises:
        RuntimeFailure: something would.
    """
    for mount in mounts:
        place = confined.resolve(rootfs, mount.destination)
        if place != "/proc" and not place.startswith("/proc/"):
            continue
        if place == "/proc":
            if mount.type == "bind" and _is_proc(mount.source):
                continue
            why = "because it is not of type proc"
        elif place in _MADE_UP_BY_LXCFS:
            continue
        else:
            why = "because it is inside /proc"
        raise RuntimeFailure(
            f'error during container init: error mounting "{mount.source}" to rootfs at '
            f'"{mount.destination}": "{place}" cannot be mounted {why}'
        )


def _is_proc(path: str) -> bool:
    try:
        return Path(path).stat().st_dev == Path("/proc").stat().st_dev
    except OSError:
        return False


def _bind(container: Container, point: MountPoint, own: Path) -> MountSpec:
    if point.create_source:
        _make_directory(point.source)
    elif not Path(point.source).exists():
        raise BadParameter(
            f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
        )
    if remapping.of_pod(container) is None:
        return bind_spec(point, point.source)
    # What a pod mounts was made for it, with the ids that its users have inside.
    mapped = _mapped_path(own)
    remapping.mount_volume(Path(point.source), mapped, container)
    return bind_spec(point, str(mapped))


def _own_path(container: Container, index: int) -> Path:
    return container.home / "mounts" / str(index)


def _part(own: Path) -> Path:
    return own.with_name(f"{own.name}.part")


def _mapped_path(own: Path) -> Path:
    return own.with_name(f"{own.name}.mapped")


def release_own(container: Container) -> None:
    """Unmount what is mounted below the home of ``container``; may be repeated at any time.

    The home must not be removed before: the files of volumes would go with it.

    Raises:
        OSError: something cannot be unmounted.
    """
    for index, point in enumerate(container.mounts):
        if point.type in ("volume", "image"):
            own = _own_path(container, index)
            for path in (_mapped_path(own), _part(own), own):
                unmount(path)
        elif remapping.of_pod(container) is not None:
            unmount(_mapped_path(_own_path(container, index)))


def _destination(point: MountPoint) -> str:
    return f"/{point.destination.lstrip('/')}"


def bind_spec(point: MountPoint, source: str) -> MountSpec:
    """How to mount ``source`` at the place of ``point``.

    Raises:
        EngineError: the mount that ``source`` is on does not allow the propagation wanted.
    """
    propagation = point.propagation or "rprivate"
    if propagation in _SHARED + _SLAVE and not _allows(source, propagation):
        if not point.slave_if_possible:
            at = source_mount(source)[0]
            wanted = "shared" if propagation in _SHARED else "shared or slave"
            raise EngineError(f"path {source} is mounted on {at} but it is not a {wanted} mount")
        propagation = "rprivate"
    # crun takes a recursive propagation for a wish to bind recursively.
    how = ["rbind", propagation] if point.recursive else ["bind", propagation.removeprefix("r")]
    options = (*how, *_forbidden(source, point))
    return MountSpec(_destination(point), source, "bind", options)


def _forbidden(source: str, point: MountPoint) -> list[str]:
    """What may not be done there. The OCI runtime would lift what the source's mount forbids."""
    try:
        flags = os.statvfs(source).f_flag
    except OSError:
        flags = 0  # the OCI runtime tells what is wrong with it
    options = [name for name, flag in _FORBIDDING.items() if flags & flag]
    if not point.writable:
        options.append(_read_only(point, source))
    elif flags & os.ST_RDONLY:
        options.append("ro")
    return options


def _read_only(point: MountPoint, source: str) -> str:
    if point.read_only == "top" or not point.recursive or not Path(source).is_dir():
        return "ro"
    if kernel_version() >= RECURSIVE_READ_ONLY_SINCE:
        return "rro"
    if point.read_only == "all":
        raise BadParameter("rro is not supported: the kernel is older than 5.12")
    return "ro"


@functools.cache
def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def _allows(source: str, propagation: str) -> bool:
    options = source_mount(source)[1]
    shared = any(option.startswith("shared:") for option in options)
    if propagation in _SHARED:
        return shared
    return shared or any(option.startswith("master:") for option in options)


def source_mount(source: str) -> tuple[str, list[str]]:
    """The mount point that ``source`` is on, and the propagation fields of its mountinfo line."""
    path = Path(source).resolve()
    best: tuple[str, list[str]] = ("/", [])
    for line in mount_table.lines(mount_table.read()):
        fields = line.split(" ")
        point = unescape(fields[4])
        if path.is_relative_to(point) and len(point) >= len(best[0]):
            best = point, fields[6 : fields.index("-")]
    return best


def _make_directory(source: str) -> None:
    try:
        Path(source).mkdir(mode=0o755, parents=True, exist_ok=True)
    except FileExistsError:
        pass  # a file or a socket
    except NotADirectoryError:
        pass  # the OCI runtime tells it
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise EngineError(
            f"error while creating mount source path '{source}': mkdir {error.filename}: {reason}"
        ) from error


def _bind_within(base: Path, subpath: str, target: Path) -> None:
    """Bind what is at ``subpath`` within ``base`` to ``target``, wherever symbolic links lead.

    Raises:
        EngineError: there is nothing, or it is outside.
    """
    try:
        descriptor = hold_within(base, subpath)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise EngineError(
                "path concatenation escapes the base directory, "
                f"base: '{base}', subpath: '{subpath}'"
            ) from error
        reason = os.strerror(error.errno or 0).lower()
        raise EngineError(f"cannot access path {base / subpath}: {reason}") from error
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unmount(target)  # a failed clean-up may have left it
        if target.is_dir():
            target.rmdir()
        target.unlink(missing_ok=True)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            target.mkdir(mode=0o700)
        else:
            target.touch(mode=0o600)
        syscalls.mount(
            f"/proc/self/fd/{descriptor}",
            str(target),
            "",
            syscalls.MS_BIND | syscalls.MS_REC,
        )
    finally:
        os.close(descriptor)
