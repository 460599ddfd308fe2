"""The runtime against the real kernel, the real OCI runtime and the real monitor."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from wherry.runtime import capabilities, cgroups, seccomp
from wherry.runtime.rootfs import mount_overlay, mounts_below, unmount
from wherry.runtime.service import Runtime
from wherry.runtime.types import (
    ContainerSpec,
    ExitStatus,
    Limits,
    MountSpec,
    ProcessSpec,
    RuntimeFailure,
    User,
)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="contained processes need root"),
    pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="needs busybox-static"),
]

APPLETS = ("sh", "true", "cat", "sleep", "echo", "ls", "id", "wc", "stty", "dd", "test", "ps")
PATH = "PATH=/bin"
# A new size reaches a terminal beside what is typed, not behind it.
UNTIL_SIZE = 'while [ "$(stty size 2>/dev/null)" != "30 100" ]; do sleep 0.01; done'


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layer")
    for name in ("bin", "tmp", "proc", "sys", "dev", "etc"):
        (root / name).mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/plain").write_text("no program\n")
    return root


class Log:
    """What a container's log is given."""

    def __init__(self) -> None:
        self.written: dict[int, bytes] = {1: b"", 2: b""}
        self.closed = False
        self.reopened = 0

    async def write(self, stream: int, data: bytes) -> None:
        assert not self.closed
        self.written[stream] += data

    async def close(self) -> None:
        assert not self.closed
        self.closed = True

    async def reopen(self) -> None:
        self.reopened += 1


class Bench:
    """One runtime with what its tests need around it."""

    def __init__(self, tmp: Path, layer: Path, program: str) -> None:
        self.tmp = tmp
        self.layer = layer
        self.name = f"/wherry-test-{os.getpid()}-{secrets.token_hex(3)}"
        self.program = program
        self.exits: dict[str, asyncio.Future[ExitStatus]] = {}
        self.logs: dict[str, Log] = {}
        self.runtime = self.make()

    def make(self) -> Runtime:
        return Runtime(
            state_dir=self.tmp / "state",
            run_dir=self.tmp / "run",
            cgroup_root=self.name,
            on_exit=lambda status: self.exit(status.id).set_result(status),
            program=self.program,
        )

    def exit(self, id: str) -> asyncio.Future[ExitStatus]:
        if id not in self.exits:
            self.exits[id] = asyncio.get_running_loop().create_future()
        return self.exits[id]

    async def ended(self, id: str) -> ExitStatus:
        async with asyncio.timeout(20):
            return await self.exit(id)

    def spec(self, *args: str, terminal: bool = False, **options: object) -> ContainerSpec:
        id = secrets.token_hex(32)
        target = self.tmp / "rootfs" / id
        upper, work = self.tmp / "upper" / id, self.tmp / "work" / id
        for path in (target, upper, work):
            path.mkdir(parents=True)
        mount_overlay([self.layer], upper, work, target)
        process = ProcessSpec(
            args=args,
            env=(PATH,),
            terminal=terminal,
            capabilities=capabilities.DEFAULT,
        )
        fields: dict[str, object] = {
            "id": id,
            "rootfs": target,
            "process": process,
            "hostname": id[:12],
            "seccomp": seccomp.default_profile(),
        }
        return ContainerSpec(**(fields | options))  # type: ignore[arg-type]

    async def create(self, *args: str, **options: object) -> str:
        spec = self.spec(*args, **options)  # type: ignore[arg-type]
        await self.runtime.create(spec, log=self.log(spec.id))
        return spec.id

    def log(self, id: str) -> Log:
        """A new log for a container; ``logs`` has the last one."""
        log = self.logs[id] = Log()
        return log

    async def restart(self, ids: Iterable[str]) -> Mapping[str, int | ExitStatus | None]:
        """The daemon ends and another one starts and takes ``ids`` up."""
        await self.runtime.close()
        self.runtime = self.make()
        await self.runtime.open()
        return await self.runtime.recover(ids, log=self.log)

    @property
    def monitor(self) -> int:
        """The monitor's pid."""
        client = self.runtime._monitors.existing
        assert client is not None
        return client.pid

    async def run(self, *args: str, **options: object) -> tuple[int, bytes]:
        """Exit code and output."""
        id = await self.create(*args, **options)
        stream = await self.runtime.attach(id, stdin=False)
        await self.runtime.start(id)
        output = await everything(stream)
        status = await self.ended(id)
        await self.runtime.delete(id)
        return status.exit_code, b"".join(output.values())


