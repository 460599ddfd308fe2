"""Limits and what is used of them, by the real client."""

import http.client
import json
import os
import socket
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from docker_harness import until

pytest_plugins = ("docker_fixtures",)

V1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()
CPUS = len(os.sched_getaffinity(0))


def run(engine, name, *options, command=("sleep", "100")):
    return engine.docker("run", "-d", "--name", name, *options, "busybox", *command).out.strip()


def group(engine, name, controller, v1_file, v2_file=""):
    """What the kernel has in a file of the container's cgroup."""
    pid = engine.inspect(name, "{{.State.Pid}}")
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if V1 and controller in controllers.split(","):
            file = Path("/sys/fs/cgroup", controller) / path[1:] / v1_file
            return file.read_text().strip()
        if not V1 and not controllers:
            return Path("/sys/fs/cgroup", path[1:], v2_file).read_text().strip()
    raise AssertionError(controller)


def stats(engine, name, query="stream=false"):
    return engine.request("GET", f"/containers/{name}/stats?{query}").body


def test_limits_reach_the_kernel(engine):
    run(
        engine,
        "web",
        *("--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m"),
        *("--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0", "--cpuset-mems", "0"),
        *("--pids-limit", "50"),
    )
    assert group(engine, "web", "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert group(engine, "web", "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    assert group(engine, "web", "pids", "pids.max", "pids.max") == "50"
    if V1:
        assert group(engine, "web", "memory", "memory.memsw.limit_in_bytes") == str(96 << 20)
        assert group(engine, "web", "memory", "memory.soft_limit_in_bytes") == str(32 << 20)
        assert group(engine, "web", "cpu", "cpu.cfs_quota_us") == "50000"
        assert group(engine, "web", "cpu", "cpu.shares") == "512"
    else:
        assert group(engine, "web", "cpu", "", "cpu.max") == "50000 100000"
    shown = engine.inspect("web")["HostConfig"]
    assert shown["NanoCpus"] == 500_000_000
    assert shown["MemorySwap"] == 96 << 20


def test_swap_may_be_unlimited_or_none(engine):
    run(engine, "free", "--memory", "64m", "--memory-swap", "-1")
    run(engine, "none", "--memory", "64m", "--memory-swap", "64m")
    if V1:
        file = ("memory", "memory.memsw.limit_in_bytes")
        assert int(group(engine, "free", *file)) > 1 << 50
        assert int(group(engine, "none", *file)) == 64 << 20


@pytest.mark.skipif(not V1, reason="cgroup v1 only")
def test_limits_of_v1(engine):
    options = ("--memory", "64m", "--memory-swappiness", "7", "--oom-kill-disable")
    run(engine, "web", *options)
    assert group(engine, "web", "memory", "memory.swappiness") == "7"
    assert "oom_kill_disable 1" in group(engine, "web", "memory", "memory.oom_control")


def block_device():
    """Some whole disk of the host."""
    for entry in Path("/sys/block").iterdir():
        node = Path("/dev", entry.name)
        if node.exists() and not entry.name.startswith(("loop", "ram", "zram", "sr")):
            return str(node), (entry / "dev").read_text().strip()
    pytest.skip("no disk")


def test_disks_are_throttled(engine):
    device, numbers = block_device()
    run(
        engine,
        "web",
        *("--device-read-bps", f"{device}:1mb", "--device-write-bps", f"{device}:2mb"),
        *("--device-read-iops", f"{device}:100", "--device-write-iops", f"{device}:200"),
    )
    if V1:
        for kind, value in (
            *(("read_bps", 1 << 20), ("write_bps", 2 << 20)),
            *(("read_iops", 100), ("write_iops", 200)),
        ):
            file = f"blkio.throttle.{kind}_device"
            assert group(engine, "web", "blkio", file) == f"{numbers} {value}"
    else:
        shown = group(engine, "web", "io", "", "io.max")
        assert shown == f"{numbers} rbps={1 << 20} wbps={2 << 20} riops=100 wiops=200"


def test_a_disk_that_is_not_there_is_told(engine):
    done = engine.docker("run", "--rm", "--device-read-bps", "/dev/nope:1mb", "busybox", ok=False)
    assert "stat /dev/nope: no such file or directory" in done.err


def test_weights_are_set_or_warned_of(engine):
    done = engine.docker("create", "--name", "web", "--blkio-weight", "300", "busybox")
    weight = engine.inspect("web", "{{.HostConfig.BlkioWeight}}")
    assert ("Weight discarded." in done.err) == (weight == "0")
    engine.docker("start", "web")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--memory", "1m"), "Minimum memory limit allowed is 6MB"),
        (("--memory", "8m", "--memory-swap", "7m"), "Minimum memoryswap limit should be larger"),
        (("--memory-swap", "8m"), "You should always set the Memory limit when using Memoryswap"),
        (("--cpus", str(CPUS + 1)), f"range of CPUs is from 0.01 to {CPUS}.00, as there are only"),
        (("--cpus", "1", "--cpu-quota", "5000"), "Nano CPUs and CPU Quota cannot both be set"),
        (("--cpu-quota", "500"), "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (("--cpuset-cpus", "4000"), "Requested CPUs are not available - requested 4000"),
        (("--cpuset-cpus", "x"), "Invalid value x for cpuset cpus"),
        (("--oom-score-adj", "1001"), "range for oom score adj is [-1000, 1000]"),
        (("--blkio-weight", "5"), "blkio weight"),
    ],
)
def test_limits_that_make_no_sense_are_refused(engine, options, text):
    done = engine.docker("run", "--rm", *options, "busybox", "true", ok=False)
    warned = "Weight discarded" in done.err  # a kernel without weights does not judge them
    assert done.code == 125 or warned
    assert text.lower() in done.err.lower() or warned


