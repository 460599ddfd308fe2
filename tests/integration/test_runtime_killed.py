"""The runtime when daemon, monitor or OCI runtime are killed: nothing is lost, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runtime_bench import Bench, lives, soon

from wherry.host.readiness import readable
from wherry.runtime import cgroups
from wherry.runtime.types import (
    ExitStatus,
    MountSpec,
    RuntimeFailure,
)

pytest_plugins = ("runtime_fixtures",)
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="contained processes need root"),
    pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="needs busybox-static"),
]


async def test_a_new_daemon_takes_up_what_runs_and_what_has_ended(bench: Bench) -> None:
    running = await bench.create("cat", stdin_open=True)
    ended = await bench.create("sh", "-c", "exit 4")
    never_started = await bench.create("sleep", "1000")
    unknown = await bench.create("sleep", "1000")
    for id in (running, ended, unknown):
        await bench.runtime.start(id)
    assert (await bench.ended(ended)).exit_code == 4
    pid = bench.runtime.pid(running)
    gone = "f" * 64
    found = await bench.restart([running, ended, never_started, gone])
    status = found[ended]
    assert isinstance(status, ExitStatus)
    assert status.exit_code == 4
    assert found[running] == pid
    assert found[never_started] is None
    assert found[gone] is None
    assert not (bench.tmp / "run" / unknown).exists()

    stream = await bench.runtime.attach(running)
    await stream.write(b"again\n")
    assert await stream.read() == (1, b"again\n")
    await bench.runtime.kill(running, signal.SIGKILL)
    assert (await bench.ended(running)).exit_code == 137


async def monitor_replaced(bench: Bench, former: int) -> int:
    """Wait for another monitor than ``former``, and for it to have taken over."""
    async with asyncio.timeout(60):
        while (client := bench.runtime._monitors.existing) is None or client.pid == former:
            await (bench.runtime._monitors._starting or asyncio.sleep(0.001))
    return client.pid


async def test_a_killed_monitor_is_replaced_and_nobody_notices(bench: Bench) -> None:
    script = "while read x; do echo $x; done; exit 6"
    id = await bench.create("sh", "-c", script, stdin_open=True, stdin_once=True)
    waiting = await bench.create("sh", "-c", "echo started; exit 7")
    terminal = await bench.create("sh", "-c", "read x; exit 8", terminal=True, stdin_open=True)
    stream = await bench.runtime.attach(id)
    for one in (id, terminal):
        await bench.runtime.start(one)
    await stream.write(b"before\n")
    assert await stream.read() == (1, b"before\n")
    former = bench.monitor
    os.kill(former, signal.SIGKILL)
    await stream.write(b"meanwhile\n")
    assert await stream.read() == (1, b"meanwhile\n")
    await monitor_replaced(bench, former)

    await bench.runtime.start(waiting)
    await stream.write(b"after\n")
    assert await stream.read() == (1, b"after\n")
    await stream.close_stdin()
    console = await bench.runtime.attach(terminal)
    await console.write(b"\n")
    codes = [(await bench.ended(one)).exit_code for one in (id, waiting, terminal)]
    # Whoever adopted them has buried them; what they ended with is for the kernel to tell.
    assert codes in ([6, 7, 8], [255, 255, 255])
    assert bench.logs[id].written[1] == b"before\nmeanwhile\nafter\n"
    assert bench.logs[waiting].written[1] == b"started\n"
    code, output = await bench.run("sh", "-c", "echo new; exit 3")
    assert (code, output) == (3, b"new\n")


async def test_what_ends_while_there_is_no_monitor_is_noticed(bench: Bench) -> None:
    id = await bench.create("sleep", "1000")
    await bench.runtime.start(id)
    os.kill(bench.monitor, signal.SIGKILL)
    await bench.runtime.kill(id, signal.SIGKILL)
    assert (await bench.ended(id)).exit_code in (137, 255)
    await bench.runtime.delete(id)


async def test_a_monitor_killed_in_the_midst_of_creates_leaves_nothing_of_them(
    bench: Bench,
) -> None:
    kept = await bench.create("sleep", "1000")
    await bench.runtime.start(kept)
    for delay in (0.0, 0.003, 0.008, 0.015, 0.025):
        specs = [bench.spec("sleep", "1000") for _ in range(4)]
        creating = [
            asyncio.create_task(bench.runtime.create(spec, log=bench.log(spec.id)))
            for spec in specs
        ]
        await asyncio.sleep(delay)
        former = bench.monitor
        os.kill(former, signal.SIGKILL)
        results = await asyncio.gather(*creating, return_exceptions=True)
        await monitor_replaced(bench, former)
        for spec, result in zip(specs, results, strict=True):
            if isinstance(result, int):
                await bench.runtime.delete(spec.id)
            else:
                assert isinstance(result, RuntimeFailure), result
            assert bench.logs[spec.id].closed
            await soon(lambda id=spec.id: not processes_with(id))
            for tree in cgroups.discover().trees:
                assert not (tree / bench.name.lstrip("/") / spec.id).exists()
    assert [name for name in os.listdir(bench.tmp / "run") if len(name) == 64] == [kept]
    assert bench.runtime.pid(kept)


async def test_when_daemon_and_monitor_are_killed_containers_end_as_killed(bench: Bench) -> None:
    running = await bench.create("sh", "-c", "sleep 1000 & sleep 1000")
    ended = await bench.create("sh", "-c", "exit 4")
    for id in (running, ended):
        await bench.runtime.start(id)
    assert (await bench.ended(ended)).exit_code == 4
    pid, monitor = bench.runtime.pid(running), bench.monitor
    await bench.runtime.close()
    os.kill(monitor, signal.SIGKILL)
    bench.runtime = bench.make()
    await bench.runtime.open()
    found = await bench.runtime.recover([running, ended], log=bench.log)
    codes = {id: status.exit_code for id, status in found.items() if isinstance(status, ExitStatus)}
    assert codes == {running: 137, ended: 4}
    for id in (running, ended):
        await bench.runtime.delete(id)
    assert pid is not None
    assert not lives(pid)


async def test_what_was_written_while_no_daemon_was_there_is_logged(bench: Bench) -> None:
    fifo = bench.tmp / "fifo"
    os.mkfifo(fifo)
    script = "cat /fifo; dd if=/dev/zero bs=1000 count=60 2>/dev/null; echo last >&2; exit 5"
    id = await bench.create("sh", "-c", script, mounts=(MountSpec("/fifo", str(fifo)),))
    await bench.runtime.start(id)
    await bench.runtime.close()
    await asyncio.to_thread(fifo.write_text, "go\n")
    bench.runtime = bench.make()
    await bench.runtime.open()
    found = await bench.runtime.recover([id], log=bench.log)
    status = found[id] if isinstance(found[id], ExitStatus) else await bench.ended(id)
    assert isinstance(status, ExitStatus)
    assert status.exit_code == 5
    assert bench.logs[id].written == {1: b"go\n" + bytes(60000), 2: b"last\n"}
    assert bench.logs[id].closed


async def test_input_of_one_client_ends_with_the_daemon_that_had_it(bench: Bench) -> None:
    id = await bench.create("cat", stdin_open=True, stdin_once=True)
    stream = await bench.runtime.attach(id)
    await bench.runtime.start(id)
    await stream.write(b"x\n")
    assert await stream.read() == (1, b"x\n")
    found = await bench.restart([id])
    if not isinstance(status := found[id], ExitStatus):
        status = await bench.ended(id)
    assert status.exit_code == 0


async def test_a_killed_runtime_leaves_nothing(bench: Bench) -> None:
    stop = asyncio.Event()

    def kill_makers() -> None:
        while not stop.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    words = path.read_bytes().split(b"\0")
                    if b"create" in words and os.fsencode(bench.tmp) in b"".join(words):
                        os.kill(int(path.parent.name), signal.SIGKILL)

    killing = asyncio.create_task(asyncio.to_thread(kill_makers))
    specs = [bench.spec("sleep", "1000") for _ in range(6)]
    for spec in specs:
        with contextlib.suppress(RuntimeFailure):
            await bench.runtime.create(spec, log=bench.log(spec.id))
            await bench.runtime.delete(spec.id)
    stop.set()
    await killing
    assert [name for name in os.listdir(bench.tmp / "run") if len(name) == 64] == []
    for spec in specs:
        await soon(lambda id=spec.id: not processes_with(id))
        assert bench.logs[spec.id].closed
    assert (await bench.run("true"))[0] == 0


async def test_the_monitor_ends_with_the_last_container_and_daemon(bench: Bench) -> None:
    await bench.run("true")
    pidfd = os.pidfd_open(bench.monitor)
    await bench.runtime.close()
    async with asyncio.timeout(60):
        await readable(pidfd)
    os.close(pidfd)
    await bench.runtime.open()


def start_and_kill(command: list[object], delay: float) -> None:
    """Kill a program so many seconds after its first word."""
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        time.sleep(delay)
        child.kill()


async def test_a_daemon_killed_in_the_midst_of_a_create_leaves_nothing(bench: Bench) -> None:
    script = Path(__file__).with_name("create_containers.py")
    await bench.runtime.close()
    for delay in (0.0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03):
        spec = bench.spec("sleep", "1000")
        arguments = [sys.executable, script, bench.tmp, bench.name, bench.program]
        await asyncio.to_thread(start_and_kill, [*arguments, spec.id, spec.rootfs], delay)
        bench.runtime = bench.make()
        await bench.runtime.open()
        assert await bench.runtime.recover([spec.id], log=bench.log) == {spec.id: None}
        assert [name for name in os.listdir(bench.tmp / "run") if len(name) == 64] == []
        assert os.listdir(bench.tmp / "run/oci") == []
        for tree in cgroups.discover().trees:
            assert not (tree / bench.name.lstrip("/") / spec.id).exists()
        await soon(lambda id=spec.id: not processes_with(id))
        await bench.runtime.close()
    await bench.runtime.open()


def processes_with(id: str) -> list[bytes]:
    """The command lines that name a container."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if id.encode() in (line := path.read_bytes()):
                found.append(line)
    return found


async def test_destroy_all_ends_and_removes_everything_offline(bench: Bench) -> None:
    script = "trap 'exit 9' TERM; echo ready; while true; do sleep 0.05; done"
    polite = await bench.create("sh", "-c", script)
    stubborn = await bench.create("sleep", "1000")
    for id in (polite, stubborn):
        await bench.runtime.start(id)
    await soon(lambda: bench.logs[polite].written[1])
    await bench.runtime.close()
    bench.runtime = bench.make()
    await bench.runtime.destroy_all(3, log=bench.log)
    for tree in cgroups.discover().trees:
        assert not (tree / bench.name.lstrip("/")).exists()
    bench.runtime = bench.make()
    await bench.runtime.open()
    found = await bench.runtime.recover([polite, stubborn], log=bench.log)
    codes = {id: status.exit_code for id, status in found.items() if isinstance(status, ExitStatus)}
    assert codes == {polite: 9, stubborn: 137}
