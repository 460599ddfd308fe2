"""The monitor with shell scripts in place of an OCI runtime: requests, exits, daemons in turn."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from wherry.runtime.monitor import exits, protocol
from wherry.runtime.monitor.client import Holding, MonitorClient, MonitorLost
from wherry.runtime.types import RuntimeFailure

# It leaves a first process behind, with the streams it was given, that waits to be started, and
# writes its number down.
CREATE = """
mkfifo $1/start
exec 3<&0
sh -c 'read x <'$1'/start; $SCRIPT' <&3 3<&- &
echo $! >$1/pid
"""


class Place:
    """An instance's directories, its monitor, and what was heard of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run, self.exits = root / "run", root / "exits"
        self.run.mkdir()
        self.exits.mkdir()
        self.ended: dict[str, asyncio.Future[int]] = {}
        self.lost: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.placed: list[int] = []
        self.opened: list[int] = []

    def exit(self, id: str) -> asyncio.Future[int]:
        return self.ended.setdefault(id, asyncio.get_running_loop().create_future())

    def _on_exit(self, id: str, code: int, finished_at: int) -> None:
        assert exits.read(self.exits / id) == (code, finished_at)
        self.exit(id).set_result(code)

    def _on_lost(self, served: bool) -> None:
        self.lost.set_result(served)

    async def start(self) -> MonitorClient:
        return await MonitorClient.start(
            self.run, self.exits, self._on_exit, self._on_lost, self.placed.append
        )

    async def connect(self) -> MonitorClient | None:
        return await MonitorClient.connect(self.run, self._on_exit, self._on_lost)

    async def create(
        self, client: MonitorClient, id: str, script: str, *, stdin: bool = False
    ) -> Holding:
        """A first process that runs ``script``, made by another."""
        bundle = self.root / id
        bundle.mkdir()
        maker = ["/bin/sh", "-c", CREATE.replace("$SCRIPT", script), "create", str(bundle)]
        made = await client.create(id, bundle, maker, terminal=False, stdin=stdin)
        await asyncio.to_thread((bundle / "start").write_text, "now\n")
        return self.keep(made)

    def keep(self, holding: Holding) -> Holding:
        self.opened += [holding.pidfd, *holding.ends.values()]
        return holding

    async def code(self, id: str) -> int:
        return await asyncio.wait_for(self.exit(id), 60)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    yield made
    for descriptor in made.opened:
        os.close(descriptor)


@pytest.fixture
async def client(place: Place) -> AsyncIterator[MonitorClient]:
    client = await place.start()
    yield client
    if client.pid:
        await stop(place, client)


async def stop(place: Place, client: MonitorClient) -> None:
    for path in place.root.iterdir():
        await client.forget(path.name)
    await asyncio.wait_for(client.ended(), 60)


async def drained(descriptor: int) -> bytes:
    """Everything up to the end."""
    os.set_blocking(descriptor, True)
    return await asyncio.to_thread(lambda: b"".join(iter(lambda: os.read(descriptor, 65536), b"")))


async def test_a_process_runs_with_its_streams_and_its_code_arrives(
    place: Place, client: MonitorClient
) -> None:
    made = await place.create(client, "a", "cat; echo err >&2; exit 7", stdin=True)
    assert place.placed == [client.pid]
    os.write(made.ends["stdin"], b"in")
    os.close(made.ends["stdin"])
    place.opened.remove(made.ends["stdin"])
    await client.drop_stdin("a")
    assert await drained(made.ends["stdout"]) == b"in"
    assert await drained(made.ends["stderr"]) == b"err\n"
    assert await place.code("a") == 7


async def test_a_signal_is_told_as_128_and_its_number(place: Place, client: MonitorClient) -> None:
    made = await place.create(client, "a", "exec sleep 100")
    signal.pidfd_send_signal(made.pidfd, signal.SIGKILL)
    assert await place.code("a") == 137


async def test_signals_that_the_monitor_ignores_reach_what_it_starts(
    place: Place, client: MonitorClient
) -> None:
    assert await client.take("x") is None  # it has begun
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        os.kill(client.pid, number)
        made = await place.create(client, number.name, "exec sleep 100")
        signal.pidfd_send_signal(made.pidfd, number)
        assert await place.code(number.name) == 128 + number


