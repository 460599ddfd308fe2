"""Sets of files that change all at once.

The layout is the one that programs in pods rely on when they watch for changes
(pkg/volume/util/atomic_writer.go): files lie in a directory named by the time, ``..data`` points to
that directory, and each name that users see points into ``..data``. Replacing one symbolic link
replaces the set.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

DATA = "..data"
_NEW_DATA = "..data_tmp"


class InvalidPath(ValueError):
    """A file of the set would lie outside it."""


@dataclass(frozen=True, slots=True)
class File:
    """Content and permissions; ``owner`` and ``group`` None leave the file to root."""

    data: bytes
    mode: int = 0o644
    group: int | None = None
    owner: int | None = None


Payload = Mapping[str, File]
"""Files by their path within the volume."""


def write(target: Path, payload: Payload) -> bool:
    """Make directory ``target`` show ``payload`` and nothing else; whether anything changed.

    Raises:
        InvalidPath: a path is absolute, empty, or leads upwards.
    """
    for path in payload:
        check_path(path)
    current = _current(target)
    changed = current is None or not _same(current, payload)
    fresh = _write_fresh(target, payload) if changed or current is None else current
    if changed:
        link = target / _NEW_DATA
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(fresh.name)
        link.replace(target / DATA)
    # Also where nothing changed: the last time may have been cut short.
    visible = {PurePosixPath(path).parts[0] for path in payload}
    for name in visible:
        if not (target / name).is_symlink():
            (target / name).symlink_to(f"{DATA}/{name}")
    for entry in list(target.iterdir()):
        if entry.name in visible or entry.name in (DATA, fresh.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return changed


def check_path(path: str) -> None:
    """Refuse paths that a volume's items must not have.

    Raises:
        InvalidPath: see ``write``.
    """
    parts = path.split("/")
    if not path or path.startswith("/"):
        raise InvalidPath(f"invalid path: must be relative path: {path}")
    if ".." in parts:
        raise InvalidPath(f"invalid path: must not contain '..': {path}")
    if parts[0].startswith(".."):
        raise InvalidPath(f"invalid path: must not start with '..': {path}")


def _current(target: Path) -> Path | None:
    try:
        return target / (target / DATA).readlink()
    except FileNotFoundError:
        return None


def _same(directory: Path, payload: Payload) -> bool:
    found: set[str] = set()
    for root, _directories, names in os.walk(directory):
        for name in names:
            path = Path(root, name)
            relative = path.relative_to(directory).as_posix()
            file = payload.get(relative)
            if file is None or path.read_bytes() != file.data:
                return False
            if path.stat().st_mode & 0o777 != file.mode & 0o777:
                return False
            found.add(relative)
    return found == set(payload)


def _write_fresh(target: Path, payload: Payload) -> Path:
    stamp = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f")
    fresh = target / stamp
    fresh.mkdir(mode=0o755)
    for path, file in payload.items():
        place = fresh / path
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(file.data)
            if file.group is not None or file.owner is not None:
                owner = -1 if file.owner is None else file.owner
                os.fchown(descriptor, owner, -1 if file.group is None else file.group)
            os.fchmod(descriptor, file.mode)
    return fresh