async def everything(stream) -> dict[int, bytes]:
    """All output until its end, by stream."""
    parts: dict[int, list[bytes]] = {1: [], 2: []}
    async with asyncio.timeout(60):
        while (piece := await stream.read()) != (0, b""):
            parts[piece[0]].append(piece[1])
    return {number: b"".join(pieces) for number, pieces in parts.items()}


@pytest.fixture(params=["crun", "runc"])
def program(request: pytest.FixtureRequest) -> Iterator[str]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    yield request.param


@pytest.fixture
async def bench(tmp_path: Path, layer: Path, program: str) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, layer, program)
    await bench.runtime.open()
    yield bench
    await bench.runtime.close()
    bench.runtime = bench.make()
    await bench.runtime.destroy_all(0, log=bench.log)
    for point in mounts_below(tmp_path):
        unmount(point)
    for tree in cgroups.discover().trees:
        assert not (tree / bench.name.lstrip("/")).exists()


async def test_a_program_runs_and_its_exit_code_arrives(bench: Bench) -> None:
    code, output = await bench.run("sh", "-c", "echo hello; exit 7")
    assert (code, output) == (7, b"hello\n")


async def test_output_is_logged_and_the_log_is_whole_when_the_end_is_told(bench: Bench) -> None:
    id = await bench.create("sh", "-c", "dd if=/dev/zero bs=1M count=8 2>/dev/null; echo err >&2")
    await bench.runtime.start(id)
    await bench.ended(id)
    assert bench.logs[id].written == {1: bytes(8 << 20), 2: b"err\n"}
    assert bench.logs[id].closed


async def test_streams_are_told_apart_and_nothing_is_missed(bench: Bench) -> None:
    id = await bench.create("sh", "-c", "echo out; echo err >&2")
    stream = await bench.runtime.attach(id, stdin=False)
    await bench.runtime.start(id)
    assert await everything(stream) == {1: b"out\n", 2: b"err\n"}
    assert await stream.wait() == 0
    await stream.close()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("nope",), 127, 'exec: "nope": executable file not found in $PATH'),
        (("/nope",), 127, 'exec: "/nope": stat /nope: no such file or directory'),
        (("/etc",), 126, 'exec: "/etc": is a directory'),
        (("/etc/plain",), 126, 'exec: "/etc/plain": permission denied'),
    ],
)
async def test_a_command_that_cannot_run_is_refused_and_leaves_nothing(
    bench: Bench, args: tuple[str, ...], code: int, message: str
) -> None:
    await bench.run("true")  # the monitor has answered: all descriptors for it are open
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeFailure) as caught:
        id = await bench.create(*args)
        await bench.runtime.start(id)
    assert caught.value.exit_code == code
    assert caught.value.message.endswith(message)
    assert [name for name in os.listdir(bench.tmp / "run") if len(name) == 64] == []
    assert set(os.listdir("/proc/self/fd")) <= before


async def test_signals_end_it_with_128_and_their_number(bench: Bench) -> None:
    id = await bench.create("sleep", "1000")
    await bench.runtime.start(id)
    assert bench.runtime.pid(id)
    await bench.runtime.kill(id, signal.SIGKILL)
    assert (await bench.ended(id)).exit_code == 137
    assert bench.runtime.pid(id) is None


async def test_delete_ends_what_runs_and_is_idempotent(bench: Bench) -> None:
    id = await bench.create("sh", "-c", "sleep 1000 & sleep 1000")
    await bench.runtime.start(id)
    await bench.runtime.delete(id)
    assert (await bench.ended(id)).exit_code == 137
    await bench.runtime.delete(id)
    await bench.runtime.delete("0" * 64)
    assert [name for name in os.listdir(bench.tmp / "run") if len(name) == 64] == []
    assert os.listdir(bench.tmp / "run/oci") == []


