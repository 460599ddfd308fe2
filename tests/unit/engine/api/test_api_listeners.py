"""Who may reach the API's socket, from its first moment on."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from wherry.engine.api.listeners import bind_unix


def test_nobody_reaches_the_socket_before_its_mode_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chmod, seen = Path.chmod, []

    def watched(path: Path, mode: int) -> None:
        seen.append(stat.S_IMODE(path.stat().st_mode))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", watched)
    former = os.umask(0)
    try:
        monkeypatch.setattr(os, "umask", None)  # it would be that of all threads
        bind_unix(tmp_path / "socket").close()
    finally:
        monkeypatch.undo()
        os.umask(former)
    assert seen == [0o600]
    assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o660
