import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from wherry.kube.ingress import nginx, orphans
from wherry.kube.ingress.nginx import Nginx

OBEYS = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGQUIT})
print(flush=True)
signal.sigwait({signal.SIGQUIT})
"""
IGNORES = """
import signal
signal.signal(signal.SIGQUIT, signal.SIG_IGN)
print(flush=True)
signal.pause()
"""


NAMELESS = """
import signal
from pathlib import Path
Path("/proc/self/comm").write_bytes(b"\\xff")
print(flush=True)
signal.pause()
"""


async def running(directory: Path, script: str) -> asyncio.subprocess.Process:
    """A process that passes for the nginx of ``directory``, and heeds its signals by now."""
    argv = (sys.executable, "-S", "-c", script, str(directory))
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    (directory / "nginx.pid").write_text(f"{process.pid}\n")
    return process


async def test_one_that_obeys_has_ended_when_stop_returns(tmp_path: Path) -> None:
    process = await running(tmp_path, OBEYS)
    await Nginx("nginx", tmp_path).stop()
    assert await process.wait() == 0


async def test_one_that_does_not_end_in_time_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nginx, "_STOP_TIMEOUT", 0.05)
    process = await running(tmp_path, IGNORES)
    await Nginx("nginx", tmp_path).stop()
    assert await process.wait() == -signal.SIGTERM


async def test_nothing_is_done_to_a_process_that_is_no_nginx_of_the_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / "nginx.pid").write_text(f"{os.getpid()}\n")
    assert Nginx("nginx", tmp_path).pid is None
    await Nginx("nginx", tmp_path).stop()


async def test_without_one_there_is_nothing_to_stop(tmp_path: Path) -> None:
    await Nginx("nginx", tmp_path).stop()


async def test_processes_of_others_may_call_themselves_anything(tmp_path: Path) -> None:
    process = await running(tmp_path, NAMELESS)
    try:
        assert orphans.find(tmp_path) == []
    finally:
        process.kill()
        await process.wait()