async def test_input_goes_in_and_its_end_is_passed_on(bench: Bench) -> None:
    id = await bench.create("cat", stdin_open=True, stdin_once=True)
    stream = await bench.runtime.attach(id)
    await bench.runtime.start(id)
    await stream.write(b"one\n")
    assert await stream.read() == (1, b"one\n")
    await stream.close_stdin()
    assert await stream.read() == (0, b"")
    assert (await bench.ended(id)).exit_code == 0


async def test_input_that_is_not_for_one_client_survives_it(bench: Bench) -> None:
    id = await bench.create("cat", stdin_open=True)
    await bench.runtime.start(id)
    for line in (b"first\n", b"second\n"):
        stream = await bench.runtime.attach(id)
        await stream.write(line)
        assert await stream.read() == (1, line)
        await stream.close_stdin()
        await stream.close()
    assert bench.runtime.pid(id)


async def test_a_client_without_input_does_not_end_that_of_another(bench: Bench) -> None:
    id = await bench.create("cat", stdin_open=True, stdin_once=True)
    onlooker = await bench.runtime.attach(id, stdin=False)
    stream = await bench.runtime.attach(id)
    await bench.runtime.start(id)
    await onlooker.close()
    await stream.write(b"still here\n")
    assert await stream.read() == (1, b"still here\n")


async def test_a_large_stream_passes_whole_both_ways(bench: Bench) -> None:
    id = await bench.create("cat", stdin_open=True, stdin_once=True)
    stream = await bench.runtime.attach(id)
    await bench.runtime.start(id)
    block = os.urandom(1 << 20)
    sent, received = hashlib.sha256(), hashlib.sha256()

    async def feed() -> None:
        for _ in range(32):
            sent.update(block)
            await stream.write(block)
        await stream.close_stdin()

    feeding = asyncio.create_task(feed())
    while (piece := await stream.read()) != (0, b""):
        received.update(piece[1])
    await feeding
    assert sent.hexdigest() == received.hexdigest()


async def test_a_client_that_does_not_read_does_not_hide_the_end(bench: Bench) -> None:
    id = await bench.create("sh", "-c", "dd if=/dev/zero bs=1M count=64; exit 3")
    stream = await bench.runtime.attach(id, stdin=False)
    await bench.runtime.start(id)
    await stream.read()
    await bench.runtime.kill(id, signal.SIGKILL)
    assert (await bench.ended(id)).exit_code == 137
    await everything(stream)


async def test_a_terminal_has_a_size_and_echoes(bench: Bench) -> None:
    id = await bench.create(
        "sh", "-c", f"read x; {UNTIL_SIZE}; stty size", terminal=True, stdin_open=True
    )
    stream = await bench.runtime.attach(id)
    await bench.runtime.start(id)
    await stream.resize(100, 30)
    await stream.write(b"go\n")
    output = (await everything(stream))[1]
    assert b"go\r\n" in output
    assert b"30 100\r\n" in output


async def test_exec_runs_beside_it(bench: Bench) -> None:
    id = await bench.create("sleep", "1000")
    await bench.runtime.start(id)
    spec = ProcessSpec(args=("sh", "-c", "echo out; echo err >&2; exit 5"), env=(PATH,))
    process = await bench.runtime.exec(id, spec, stdin=False)
    assert process.pid > 0
    assert await everything(process) == {1: b"out\n", 2: b"err\n"}
    assert await process.wait() == 5
    await process.close()


async def test_exec_has_input_and_its_end(bench: Bench) -> None:
    id = await bench.create("sleep", "1000")
    await bench.runtime.start(id)
    process = await bench.runtime.exec(id, ProcessSpec(("cat",), (PATH,)), stdin=True)
    data = os.urandom(1 << 22)

    async def feed() -> None:
        await process.write(data)
        await process.close_stdin()

    feeding = asyncio.create_task(feed())
    assert (await everything(process))[1] == data
    await feeding
    assert await process.wait() == 0


async def test_exec_on_a_terminal(bench: Bench) -> None:
    id = await bench.create("sleep", "1000")
    await bench.runtime.start(id)
    command = f"read x; {UNTIL_SIZE}; stty size; test -t 1"
    spec = ProcessSpec(("sh", "-c", command), (PATH,), terminal=True)
    process = await bench.runtime.exec(id, spec, stdin=True)
    await process.resize(100, 30)
    await process.write(b"go\n")
    assert b"30 100\r\n" in (await everything(process))[1]
    assert await process.wait() == 0
    await process.close()


