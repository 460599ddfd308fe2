"""Files are whole or absent."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from wherry.host.files import write_atomic


def test_content_and_mode_are_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"one")
    write_atomic(path, b"two", mode=0o644)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "directory"
    target.mkdir()
    (target / "inside").touch()
    with pytest.raises(OSError):
        write_atomic(target, b"x")
    assert list(tmp_path.iterdir()) == [target]
