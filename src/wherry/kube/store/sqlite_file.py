"""The file of the embedded store: its tables, its lock, and what is done with it while no server
has it open: copies and restores.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from wherry.host.files import sync_directory
from wherry.kube.store.types import KeyValue, StoreInUse, StoreUnavailable

_SKIPPED = 1_000_000  # revisions left out by a restore

SCHEMA = """
CREATE TABLE IF NOT EXISTS history (
    revision        INTEGER PRIMARY KEY,
    key             TEXT NOT NULL,
    value           BLOB,              -- NULL: the key was deleted
    create_revision INTEGER NOT NULL,
    previous        INTEGER            -- the revision this one superseded; NULL: a create
);
CREATE TABLE IF NOT EXISTS current (
    key      TEXT PRIMARY KEY,
    revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
"""

FIRST_REVISION = 1
"""The revision of an empty store. Not 0: to clients, resourceVersion "0" means "any"."""

RANGE = """
SELECT h.key, h.value, h.create_revision, h.revision
FROM current AS c JOIN history AS h ON h.revision = c.revision
WHERE c.key >= ? AND c.key < ? ORDER BY c.key
"""

STATE = """
SELECT max(ifnull((SELECT max(revision) FROM history), 0), value), value
FROM meta WHERE name = 'compacted'
"""


def snapshot(path: Path) -> tuple[Sequence[KeyValue], int]:
    """All that the file holds, and at which revision, also while a server writes to it.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            db.execute("BEGIN")
            rows = db.execute(RANGE, ("", behind(""))).fetchall()
            revision: int = db.execute(STATE).fetchone()[0]
        finally:
            db.close()
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the store {path} cannot be read: {error}") from error
    return [KeyValue(*row) for row in rows], revision


def restore(path: Path, keys: Sequence[KeyValue], revision: int) -> None:
    """Put a file that holds ``keys``, as they were at ``revision``, in the place of ``path``.

    Revisions go on well behind any that clients may have seen since: their watches then end with
    410 and they list anew, rather than to take other changes for those they know.

    Raises:
        StoreInUse: a server has the file open.
        StoreUnavailable: the new file cannot be written; the old one is untouched.
    """
    held = lock(path)
    fresh = path.with_name(f"{path.name}.restoring")
    try:
        fresh.unlink(missing_ok=True)
        if path.exists():
            revision = max(revision, _folded(path))
        _write_file(fresh, keys, revision + _SKIPPED)
        fresh.replace(path)
        sync_directory(path.parent)
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"the store {path} cannot be restored: {error}") from error
    finally:
        held.close()


def _folded(path: Path) -> int:
    """Take the log into the file, which is then all there is; the revision it is at."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = DELETE")
        revision: int = db.execute(STATE).fetchone()[0]
        return revision
    finally:
        db.close()


def _write_file(path: Path, keys: Sequence[KeyValue], revision: int) -> None:
    numbered: list[tuple[int, KeyValue]] = []
    for kv in sorted(keys, key=lambda kv: kv.mod_revision):  # in etcd several may share one
        last = numbered[-1][0] if numbered else FIRST_REVISION
        numbered.append((max(kv.mod_revision, last + 1), kv))
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(SCHEMA)
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO history VALUES (?, ?, ?, ?, NULL)",
            ((at, kv.key, kv.value, min(at, kv.create_revision)) for at, kv in numbered),
        )
        db.executemany("INSERT INTO current VALUES (?, ?)", ((kv.key, at) for at, kv in numbered))
        db.execute("INSERT INTO meta VALUES ('compacted', ?)", (revision,))
        db.execute("COMMIT")
    finally:
        db.close()
    path.chmod(0o600)


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_autocheckpoint = 4000")
    db.execute("PRAGMA journal_size_limit = 33554432")
    return db


def has_space(path: Path) -> bool:
    """Whether the disk has room for what SQLite makes when it opens a file."""
    return shutil.disk_usage(path.parent).free >= 1 << 16


def lock(path: Path) -> IO[str]:
    """Hold ``<path>.lock`` as long as the process lives; the kernel lets go even after kill -9."""
    file = Path(f"{path}.lock").open("a+")  # noqa: SIM115 - held until close
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise StoreInUse(
            f"the store {path} is in use by process {holder or 'unknown'}; "
            "one data directory serves one server at a time"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def behind(prefix: str) -> str:
    """The least string greater than all with this prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else "\U0010ffff"
