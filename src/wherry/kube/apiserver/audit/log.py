"""The log: a line of JSON an event, in a file that gives way to a new one when it is large.

Names, limits and defaults are those of kube-apiserver's ``--audit-log-*``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger(__name__)

_MEGABYTE = 1 << 20
_DAY = 86400
_QUIET = 60.0  # seconds between complaints about a log that cannot be written
_STDOUT = "-"


class AuditLog:
    """Writes events to ``path`` (``-``: standard output), for its owner alone.

    Args:
        max_size: megabytes, from which on the file is put aside; 0: never.
        max_backups: how many of those that were put aside are kept; 0: all.
        max_age: days for which they are kept; 0: for ever.
    """

    def __init__(
        self, path: str, *, max_size: int = 100, max_backups: int = 0, max_age: int = 0
    ) -> None:
        self._path = None if path == _STDOUT else Path(path)
        self._limit = max_size * _MEGABYTE
        self._max_backups = max_backups
        self._max_age = max_age
        self._size = 0
        self._descriptor = -1
        self._complained = -_QUIET  # a machine's clock may have begun just now
        self._open()

    def write(self, event: dict[str, Any]) -> None:
        """Append the event; what cannot be written is complained about, and lost."""
        line = orjson.dumps(event) + b"\n"
        try:
            if self._limit and self._size and self._size + len(line) > self._limit:
                self._rotate()
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            self._size += len(line)
        except OSError as error:
            if time.monotonic() - self._complained >= _QUIET:
                self._complained = time.monotonic()
                log.error("the audit log %s cannot be written: %s", self._path, error)

    def close(self) -> None:
        if self._path is not None and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        if self._path is None:
            self._descriptor, self._limit = sys.stdout.fileno(), 0
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        assert self._path is not None
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
        aside = self._path.with_name(f"{self._path.stem}-{moment}{self._path.suffix}")
        if not aside.exists():  # twice within a millisecond: the file grows a little longer
            self._path.rename(aside)
            os.close(self._descriptor)
            self._open()
            self._clean()

    def _clean(self) -> None:
        """Remove what was put aside too long ago, or is too much."""
        assert self._path is not None
        pattern = f"{self._path.stem}-????-??-??T??-??-??.???{self._path.suffix}"
        aside = sorted(self._path.parent.glob(pattern), reverse=True)
        oldest = time.time() - self._max_age * _DAY
        for number, path in enumerate(aside):
            with contextlib.suppress(OSError):
                late = self._max_age and path.stat().st_mtime < oldest
                if late or (self._max_backups and number >= self._max_backups):
                    path.unlink()
