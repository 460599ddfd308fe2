"""What a request mounts into a container: ``-v``, ``--mount``, ``--tmpfs``, ``--volumes-from``.

All of this is decided from the request and the containers it names, before anything is made.
Syntax, precedence and error texts are those of Docker's volume/mounts parser:
https://docs.docker.com/reference/api/engine/version/v1.50/#tag/Container/operation/ContainerCreate
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wherry.engine.container.container import Container, MountPoint
from wherry.engine.container.mount_options import tmpfs_options
from wherry.engine.errors import BadParameter

_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
DEFAULT_PROPAGATION = "rprivate"
# A client to whom nothing is too new.
NEWEST = (1 << 16, 0)
# The words of a mode, in groups of which each gives one at most.
_MODES: tuple[frozenset[str], ...] = (
    frozenset(("ro", "rw")),
    frozenset(("z", "Z")),
    frozenset(_PROPAGATIONS),
    frozenset(("nocopy",)),
    frozenset(("consistent", "cached", "delegated")),
)
# Docker shows a named volume so: relabelled for SELinux, where there is that.
_VOLUME_MODE = "z"
_ROOT = "invalid specification: destination can't be '/'"


@dataclass(slots=True)
class Wanted:
    """A mount point that is asked for, and how to make its volume where there is none yet."""

    point: MountPoint
    labels: Mapping[str, str] | None = None
    driver_options: Mapping[str, str] | None = None
    made: bool = False  # the volume is made for this container alone


@dataclass(frozen=True, slots=True)
class Context:
    """What the meaning of a request depends on besides itself.

    ``daemon_root`` is where this engine keeps its data: mounts from there must be told of unmounts,
    or a container would keep others' files busy.
    """

    daemon_root: Path = Path("/nonexistent")
    find: Callable[[str], Container | None] = lambda reference: None
    exists: Callable[[str], bool] = lambda path: Path(path).exists()
    version: tuple[int, int] = NEWEST


def wanted(
    config: Mapping[str, Any], host: Mapping[str, Any], context: Context | None = None
) -> list[Wanted]:
    """Everything to mount, outer mounts first; ``config`` has the image's volumes merged in.

    Where two ask for one destination, ``-v`` and ``--mount`` win over ``--volumes-from``, and all
    of them over the volumes of the image.

    Raises:
        BadParameter: a specification is malformed, two have one destination, or the source of a
            ``--mount`` does not exist.
    """
    context = context or Context()
    found: dict[str, Wanted] = {}
    tmpfs = {d: parse_tmpfs(d, o) for d, o in (host.get("Tmpfs") or {}).items()}
    in_memory = {point.destination for point in tmpfs.values()}
    for text in host["VolumesFrom"] or []:
        for point in _inherited(text, context):
            found[point.destination] = Wanted(point)
    explicit: set[str] = set()
    for text in host["Binds"] or []:
        bind = Wanted(parse_bind(text, host["VolumeDriver"]))
        _place(bind.point, context)
        destination = bind.point.destination
        if destination in explicit or destination in in_memory:
            raise BadParameter(f"Duplicate mount point: {destination}")
        explicit.add(destination)
        found[destination] = bind
    for mount in host.get("Mounts") or []:
        one = parse_mount(mount, context.exists)
        chosen = (mount.get("BindOptions") or {}).get("Propagation")
        _place(one.point, context, explicit=bool(chosen))
        if one.point.destination in explicit:
            raise BadParameter(f"Duplicate mount point: {mount['Target']}")
        explicit.add(one.point.destination)
        found[one.point.destination] = one
    for path in config["Volumes"] or {}:
        destination = posixpath.normpath(path)
        if destination in found or destination in in_memory:
            continue
        if destination == "/":
            raise BadParameter(f'invalid mount config for type "volume": {_ROOT}')
        point = MountPoint("volume", destination, driver=host["VolumeDriver"], copy=True)
        point.anonymous = True
        found[destination] = Wanted(point)
    # A tmpfs covers whatever else was to be at its place.
    found |= {point.destination: Wanted(point) for point in tmpfs.values()}
    return sorted(found.values(), key=lambda one: one.point.destination.count("/"))


def _inherited(text: str, context: Context) -> list[MountPoint]:
    """The mount points that ``--volumes-from text`` means."""
    reference, mode = parse_volumes_from(text)
    other = context.find(reference)
    if other is None:
        raise BadParameter(f"No such container: {reference}")
    writable = "ro" not in mode.split(",")
    return [
        replace(point, writable=point.writable and writable, mode="", copy=False)
        for point in other.mounts
        if point.listed
    ]


def parse_volumes_from(text: str) -> tuple[str, str]:
    """A container, and the mode in which to take over what it mounts.

    Raises:
        BadParameter: it has not the form ``name`` or ``name:mode``.
    """
    if not text:
        raise BadParameter("volumes-from specification cannot be an empty string")
    reference, separator, mode = text.partition(":")
    words = set(mode.split(","))
    if separator and (not _is_mode(mode) or words & (_PROPAGATIONS | {"nocopy"})):
        raise BadParameter(f"invalid mode: {mode}")
    return reference, mode


def _is_mode(mode: str) -> bool:
    words = mode.split(",") if mode else []
    return all(any(word in group for group in _MODES) for word in words) and all(
        sum(word in group for word in words) <= 1 for group in _MODES
    )


def parse_bind(text: str, driver: str = "") -> MountPoint:
    """One ``[source:]destination[:mode]``; ``driver`` is that of volumes to be made.

    Raises:
        BadParameter: it has not that form, or contradicts itself.
    """
    parts = text.split(":")
    invalid = f"invalid volume specification: '{text}'"
    if len(parts) > 3 or not parts[0] or (len(parts) == 2 and _is_mode(parts[1])):
        raise BadParameter(invalid)
    source, destination, mode = ("", *parts, "")[:3] if len(parts) == 1 else (*parts, "")[:3]
    if not _is_mode(mode):
        raise BadParameter(f"invalid mode: {mode}")
    words = set(filter(None, mode.split(",")))
    propagation = next(iter(words & _PROPAGATIONS), "")
    absolute = source.startswith("/")
    mount: dict[str, Any] = {"Source": source, "Target": destination, "ReadOnly": "ro" in words}
    mount["Type"] = "bind" if absolute else "volume"
    if propagation:
        mount["BindOptions"] = {"Propagation": propagation}
    if "nocopy" in words:
        mount["VolumeOptions"] = {"NoCopy": True}
    try:
        point = parse_mount(mount, lambda path: True).point
    except BadParameter as error:
        raise BadParameter(f"{invalid}: {error.message}") from None
    point.mode = mode
    if absolute:
        point.create_source = True
    else:
        point.driver, point.mode = driver, mode or _VOLUME_MODE
    return point


def parse_mount(mount: Mapping[str, Any], exists: Callable[[str], bool]) -> Wanted:
    """One entry of ``HostConfig.Mounts``, as ``--mount`` makes them.

    Raises:
        BadParameter: it contradicts itself, or the source of a bind does not exist.
    """
    kind, target = str(mount.get("Type") or ""), str(mount.get("Target") or "")

    def refuse(why: str) -> BadParameter:
        return BadParameter(f'invalid mount config for type "{kind}": {why}')

    if not target:
        raise refuse("field Target must not be empty")
    if why := _wrong_destination(target):
        raise refuse(why)
    parse = _KINDS.get(kind)
    if parse is None:
        raise refuse("mount type unknown")
    for name in ("BindOptions", "VolumeOptions", "TmpfsOptions", "ImageOptions"):
        if mount.get(name) is not None and name in _FOREIGN[kind]:
            raise refuse(f"field {name} must not be specified")
    try:
        return parse(mount, posixpath.normpath(target), exists)
    except BadParameter as error:
        raise refuse(error.message) from None


# Options that one kind of mount does not take. Docker lets the others pass in silence.
_FOREIGN: Mapping[str, Sequence[str]] = {
    "bind": ("VolumeOptions", "ImageOptions"),
    "volume": ("BindOptions", "ImageOptions"),
    "tmpfs": ("BindOptions", "ImageOptions"),
    "image": ("BindOptions", "VolumeOptions", "TmpfsOptions"),
}


def _wrong_destination(path: str) -> str:
    if posixpath.normpath(path) in ("/", "//"):
        return _ROOT
    return "" if path.startswith("/") else _relative(path)


def _relative(path: str) -> str:
    return f"invalid mount path: '{path}' mount path must be absolute"


def _bind(mount: Mapping[str, Any], destination: str, exists: Callable[[str], bool]) -> Wanted:
    source = str(mount.get("Source") or "")
    if not source:
        raise BadParameter("field Source must not be empty")
    options = mount.get("BindOptions") or {}
    propagation = str(options.get("Propagation") or DEFAULT_PROPAGATION)
    if propagation not in _PROPAGATIONS:
        raise BadParameter(f"invalid propagation mode: {propagation}")
    if not source.startswith("/"):
        raise BadParameter(_relative(source))
    create = bool(options.get("CreateMountpoint"))
    if not create and not exists(source):
        raise BadParameter(f"bind source path does not exist: {source}")
    return Wanted(
        MountPoint(
            type="bind",
            source=posixpath.normpath(source),
            destination=destination,
            writable=not mount.get("ReadOnly"),
            propagation=propagation,
            create_source=create,
            recursive=not options.get("NonRecursive"),
            read_only=_read_only(mount, options),
        )
    )


def _read_only(mount: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """How far down a bind is read-only: ``top``, ``all``, or as far as can be."""
    conflict = "mount options conflict: {} && BindOptions.{}"
    top, force = (options.get(f"ReadOnly{name}") for name in ("NonRecursive", "ForceRecursive"))
    for name, given in (("ReadOnlyNonRecursive", top), ("ReadOnlyForceRecursive", force)):
        if given and not mount.get("ReadOnly"):
            raise BadParameter(conflict.format("!ReadOnly", name))
    if top and force:
        raise BadParameter(conflict.format("ReadOnlyNonRecursive", "ReadOnlyForceRecursive"))
    return "top" if top else "all" if force else ""


def _volume(mount: Mapping[str, Any], destination: str, exists: Callable[[str], bool]) -> Wanted:
    name = str(mount.get("Source") or "")
    options = mount.get("VolumeOptions") or {}
    driver = options.get("DriverConfig") or {}
    subpath = str(options.get("Subpath") or "")
    if subpath and not name:
        raise BadParameter("must not set Subpath when using anonymous volumes")
    _check_subpath(subpath)
    if mount.get("ReadOnly") and not name:
        raise BadParameter("must not set ReadOnly mode when using anonymous volumes")
    point = MountPoint(
        type="volume",
        name=name,
        destination=destination,
        driver=str(driver.get("Name") or ""),
        mode=_VOLUME_MODE,
        writable=not mount.get("ReadOnly"),
        copy=not options.get("NoCopy"),
        anonymous=not name,
        subpath=subpath,
    )
    return Wanted(point, options.get("Labels"), driver.get("Options"))


def _check_subpath(path: str) -> None:
    if path.startswith("/") or posixpath.normpath(path).split("/")[0] == "..":
        raise BadParameter("subpath must be a relative path within the volume")


def _tmpfs(mount: Mapping[str, Any], destination: str, exists: Callable[[str], bool]) -> Wanted:
    if mount.get("Source"):
        raise BadParameter("field Source must not be specified")
    writable = not mount.get("ReadOnly")
    chosen = tmpfs_options(mount.get("TmpfsOptions") or {}, writable=writable)
    return Wanted(
        MountPoint(type="tmpfs", destination=destination, writable=writable, options=chosen)
    )


def _image(mount: Mapping[str, Any], destination: str, exists: Callable[[str], bool]) -> Wanted:
    name = str(mount.get("Source") or "")
    if not name:
        raise BadParameter("field Source must not be empty")
    subpath = str((mount.get("ImageOptions") or {}).get("Subpath") or "")
    _check_subpath(subpath)
    return Wanted(
        MountPoint(
            type="image", name=name, destination=destination, writable=False, subpath=subpath
        )
    )


_KINDS: Mapping[str, Callable[[Mapping[str, Any], str, Callable[[str], bool]], Wanted]] = {
    "bind": _bind,
    "volume": _volume,
    "tmpfs": _tmpfs,
    "image": _image,
}


def parse_tmpfs(destination: str, options: str) -> MountPoint:
    """One ``--tmpfs destination:options``; the options are judged when it is mounted.

    Raises:
        BadParameter: the destination is the root, or relative.
    """
    if why := _wrong_destination(destination):
        raise BadParameter(why)
    return MountPoint(
        type="tmpfs",
        destination=posixpath.normpath(destination),
        options=[option for option in options.split(",") if option],
        listed=False,
    )


def _place(point: MountPoint, context: Context, *, explicit: bool = False) -> None:
    """Settle what depends on where the source of a bind is, and on the client's age."""
    if point.type != "bind":
        return
    if not point.writable and not point.read_only and context.version < (1, 44):
        point.read_only = "top"
    root, source = context.daemon_root, Path(point.source)
    if not (root.is_relative_to(source) or source.is_relative_to(root)):
        return
    given = explicit or bool(set(point.mode.split(",")) & _PROPAGATIONS)
    if not given:
        point.propagation, point.slave_if_possible = "rslave", True
    elif point.propagation not in ("rslave", "rshared"):
        raise BadParameter(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when '
            f'mount source is within the daemon root, daemon root: "{root}", bind mount source: '
            f'"{source}", propagation: "{point.propagation}"'
        )
