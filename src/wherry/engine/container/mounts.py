"""What a request mounts into a container: ``-v``, ``--mount`` and ``--tmpfs``.

Syntax and error texts are those of Docker's volume/mounts parser.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wherry.engine.container.container import MountPoint
from wherry.engine.errors import BadParameter, NotImplementedByEngine

_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_IGNORED = {"z", "Z", "nocopy", "consistent", "cached", "delegated", "default"}
DEFAULT_PROPAGATION = "rprivate"
_TMPFS_DEFAULT = ("noexec", "nosuid", "nodev")


def mount_points(
    host_config: Mapping[str, Any],
    *,
    exists: Callable[[str], bool] = lambda path: Path(path).exists(),
) -> list[MountPoint]:
    """Everything ``host_config`` asks to mount, by destination.

    Raises:
        BadParameter: a specification is malformed, two have one destination, or the source of a
            ``--mount`` does not exist.
        NotImplementedByEngine: it names a volume.
    """
    points: dict[str, MountPoint] = {}

    def add(point: MountPoint) -> None:
        if point.destination in points:
            raise BadParameter(f"Duplicate mount point: {point.destination}")
        points[point.destination] = point

    for text in host_config["Binds"] or []:
        add(parse_bind(text))
    for mount in host_config.get("Mounts") or []:
        add(parse_mount(mount, exists))
    for destination, options in (host_config.get("Tmpfs") or {}).items():
        add(parse_tmpfs(destination, options))
    # A mount must come after the one it stands on.
    return sorted(points.values(), key=lambda point: point.destination.count("/"))


def parse_bind(text: str) -> MountPoint:
    """One ``source:destination[:mode]``."""
    parts = text.split(":")
    if len(parts) == 1:
        _check_destination(parts[0], text)
        raise _no_volumes()
    if len(parts) > 3 or not all(parts):
        raise BadParameter(f"invalid volume specification: '{text}'")
    source, destination, mode = (*parts, "")[:3]
    _check_destination(destination, text)
    propagation = DEFAULT_PROPAGATION
    writable = True
    for option in filter(None, mode.split(",")):
        if option in ("ro", "readonly"):
            writable = False
        elif option in _PROPAGATIONS:
            propagation = option
        elif option != "rw" and option not in _IGNORED:
            raise BadParameter(f"invalid mode: {mode}")
    if not source.startswith("/"):
        raise _no_volumes()
    return MountPoint(
        type="bind",
        source=posixpath.normpath(source),
        destination=posixpath.normpath(destination),
        mode=mode,
        writable=writable,
        propagation=propagation,
        create_source=True,
    )


def parse_mount(mount: Mapping[str, Any], exists: Callable[[str], bool]) -> MountPoint:
    """One entry of ``HostConfig.Mounts``, as ``--mount`` makes them."""
    kind = str(mount.get("Type") or "")
    target = str(mount.get("Target") or "")

    def refuse(why: str) -> BadParameter:
        return BadParameter(f'invalid mount config for type "{kind}": {why}')

    if not target:
        raise refuse("field Target must not be empty")
    if not target.startswith("/"):
        raise refuse(f"invalid mount path: '{target}' mount path must be absolute")
    if posixpath.normpath(target) == "/":
        raise refuse("destination can't be '/'")
    destination = posixpath.normpath(target)
    writable = not mount.get("ReadOnly")
    match kind:
        case "bind":
            source = str(mount.get("Source") or "")
            if not source:
                raise refuse("field Source must not be empty")
            if not source.startswith("/"):
                raise refuse(f"invalid mount path: '{source}' mount path must be absolute")
            options = mount.get("BindOptions") or {}
            if not options.get("CreateMountpoint") and not exists(source):
                raise refuse(f"bind source path does not exist: {source}")
            propagation = str(options.get("Propagation") or DEFAULT_PROPAGATION)
            if propagation not in _PROPAGATIONS:
                raise refuse(f"invalid propagation mode: {propagation}")
            return MountPoint(
                type="bind",
                source=posixpath.normpath(source),
                destination=destination,
                writable=writable,
                propagation=propagation,
                create_source=bool(options.get("CreateMountpoint")),
            )
        case "tmpfs":
            if mount.get("Source"):
                raise refuse("field Source must not be specified")
            tmpfs = mount.get("TmpfsOptions") or {}
            chosen = [*_TMPFS_DEFAULT, "rw" if writable else "ro"]
            if size := tmpfs.get("SizeBytes"):
                chosen.append(f"size={int(size)}")
            if mode := tmpfs.get("Mode"):
                chosen.append(f"mode={int(mode):o}")
            return MountPoint(
                type="tmpfs", destination=destination, writable=writable, options=chosen
            )
        case "volume":
            raise _no_volumes()
        case _:
            raise BadParameter(f"mount type unknown: {kind!r}".replace("'", '"'))


def parse_tmpfs(destination: str, options: str) -> MountPoint:
    """One entry of ``HostConfig.Tmpfs``: a path and mount options, separated by commas."""
    if not destination.startswith("/"):
        raise BadParameter(f"invalid mount path: '{destination}' mount path must be absolute")
    given = [option for option in options.split(",") if option]
    chosen = [option for option in _TMPFS_DEFAULT if option.removeprefix("no") not in given]
    chosen += [option for option in given if option not in chosen]
    return MountPoint(
        type="tmpfs",
        destination=posixpath.normpath(destination),
        writable="ro" not in given,
        options=chosen,
    )


def _check_destination(destination: str, text: str) -> None:
    if not destination.startswith("/"):
        raise BadParameter(
            f"invalid volume specification: '{text}': invalid mount config for type "
            f"\"volume\": invalid mount path: '{destination}' mount path must be absolute"
        )
    if posixpath.normpath(destination) == "/":
        raise BadParameter(f"invalid volume specification: '{text}': destination can't be '/'")


def _no_volumes() -> NotImplementedByEngine:
    return NotImplementedByEngine(
        "named and anonymous volumes are not available in this version of Wherry; "
        "mount a directory of the host instead: -v /path/on/host:/path"
    )
