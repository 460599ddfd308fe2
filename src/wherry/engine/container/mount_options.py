"""``HostConfig.Mounts`` as JSON, and the options of a tmpfs: from the API's words and back.

An entry is kept as Docker keeps it: with the fields that it knows, without those that are empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wherry.engine.container.options import (
    BOOL,
    INT,
    OBJECT,
    STRING,
    STRING_LISTS,
    STRING_MAP,
    decode,
)
from wherry.engine.errors import BadParameter
from wherry.runtime.mount_options import BadOption, merge_tmpfs

_Fields = Mapping[str, tuple[str, Any]]

_MOUNT: _Fields = {
    "Type": (STRING, None),
    "Source": (STRING, None),
    "Target": (STRING, None),
    "ReadOnly": (BOOL, None),
    "Consistency": (STRING, None),
    "BindOptions": (OBJECT, None),
    "VolumeOptions": (OBJECT, None),
    "ImageOptions": (OBJECT, None),
    "TmpfsOptions": (OBJECT, None),
    "ClusterOptions": (OBJECT, None),
}
_NESTED: Mapping[str, _Fields] = {
    "BindOptions": {
        "Propagation": (STRING, None),
        "NonRecursive": (BOOL, None),
        "CreateMountpoint": (BOOL, None),
        "ReadOnlyNonRecursive": (BOOL, None),
        "ReadOnlyForceRecursive": (BOOL, None),
    },
    "VolumeOptions": {
        "NoCopy": (BOOL, None),
        "Labels": (STRING_MAP, None),
        "Subpath": (STRING, None),
        "DriverConfig": (OBJECT, None),
    },
    "ImageOptions": {"Subpath": (STRING, None)},
    "TmpfsOptions": {
        "SizeBytes": (INT, None),
        "Mode": (INT, None),
        "Options": (STRING_LISTS, None),
    },
    "ClusterOptions": {},
}
_DRIVER: _Fields = {"Name": (STRING, None), "Options": (STRING_MAP, None)}


def decode_mounts(mounts: Sequence[Mapping[str, Any]], path: str) -> list[dict[str, Any]]:
    """The entries as they are kept; ``path`` names where they stand.

    Raises:
        BadParameter: a value has another type.
    """
    return [_decode_mount(mount, path) for mount in mounts]


def _decode_mount(mount: Mapping[str, Any], path: str) -> dict[str, Any]:
    kept = decode(_MOUNT, dict(mount), path, complete=False)
    for name, fields in _NESTED.items():
        if name not in kept:
            continue
        inner = decode(fields, kept[name], f"{path}.{name}", complete=False)
        if "DriverConfig" in inner:
            inner["DriverConfig"] = _present(
                decode(
                    _DRIVER, inner["DriverConfig"], f"{path}.{name}.DriverConfig", complete=False
                )
            )
        kept[name] = _present(inner, "DriverConfig")
    return _present(kept, *_NESTED)


def _present(fields: Mapping[str, Any], *always: str) -> dict[str, Any]:
    """Those fields that are not empty; ``always`` are shown even if nothing is in them."""
    return {name: value for name, value in fields.items() if value or name in always}


def tmpfs_options(options: Mapping[str, Any], *, writable: bool) -> list[str]:
    """The options of ``--mount type=tmpfs`` in the words of mount(8).

    Raises:
        BadParameter: one of them is none.
    """
    chosen = [] if writable else ["ro"]
    if mode := options.get("Mode"):
        chosen.append(f"mode={mode:o}")
    if size := options.get("SizeBytes"):
        for suffix, unit in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)):
            if size % unit == 0:
                chosen.append(f"size={size // unit}{suffix}")
                break
        else:
            chosen.append(f"size={size}")
    for words in options.get("Options") or []:
        if not 1 <= len(words) <= 2:
            raise BadParameter("invalid option array length")
        chosen.append("=".join(words))
    effective_tmpfs(chosen)
    return chosen


def effective_tmpfs(options: Sequence[str]) -> list[str]:
    """``options`` over those that every tmpfs has, as it is mounted.

    Raises:
        BadParameter: one of them is none of a tmpfs.
    """
    try:
        return merge_tmpfs(["noexec", "nosuid", "nodev", "rprivate", *options])
    except BadOption as error:
        raise BadParameter(str(error)) from None