async def test_exec_does_not_wait_for_what_stays_in_the_background(bench: Bench) -> None:
    if bench.program == "runc":
        pytest.skip("runc copies the streams itself and waits for their end")
    id = await bench.create("sleep", "1000")
    await bench.runtime.start(id)
    spec = ProcessSpec(("sh", "-c", "sleep 1000 & echo done"), (PATH,))
    process = await bench.runtime.exec(id, spec, stdin=False)
    async with asyncio.timeout(10):
        assert (await everything(process))[1] == b"done\n"
    await process.close()


@pytest.mark.parametrize(
    ("args", "cwd", "code", "message"),
    [
        (("nope",), "/", 127, 'exec: "nope": executable file not found in $PATH'),
        (("/etc",), "/", 126, 'exec: "/etc": is a directory'),
        (("/etc/plain",), "/", 126, 'exec: "/etc/plain": permission denied'),
        (("true",), "/none", 127, "no such file or directory"),
    ],
)
async def test_exec_says_why_it_cannot(
    bench: Bench, args: tuple[str, ...], cwd: str, code: int, message: str
) -> None:
    id = await bench.create("sleep", "1000")
    await bench.runtime.start(id)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime.exec(id, ProcessSpec(args, (PATH,), cwd), stdin=True)
    assert caught.value.exit_code == code
    assert message in caught.value.message
    assert set(os.listdir("/proc/self/fd")) <= before


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


async def test_limits_are_set_changed_and_counted(bench: Bench) -> None:
    limits = Limits(memory=64 << 20, memory_swap=64 << 20, cpu_shares=512, pids=50)
    id = await bench.create("sleep", "1000", limits=limits, cgroup_parent="kubepods/pod1")
    await bench.runtime.start(id)
    usage = await bench.runtime.usage(id)
    assert usage.memory_limit == 64 << 20
    assert usage.pids >= 1
    assert usage.memory > 0
    assert await bench.runtime.processes(id) == [bench.runtime.pid(id)]
    await bench.runtime.update(id, Limits(memory=128 << 20, memory_swap=128 << 20))
    assert (await bench.runtime.usage(id)).memory_limit == 128 << 20
    await bench.runtime.delete(id)
    for tree in cgroups.discover().trees:
        assert not (tree / bench.name.lstrip("/") / "kubepods").exists()


async def test_too_much_memory_is_seen_as_such(bench: Bench) -> None:
    limits = Limits(memory=16 << 20, memory_swap=16 << 20)
    command = "x=x; while true; do x=$x$x; done"
    id = await bench.create("sh", "-c", command, limits=limits)
    await bench.runtime.start(id)
    status = await bench.ended(id)
    assert (status.exit_code, status.oom_killed) == (137, True)