async def test_what_a_create_complains_of_is_told(place: Place, client: MonitorClient) -> None:
    script = ["/bin/sh", "-c", "echo no such thing >&2; exit 1"]
    with pytest.raises(RuntimeFailure, match="no such thing"):
        await client.create("x", place.root, script, terminal=False, stdin=True)
    with pytest.raises(RuntimeFailure, match="no such thing"):
        await client.create("x", place.root, script, terminal=True, stdin=True)
    with pytest.raises(RuntimeFailure, match="killed by signal 9"):
        killed = ["/bin/sh", "-c", "kill -9 $$"]
        await client.create("x", place.root, killed, terminal=False, stdin=False)
    with pytest.raises(RuntimeFailure, match="said nothing"):
        await client.create("x", place.root, ["/bin/false"], terminal=False, stdin=False)
    with pytest.raises(RuntimeFailure, match="No such file"):
        await client.create("x", place.root, ["/no/such"], terminal=False, stdin=False)
    assert await client.take("x") is None


async def test_a_create_under_way_is_called_off(place: Place, client: MonitorClient) -> None:
    command = ["/bin/sleep", "100"]
    creating = asyncio.create_task(
        client.create("100", place.root, command, terminal=False, stdin=False)
    )
    await asyncio.sleep(0)
    await client.forget("100")
    with pytest.raises(RuntimeFailure, match="called off"):
        await creating


async def test_a_forgotten_one_leaves_no_exit_file(place: Place, client: MonitorClient) -> None:
    made = await place.create(client, "a", "exec sleep 100")
    await client.forget("a")
    signal.pidfd_send_signal(made.pidfd, signal.SIGKILL)
    other = await place.create(client, "b", "exit 3")
    assert await place.code("b") == 3
    assert other.ended is None
    assert os.listdir(place.exits) == ["b"]


async def test_many_at_once_are_kept_apart(place: Place, client: MonitorClient) -> None:
    async def one(number: int) -> None:
        made = await place.create(client, f"c{number}", f"echo {number}; exit {number}")
        assert await drained(made.ends["stdout"]) == f"{number}\n".encode()
        assert await place.code(f"c{number}") == number

    await asyncio.gather(*map(one, range(30)))


async def test_the_next_daemon_finds_what_runs_and_what_has_ended(
    place: Place, client: MonitorClient
) -> None:
    running = await place.create(client, "running", "read x; echo $x; exit 5", stdin=True)
    await place.create(client, "ended", "echo last words; exit 4")
    assert await place.code("ended") == 4
    client.close()

    after = await place.connect()
    assert after is not None
    assert after.pid == client.pid
    found, ended = await after.take("running"), await after.take("ended")
    assert found is not None
    assert ended is not None
    place.keep(found)
    place.keep(ended)
    assert (found.pid, found.ended) == (running.pid, None)
    assert ended.ended is not None
    assert ended.ended[0] == 4
    assert await drained(ended.ends["stdout"]) == b"last words\n"
    os.write(found.ends["stdin"], b"again\n")
    assert await drained(found.ends["stdout"]) == b"again\n"
    assert await place.code("running") == 5
    client.pid = 0
    await stop(place, after)


async def test_a_killed_monitor_is_told_and_the_next_takes_over(
    place: Place, client: MonitorClient
) -> None:
    made = await place.create(client, "a", "read x; exit 6", stdin=True)
    gate = place.root / "gate"
    os.mkfifo(gate)
    maker = ["/bin/sh", "-c", f"echo >{gate}; read x <{gate}"]
    waiting = asyncio.create_task(
        client.create("b", place.root, maker, terminal=False, stdin=False)
    )
    await asyncio.to_thread(gate.read_text)  # it is under way
    os.kill(client.pid, signal.SIGKILL)
    assert await asyncio.wait_for(place.lost, 60) is True
    with pytest.raises(MonitorLost):
        await waiting
    await asyncio.to_thread(gate.write_text, "\n")  # it outlived its monitor
    client.pid = 0

    after = await place.start()
    await after.adopt("a", {"pidfd": made.pidfd, **made.ends})
    taken = await after.take("a")
    assert taken is not None
    place.keep(taken)
    assert taken.pid == made.pid
    os.write(taken.ends["stdin"], b"\n")
    code = await place.code("a")
    assert code in (6, exits.UNKNOWN)  # as far as this kernel tells
    await stop(place, after)


