"""Devices of the host that a container is given, and rules for those that it makes itself."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wherry.engine.errors import BadParameter

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")


def check(host: Mapping[str, Any]) -> None:
    """Judge the rules, whose form clients may not have looked at.

    Raises:
        BadParameter: one has not the form ``c 1:3 rwm``.
    """
    for rule in host["DeviceCgroupRules"] or ():
        if not _RULE.fullmatch(rule):
            raise BadParameter(f"invalid device cgroup rule format: '{rule}'")


def refuse_requests(host: Mapping[str, Any]) -> None:
    """Refuse what only a driver could give, as there is none.

    Raises:
        BadParameter: there is such a request.
    """
    for request in host["DeviceRequests"] or ():
        raise BadParameter(
            f'could not select device driver "{request.get("Driver") or ""}" '
            f"with capabilities: {_go_lists(request.get('Capabilities') or [])}"
        )


def _go_lists(value: Any) -> str:
    """Lists as Go prints them: blanks between the elements, no quotes."""
    if isinstance(value, list):
        return "[" + " ".join(map(_go_lists, value)) + "]"
    return str(value)


def rules(lines: Sequence[str] | None) -> list[dict[str, object]]:
    """``--device-cgroup-rule`` values as the OCI specification has them."""
    found: list[dict[str, object]] = []
    for line in lines or ():
        if match := _RULE.fullmatch(line):
            rule: dict[str, object] = {"allow": True, "type": match[1], "access": match[4]}
            for name, number in (("major", match[2]), ("minor", match[3])):
                if number != "*":
                    rule[name] = int(number)
            found.append(rule)
    return found


def devices(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """``--device`` values as ``linux.devices`` has them, each with its ``access``.

    A directory stands for all devices in it.

    Raises:
        BadParameter: the host has no such device.
    """
    found: list[dict[str, object]] = []
    for entry in entries:
        source = str(entry.get("PathOnHost") or "")
        target = str(entry.get("PathInContainer") or source)
        access = str(entry.get("CgroupPermissions") or "rwm")
        found += _devices(source, target, access)
    return found


def _devices(source: str, target: str, access: str) -> list[dict[str, object]]:
    refusal = f'error gathering device information while adding custom device "{source}": '
    path = Path(source).resolve()
    try:
        status = path.stat()
    except OSError as error:
        raise BadParameter(refusal + (error.strerror or "").lower()) from None
    if (device := _device(status, target, access)) is not None:
        return [device]
    below = list(_below(path, target, access)) if path.is_dir() else []
    if not below:
        raise BadParameter(refusal + "not a device node")
    return below


def _below(directory: Path, target: str, access: str) -> Iterator[dict[str, object]]:
    for current, _, names in os.walk(directory):
        for name in names:
            path = Path(current, name)
            inside = str(Path(target, path.relative_to(directory)))
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue  # a terminal that somebody has just closed
            if (device := _device(status, inside, access)) is not None:
                yield device


def _device(status: os.stat_result, target: str, access: str) -> dict[str, object] | None:
    if stat.S_ISBLK(status.st_mode):
        kind = "b"
    elif stat.S_ISCHR(status.st_mode):
        kind = "c"
    else:
        return None
    return {
        "path": target,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "access": access,
    }
