"""The runtime against the real kernel, the real OCI runtime and the real monitor."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from runtime_bench import PATH, UNTIL_SIZE, Bench, everything, lives

from wherry.runtime import capabilities, cgroups
from wherry.runtime.rootfs import mount_overlay, mounts_below, unmount
from wherry.runtime.types import (
    Limits,
    MountSpec,
    ProcessSpec,
    RuntimeFailure,
    User,
)

pytest_plugins = ("runtime_fixtures",)
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="contained processes need root"),
    pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="needs busybox-static"),
]


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
    async with asyncio.timeout(60):
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


async def test_many_containers_at_once(bench: Bench) -> None:
    async def one(number: int) -> None:
        code, output = await bench.run("sh", "-c", f"echo {number}; exit {number}")
        assert (code, output) == (number, f"{number}\n".encode())

    await asyncio.gather(*map(one, range(1, 25)))


async def test_a_terminal_has_its_size_from_the_start(bench: Bench) -> None:
    process = ProcessSpec(
        ("stty", "size"),
        (PATH,),
        terminal=True,
        console_size=(100, 30),
        capabilities=capabilities.DEFAULT,
    )
    _, output = await bench.run(process=process)
    assert output == b"30 100\r\n"


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


async def test_what_shares_the_hosts_pids_ends_with_its_first_process(bench: Bench) -> None:
    id = await bench.create("sh", "-c", "sleep 1000 & echo $!; exit 3", pid_namespace="host")
    stream = await bench.runtime.attach(id, stdin=False)
    await bench.runtime.start(id)
    _, data = await stream.read()
    assert (await bench.ended(id)).exit_code == 3
    await bench.runtime.delete(id)
    assert not lives(int(data))


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


async def test_nothing_is_left_in_a_tree_that_another_instance_has_mounted(bench: Bench) -> None:
    other = f"{bench.name}-other"
    with cgroups.settled():
        layout = cgroups.claim_hugetlb(cgroups.discover())
        cgroups.make(layout, other)
    try:
        assert await bench.run("true") == (0, b"")
        left = [str(tree) for tree in layout.trees for _ in (tree / bench.name[1:]).glob("?" * 64)]
        assert left == []
    finally:
        assert cgroups.remove(layout, other)
        cgroups.release_hugetlb()


def test_instances_that_come_and_go_leave_each_other_their_trees() -> None:
    def live(_: int) -> bool:
        path = f"/wherry-test-{os.getpid()}-{secrets.token_hex(3)}"
        with cgroups.settled():
            layout = cgroups.claim_hugetlb(cgroups.discover())
            cgroups.make(layout, path)
        groups = [tree / path[1:] / "cgroup.procs" for tree in layout.trees]
        whole = all(group.exists() for group in groups)  # a plain directory has no such file
        assert cgroups.remove(layout, path)
        cgroups.release_hugetlb()
        return whole

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(live, range(60)))
    with cgroups.settled():  # other tests may have instances of their own
        assert cgroups.discover().tree("hugetlb") is not None or not cgroups.HUGETLB.exists()