async def test_a_second_daemon_takes_the_place_of_the_first(
    place: Place, client: MonitorClient, caplog: pytest.LogCaptureFixture
) -> None:
    await place.create(client, "a", "exec sleep 100")
    second = await place.connect()
    assert second is not None
    with pytest.raises(MonitorLost):
        await client.take("a")
    async with asyncio.timeout(60):
        while "another daemon" not in caplog.text:  # noqa: ASYNC110  with the connection's end
            await asyncio.sleep(0.01)
    assert not place.lost.done()
    client.pid = 0
    await stop(place, second)


async def test_it_ends_when_nobody_needs_it(place: Place) -> None:
    client = await place.start()
    assert await client.take("x") is None
    await asyncio.wait_for(client.ended(), 60)
    assert await place.connect() is None


async def test_one_that_cannot_begin_is_told_as_such(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    client = await place.start()
    assert await asyncio.wait_for(place.lost, 60) is False
    with pytest.raises(MonitorLost):
        await client.take("x")


async def test_a_full_disk_loses_no_exit_code(place: Place, client: MonitorClient) -> None:
    place.exits.rmdir()
    told: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
    client._on_exit = lambda id, code, at: told.set_result((code, at))
    await place.create(client, "a", "exit 9")
    code, _ = await asyncio.wait_for(told, 60)
    taken = await client.take("a")
    assert taken is not None
    place.keep(taken)
    assert (code, taken.ended and taken.ended[0]) == (9, 9)


def test_an_exit_file_is_whole_or_absent(tmp_path: Path) -> None:
    assert exits.read(tmp_path / "a") is None
    exits.write(str(tmp_path), "a", 3, 17)
    assert exits.read(tmp_path / "a") == (3, 17)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(("status", "code"), [(0, 0), (7 << 8, 7), (9, 137), (11 | 0x80, 139)])
def test_a_wait_status_as_a_shell_shows_it(status: int, code: int) -> None:
    assert exits.code_of(status) == code


def test_a_zombie_tells_its_code_to_others() -> None:
    with subprocess.Popen(["sh", "-c", "exit 12"]) as child:
        pidfd = os.pidfd_open(child.pid)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
        assert exits.pid_behind(pidfd) == child.pid
        assert exits.code_behind(pidfd) == 12
    assert exits.pid_behind(pidfd) == -1
    assert exits.code_behind(pidfd) in (12, exits.UNKNOWN)
    os.close(pidfd)


def test_a_message_keeps_its_fields() -> None:
    assert protocol.pack("create", 7, "", "a b\n") == b"create\x007\x00\x00a b\n"


def test_an_exit_file_that_a_crash_has_left_empty_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    assert exits.read(tmp_path / "x") is None


def _end_of_a_monitor() -> tuple[MonitorClient, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return MonitorClient(ours, lambda *_: None, lambda _: None), theirs


async def test_what_came_for_one_who_has_just_been_cancelled_is_closed() -> None:
    client, theirs = _end_of_a_monitor()
    asking = asyncio.create_task(client.take("x"))
    await asyncio.sleep(0)
    reading, writing = os.pipe()
    # Answer and cancellation come in the same turn of the loop.
    client._answered("done", "1", ["7", "pidfd"], [reading])
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)
    os.close(writing)
    client.close()
    theirs.close()


async def test_one_who_waits_to_ask_learns_that_the_monitor_is_lost() -> None:
    client, theirs = _end_of_a_monitor()
    asking = [asyncio.create_task(client.take("x" * 10_000)) for _ in range(100)]
    await asyncio.sleep(0)
    theirs.close()
    for one in asking:
        with pytest.raises(MonitorLost):
            await asyncio.wait_for(one, 60)
