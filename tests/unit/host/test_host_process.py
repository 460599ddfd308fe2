"""Children are started, awaited, killed and let go; programs are run to their end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from descriptors import descriptors
from wherry.host.process import Child, exit_status, run


async def test_exit_code_and_outputs_arrive() -> None:
    done = await run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


async def test_input_is_read_to_its_end() -> None:
    data = os.urandom(1 << 20)
    assert (await run(["cat"], input=data)).stdout == data


async def test_without_input_there_is_none_to_wait_for() -> None:
    assert (await run(["cat"])).stdout == b""


async def test_a_program_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await run(["/does/not/exist"])


async def test_a_background_process_does_not_hold_us_up() -> None:
    async with asyncio.timeout(60):
        done = await run(["sh", "-c", "sleep 1000 & echo $!"])
    os.kill(int(done.stdout), signal.SIGKILL)


async def test_after_the_timeout_it_is_killed() -> None:
    with pytest.raises(TimeoutError):
        await run(["sleep", "100"], timeout=0.05)


async def test_a_cancelled_run_leaves_no_process(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    os.mkfifo(pid_file)
    running = asyncio.create_task(run(["sh", "-c", f"echo $$ > {pid_file}; exec sleep 100"]))
    pid = int(await asyncio.to_thread(pid_file.read_text))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_many_may_wait_and_late_ones_too() -> None:
    child = Child(["sh", "-c", "exit 4"])
    assert await asyncio.gather(child.wait(), child.wait()) == [4, 4]
    assert await child.wait() == 4
    assert not child.running


async def test_a_signal_shows_as_its_negative_number() -> None:
    child = Child(["sleep", "100"])
    child.kill(signal.SIGTERM)
    code = await child.wait()
    assert code == -signal.SIGTERM
    assert exit_status(code) == 128 + signal.SIGTERM
    child.kill()  # nothing happens


async def test_a_callback_is_told_of_the_end() -> None:
    child = Child(["true"])
    told = asyncio.Event()
    child.when_ended(told.set)
    async with asyncio.timeout(60):
        await told.wait()


async def test_only_what_is_passed_is_inherited() -> None:
    reading, writing = os.pipe()
    other, unwanted = os.pipe()
    os.set_inheritable(unwanted, True)
    script = (
        f"import os\nos.fstat({writing})\n"
        f"try: os.fstat({unwanted})\nexcept OSError: pass\nelse: raise SystemExit(9)"
    )
    try:
        child = Child([sys.executable, "-c", script], pass_fds=(writing,))
        assert await child.wait() == 0
    finally:
        for descriptor in (reading, writing, other, unwanted):
            os.close(descriptor)


async def test_a_released_child_lives_on() -> None:
    child = Child(["sleep", "100"])
    child.release()
    os.kill(child.pid, 0)
    os.kill(child.pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, child.pid, 0)


async def test_no_descriptor_is_left_behind() -> None:
    await run(["true"])
    before = descriptors()
    for _ in range(5):
        await run(["true"], input=b"x")
    assert not descriptors() - before
