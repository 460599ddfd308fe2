"""Who ``--chown`` means: names and numbers, looked up in the image's own passwd and group."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.image.merged import find

_LIMIT = 1 << 20


def find_owner(text: str, layers: Sequence[Path]) -> tuple[int, int]:
    """The uid and gid of ``user``, ``user:group``, ``uid`` or ``uid:gid``.

    Raises:
        DockerfileError: the image has no such user or group.
    """
    prefix = "unable to convert uid/gid chown string to host mapping: "
    user, colon, group = text.partition(":")
    if not user or (colon and not group) or ":" in group:
        raise DockerfileError(f"{prefix}invalid chown string format: {text}")
    uid = gid = int(user) if user.isdigit() else -1
    if uid < 0:
        entry = _look_up(layers, "etc/passwd", user, 4)
        if entry is None:
            raise DockerfileError(f"{prefix}can't find uid for user {user}: no such user: {user}")
        uid, gid = int(entry[2]), int(entry[3])
        if not colon:
            entry = _look_up(layers, "etc/group", user, 3)
            gid = int(entry[2]) if entry is not None else gid
    if colon:
        if group.isdigit():
            return uid, int(group)
        entry = _look_up(layers, "etc/group", group, 3)
        if entry is None:
            raise DockerfileError(
                f"{prefix}can't find gid for group {group}: no such group: {group}"
            )
        gid = int(entry[2])
    return uid, gid


def _look_up(layers: Sequence[Path], path: str, name: str, fields: int) -> list[str] | None:
    found = find(layers, path.split("/"))
    if found is None:
        return None
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return None
        with Path(f"/proc/self/fd/{found}").open("rb") as file:
            text = file.read(_LIMIT).decode("utf-8", "replace")
    finally:
        os.close(found)
    for line in text.splitlines():
        parts = line.split(":")
        if parts[0] == name and len(parts) >= fields:
            return parts
    return None