EAT = "x=a; while :; do x=$x$x; done"


def test_a_container_that_eats_too_much_is_killed_and_says_so(engine):
    done = engine.docker(
        *("run", "--name", "hog", "--memory", "16m", "--memory-swap", "16m", "busybox"),
        *("sh", "-c", EAT),
        ok=False,
    )
    assert done.code == 137
    assert engine.inspect("hog", "{{.State.OOMKilled}} {{.State.ExitCode}}") == "true 137"
    query = f"since={time.time() - 60}&until={time.time()}"
    told = [
        json.loads(line) for line in engine.request("GET", f"/events?{query}").body.splitlines()
    ]
    mine = [e["Action"] for e in told if e["Actor"]["Attributes"].get("name") == "hog"]
    assert mine.index("oom") < mine.index("die")


def test_a_child_that_is_killed_for_memory_is_told_while_the_container_goes_on(engine):
    script = f"sh -c '{EAT}'; echo survived; sleep 100"
    run(engine, "web", "--memory", "16m", "--memory-swap", "16m", command=("sh", "-c", script))
    until(lambda: "survived" in engine.docker("logs", "web").out)
    began = time.time() - 60
    period = lambda: f"since={began}&until={time.time()}"  # noqa: E731
    until(lambda: '"oom"' in str(engine.request("GET", f"/events?{period()}").body))
    assert engine.inspect("web", "{{.State.Running}}") == "true"


def test_update_changes_a_running_container(engine):
    run(engine, "web", "--memory", "64m")
    changes = ("--memory", "32m", "--memory-swap", "48m", "--cpu-shares", "300")
    engine.docker("update", *changes, "--pids-limit", "20", "--cpuset-cpus", "0", "web")
    assert group(engine, "web", "memory", "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert group(engine, "web", "pids", "pids.max", "pids.max") == "20"
    assert group(engine, "web", "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    if V1:
        assert group(engine, "web", "cpu", "cpu.shares") == "300"
        assert group(engine, "web", "memory", "memory.memsw.limit_in_bytes") == str(48 << 20)
    engine.docker("update", "--memory", "96m", "--memory-swap", "128m", "web")
    assert group(engine, "web", "memory", "memory.limit_in_bytes", "memory.max") == str(96 << 20)
    engine.docker("update", "--pids-limit", "-1", "web")
    assert group(engine, "web", "pids", "pids.max", "pids.max") == "max"
    engine.docker("update", "--cpu-quota", "30000", "web")
    engine.docker("update", "--cpu-quota", "-1", "web")
    if V1:
        assert group(engine, "web", "cpu", "cpu.cfs_quota_us") == "-1"
    assert engine.inspect("web", "{{.HostConfig.PidsLimit}} {{.HostConfig.CpuQuota}}") == "0 -1"
    engine.docker("update", "--cpus", "0.25", "web")
    if V1:
        assert group(engine, "web", "cpu", "cpu.cfs_quota_us") == "25000"
    engine.docker("restart", "-t", "0", "web")
    assert group(engine, "web", "memory", "memory.limit_in_bytes", "memory.max") == str(96 << 20)


@pytest.mark.parametrize(
    ("before", "options", "text"),
    [
        ((), ("--memory", "1m"), "Minimum memory limit allowed is 6MB"),
        (
            ("--memory", "32m"),
            ("--memory", "96m"),
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time",
        ),
        (
            ("--cpu-quota", "5000"),
            ("--cpus", "0.5"),
            "Nano CPUs cannot be updated as CPU Quota has already been set",
        ),
        (
            ("--rm",),
            ("--restart", "always"),
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ),
    ],
)
def test_updates_that_make_no_sense_are_refused(engine, before, options, text):
    run(engine, "web", *before)
    done = engine.docker("update", *options, "web", ok=False)
    assert done.code == 1
    assert text in done.err


def test_the_restart_policy_can_be_updated(engine):
    run(engine, "web")
    engine.docker("update", "--restart", "on-failure:3", "web")
    policy = engine.inspect("web")["HostConfig"]["RestartPolicy"]
    assert policy == {"Name": "on-failure", "MaximumRetryCount": 3}


def test_stats_count_memory(engine):
    command = ("sh", "-c", "head -c 40000000 /dev/zero > /dev/shm/x; sleep 100")
    run(engine, "web", "--memory", "96m", command=command)
    until(lambda: stats(engine, "web", "stream=false&one-shot=true")["memory_stats"]["usage"] > 4e7)
    memory = stats(engine, "web", "stream=false&one-shot=true")["memory_stats"]
    assert 40e6 < memory["usage"] < 50e6
    assert memory["limit"] == 96 << 20
    shown = engine.docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.Name}}", "web").out
    assert shown.endswith("/ 96MiB web\n")


