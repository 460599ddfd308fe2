"""Pid files tell who runs; readiness arrives."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import threading
from pathlib import Path

import pytest

from wherry.host.notify import NotifyListener, claim, give_back, notify
from wherry.host.pidfile import AlreadyRunning, PidFile, running_pid
from wherry.host.tasks import run_until


def test_a_pid_file_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    held = PidFile(path)
    with pytest.raises(AlreadyRunning, match="server is already running"):
        PidFile(path)
    assert running_pid(path) is not None
    held.release()
    assert running_pid(path) is None


def test_who_only_looks_keeps_no_daemon_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    path.touch()
    with path.open() as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)
        leaving = threading.Timer(0.05, fcntl.flock, (looker, fcntl.LOCK_UN))
        leaving.start()
        held = PidFile(path)
        leaving.join()
    assert running_pid(path) == os.getpid()
    held.release()


def test_a_stale_file_deceives_nobody(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    path.write_text("1\n")
    assert running_pid(path) is None


def test_the_number_of_a_killed_daemon_is_not_its_successors(tmp_path: Path) -> None:
    path = tmp_path / "server.pid"
    killed = subprocess.Popen(["true"])
    killed.wait()
    path.write_text(f"{killed.pid}\n")
    with path.open("r+") as successor:  # it has the file, and has not yet written to it
        fcntl.flock(successor, fcntl.LOCK_EX)
        writing = threading.Timer(0.05, path.write_text, (f"{os.getpid()}\n",))
        writing.start()
        assert running_pid(path) == os.getpid()
        writing.join()


async def test_readiness_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = NotifyListener(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(listener.path))
    claim()
    assert "NOTIFY_SOCKET" not in os.environ
    notify("READY=1\nSTATUS=up")
    assert await listener.receive() == {"READY": "1", "STATUS": "up"}
    give_back()  # a daemon that begins anew
    assert os.environ["NOTIFY_SOCKET"] == str(listener.path)
    claim()
    notify("READY=1")
    assert await listener.receive() == {"READY": "1"}
    listener.close()
    notify("READY=1")  # nobody listens any more: no failure
    assert not listener.path.exists()


async def test_one_failure_ends_all() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("forever")

    async def fails() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await run_until(asyncio.Event(), forever(), fails())
    assert ended == ["forever"]


async def test_being_told_ends_all_quietly() -> None:
    stop = asyncio.Event()
    stop.set()
    await run_until(stop, asyncio.Event().wait())