async def test_a_paused_container_stands_still_and_can_be_killed(bench: Bench) -> None:
    id = await bench.create("cat", stdin_open=True)
    stream = await bench.runtime.attach(id)
    await bench.runtime.start(id)
    await bench.runtime.pause(id)
    await stream.write(b"x\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await stream.read()
    await bench.runtime.resume(id)
    assert await stream.read() == (1, b"x\n")
    await bench.runtime.pause(id)
    await bench.runtime.delete(id)
    assert (await bench.ended(id)).exit_code == 137


async def test_it_is_shut_in(bench: Bench) -> None:
    command = "echo x >/proc/sys/kernel/hostname; ps | wc -l"
    code, output = await bench.run("sh", "-c", command)
    assert code == 0
    assert b"Read-only file system" in output
    assert int(output.split()[0]) < 8


async def test_no_descriptor_of_the_daemon_gets_in(bench: Bench) -> None:
    with open("/etc/passwd", "rb") as leak:
        os.set_inheritable(leak.fileno(), True)
        _, output = await bench.run("ls", "/proc/self/fd")
    assert sorted(map(int, output.split())) == [0, 1, 2, 3]


async def test_exec_passes_no_descriptor_either(bench: Bench) -> None:
    id = await bench.create("sleep", "1000")
    await bench.runtime.start(id)
    process = await bench.runtime.exec(
        id, ProcessSpec(("ls", "/proc/self/fd"), (PATH,)), stdin=True
    )
    assert sorted(map(int, (await everything(process))[1].split())) == [0, 1, 2, 3]
    await process.close()


async def test_a_users_numbers_mounts_and_sysctls_apply(bench: Bench) -> None:
    source = bench.tmp / "data"
    source.mkdir()
    (source / "file").write_text("from the host")
    process = ProcessSpec(
        ("sh", "-c", "id; cat /data/file /proc/sys/net/ipv4/ip_unprivileged_port_start"),
        (PATH,),
        user=User(1000, 1001, (1002,)),
    )
    _, output = await bench.run(
        process=process, mounts=(MountSpec("/data", str(source), options=("ro",)),)
    )
    assert output == b"uid=1000 gid=1001 groups=1001,1002\nfrom the host0\n" or (
        b"uid=1000 gid=1001" in output and b"from the host0\n" in output
    )


async def test_a_privileged_container_sees_devices_and_may_write_sysctls(bench: Bench) -> None:
    process = ProcessSpec(
        ("sh", "-c", "echo renamed >/proc/sys/kernel/hostname && cat /proc/sys/kernel/hostname"),
        (PATH,),
        capabilities=capabilities.ALL,
    )
    code, output = await bench.run(process=process, privileged=True, seccomp=None)
    assert (code, output) == (0, b"renamed\n")


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
        assert processes_with(spec.id) == []
        await bench.runtime.close()
    await bench.runtime.open()


def lives(pid: int) -> bool:
    """Whether a process runs; whoever adopted it may take its time to bury it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_with(id: str) -> list[bytes]:
    """The command lines that name a container."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if id.encode() in (line := path.read_bytes()):
                found.append(line)
    return found


async def test_what_shares_the_hosts_pids_ends_with_its_first_process(bench: Bench) -> None:
    id = await bench.create("sh", "-c", "sleep 1000 & echo $!; exit 3", pid_namespace="host")
    stream = await bench.runtime.attach(id, stdin=False)
    await bench.runtime.start(id)
    _, data = await stream.read()
    assert (await bench.ended(id)).exit_code == 3
    await bench.runtime.delete(id)
    assert not lives(int(data))


async def test_a_log_is_reopened_while_its_container_runs(bench: Bench) -> None:
    id = await bench.create("sleep", "1000")
    await bench.runtime.start(id)
    await bench.runtime.reopen_log(id)
    assert bench.logs[id].reopened == 1
    await bench.runtime.delete(id)
    with pytest.raises(RuntimeFailure):
        await bench.runtime.reopen_log(id)


async def test_destroy_all_ends_and_removes_everything_offline(bench: Bench) -> None:
    polite = await bench.create("sh", "-c", "trap 'exit 9' TERM; while true; do sleep 0.05; done")
    stubborn = await bench.create("sleep", "1000")
    for id in (polite, stubborn):
        await bench.runtime.start(id)
    await asyncio.sleep(0.2)  # until the shell has set its trap
    await bench.runtime.close()
    bench.runtime = bench.make()
    await bench.runtime.destroy_all(1, log=bench.log)
    for tree in cgroups.discover().trees:
        assert not (tree / bench.name.lstrip("/")).exists()
    bench.runtime = bench.make()
    await bench.runtime.open()
    found = await bench.runtime.recover([polite, stubborn], log=bench.log)
    assert [status.exit_code for status in found.values() if isinstance(status, ExitStatus)] == [
        9,
        137,
    ]


async def test_more_than_a_hundred_layers_mount(tmp_path: Path) -> None:
    lower = []
    for number in range(150):
        path = tmp_path / "a-rather-long-name-for-a-directory" / f"{number:03}"
        path.mkdir(parents=True)
        (path / f"file{number}").touch()
        lower.append(path)
    target, upper, work = (tmp_path / name for name in ("target", "upper", "work"))
    for path in (target, upper, work):
        path.mkdir()
    mount_overlay(lower, upper, work, target)
    try:
        assert len(list(target.iterdir())) == 150
        assert mounts_below(tmp_path) == [target]
    finally:
        unmount(target)
    unmount(target)
    assert mounts_below(tmp_path) == []