def test_stats_count_cpu_time(engine):
    run(engine, "busy", "--cpus", "0.5", command=("sh", "-c", "while :; do :; done"))
    shown = stats(engine, "busy")
    cpu, before = shown["cpu_stats"], shown["precpu_stats"]
    used = cpu["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = cpu["system_cpu_usage"] - before["system_cpu_usage"]
    share = used / passed * cpu["online_cpus"]
    assert 0.01 < share < 0.95  # (others are at work as well, also between two readings)
    assert cpu["throttling_data"]["periods"] > 0
    if V1:
        assert sum(cpu["cpu_usage"]["percpu_usage"]) > 0
    percent = engine.docker("stats", "--no-stream", "--format", "{{.CPUPerc}}", "busy").out
    assert 1 < float(percent.strip().rstrip("%")) < 95


def test_stats_have_every_field(engine):
    id = run(engine, "web", "--pids-limit", "40")
    shown = stats(engine, "web")
    assert (shown["name"], shown["id"]) == ("/web", id)
    assert shown["pids_stats"] == {"current": 1, "limit": 40}
    assert shown["num_procs"] == 0
    assert shown["preread"] < shown["read"]
    assert set(shown["networks"]["eth0"]) == {
        f"{way}_{what}"
        for way in ("rx", "tx")
        for what in ("bytes", "packets", "errors", "dropped")
    }
    assert set(shown["blkio_stats"]) >= {"io_service_bytes_recursive", "io_serviced_recursive"}
    assert shown["memory_stats"]["stats"]["inactive_file"] >= 0
    assert shown["precpu_stats"]["system_cpu_usage"] > 0


def test_stats_of_what_does_not_run_are_zero(engine):
    engine.docker("create", "--name", "idle", "busybox")
    shown = stats(engine, "idle")
    assert shown["read"] == "0001-01-01T00:00:00Z"
    assert shown["memory_stats"] == {} and shown["pids_stats"] == {}
    line = engine.docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "idle").out
    assert line == "0B / 0B 0\n"


def test_stats_are_streamed_until_the_container_is_removed(engine):
    run(engine, "web")
    watching = []
    for _ in range(3):
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(str(engine.socket))
        connection.request("GET", "/containers/web/stats?stream=true")
        watching.append(connection.getresponse())
    for answer in watching:
        frames = [json.loads(answer.readline()) for _ in range(3)]
        assert frames[0]["precpu_stats"]["cpu_usage"]["total_usage"] == 0
        assert frames[1]["precpu_stats"] == frames[0]["cpu_stats"]
        assert frames[1]["preread"] == frames[0]["read"]
    engine.docker("rm", "-f", "web")
    for answer in watching:
        answer.read()  # to the end


def test_one_shot_and_a_stream_exclude_each_other(engine):
    run(engine, "web")
    done = engine.request("GET", "/containers/web/stats?stream=1&one-shot=1")
    assert done.status == 400
    assert done.body == {"message": "cannot have stream=true and one-shot=true"}


def test_top_takes_the_options_of_ps(engine):
    run(engine, "web", command=("sh", "-c", "sleep 77 & wait"))
    # The shell's own line has the words of its script.
    until(lambda: engine.docker("top", "web", "-o", "pid,args").out.count("sleep 77") == 2)
    shown = engine.docker("top", "web", "-o", "pid,comm").out.splitlines()
    assert shown[0].split() == ["PID", "COMMAND"]
    assert len(shown) == 3
    assert "sleep 77" in engine.docker("top", "web", "aux").out
    done = engine.docker("top", "web", "-o", "comm", ok=False)
    assert "Couldn't find PID field in ps output" in done.err


@pytest.mark.skipif(not V1, reason="cgroup v1 only")
def test_want_of_memory_is_told_while_processes_wait_for_it(engine):
    options = ("--memory", "16m", "--memory-swap", "16m", "--oom-kill-disable")
    run(engine, "web", *options, command=("sh", "-c", EAT))
    query = "filters=" + quote('{"event":["oom"],"container":["web"]}')

    def told():
        period = f"since={time.time() - 60}&until={time.time()}"
        return '"oom"' in str(engine.request("GET", f"/events?{period}&{query}").body)

    until(told)
    assert engine.inspect("web", "{{.State.Running}}") == "true"
    engine.docker("rm", "-f", "web")
