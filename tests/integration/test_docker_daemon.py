"""The daemon's own life: it may be killed at any moment, and containers go on."""

import random
import re
import subprocess
import threading
import time

import pytest
from docker_harness import until

from ports import free_port

pytest_plugins = ("docker_fixtures",)

COUNT = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_containers_go_on_and_are_taken_up_again(engine, how):
    port = f"{free_port()}:80"
    engine.docker("run", "-d", "--name", "web", "-p", port, "busybox", "sh", "-c", COUNT)
    engine.docker("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.5; exit 9")
    engine.docker("run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "0.5")
    engine.docker("run", "-d", "--name", "cold", "busybox", "sleep", "100")
    engine.docker("pause", "cold")
    before = engine.inspect("web")
    getattr(engine, how)()
    time.sleep(1)
    engine.start()
    after = engine.inspect("web")
    assert after["State"] == before["State"]
    assert after["NetworkSettings"] == before["NetworkSettings"]
    until(lambda: engine.inspect("ends", "{{.State.Status}} {{.State.ExitCode}}") == "exited 9")
    until(lambda: engine.docker("inspect", "gone", ok=False).code != 0)
    assert engine.inspect("cold", "{{.State.Status}}") == "paused"
    until(lambda: engine.docker("logs", "web").out.count("\n") > 20)
    numbers = [int(line) for line in engine.docker("logs", "web").out.split()]
    assert numbers == sorted(set(numbers))
    # One that it had read and not yet written when it was killed is gone with it.
    assert len(numbers) >= numbers[-1] + (how == "stop")
    assert engine.docker("exec", "web", "echo", "hi").out == "hi\n"
    done = engine.docker("run", "--rm", "-p", port, "busybox", "true", ok=False)
    assert "port is already allocated" in done.err
    other = engine.docker("run", "-d", "busybox", "sleep", "100").out.strip()
    assert (
        engine.inspect(other, "{{.NetworkSettings.IPAddress}}")
        != (after["NetworkSettings"]["IPAddress"])
    )
    engine.docker("unpause", "cold")
    engine.docker("stop", "-t", "0", "web")
    assert engine.inspect("web", "{{.State.ExitCode}}") == "137"


def test_policies_decide_what_starts_again(engine):
    engine.docker("run", "-d", "--name", "no", "busybox", "sleep", "0.3")
    engine.docker("run", "-d", "--name", "always", "--restart", "always", "busybox", "sleep", "100")
    engine.docker(
        "run", "-d", "--name", "unless", "--restart", "unless-stopped", "busybox", "sleep", "100"
    )
    engine.docker("stop", "-t", "0", "always", "unless")
    engine.kill()
    engine.start()
    until(lambda: engine.inspect("always", "{{.State.Status}}") == "running")
    assert engine.inspect("unless", "{{.State.Status}}") == "exited"
    until(lambda: engine.inspect("no", "{{.State.Status}} {{.State.ExitCode}}") == "exited 0")


def test_a_client_that_leaves_does_not_stop_what_it_began(engine):
    client = engine.spawn("run", "--name", "web", "busybox", "sleep", "100")
    until(lambda: engine.docker("ps", "-q").out)
    client.kill()
    client.wait()
    assert engine.inspect("web", "{{.State.Running}}") == "true"


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_moment_leaves_nothing_behind(engine, seed):
    chance = random.Random(seed)
    for _ in range(2):
        _kill_under_load(engine, chance)
        for state in engine.docker("ps", "-a", "--format", "{{.State}}").out.split():
            assert state in ("created", "running", "exited", "restarting", "removing")
        for id in engine.docker("ps", "-q").out.split():
            run = _run_of(engine, id)
            done = engine.docker("exec", id, "true", ok=False)
            said = done.out + done.err  # who ends between asking and beginning says so on stdout
            if done.code != 0 and not re.search("is (not running|restarting)", said):
                # It has ended meanwhile, and the program with it.
                until(lambda id=id, run=run: _run_of(engine, id) != run, told=said)
    engine.remove_all()
    # The kernel removes links in the background.
    until(lambda: not any(engine.holdings().values()))


def _run_of(engine, id):
    """Which run of a container this is; nothing where it is gone."""
    return engine.docker(
        "inspect", "-f", "{{.State.Status}} {{.State.StartedAt}}", id, ok=False
    ).out


def _kill_under_load(engine, chance):
    ended = threading.Event()

    def work(seed):
        chance = random.Random(seed)
        while not ended.is_set():
            name, port = f"c{chance.randrange(6)}", 18400 + chance.randrange(4)
            command = chance.choice(
                [
                    ("run", "-d", "--name", name, "busybox", "sleep", "100"),
                    ("run", "--rm", "busybox", "true"),
                    (
                        "run",
                        "-d",
                        "-p",
                        f"{port}:80",
                        "--restart",
                        "always",
                        "busybox",
                        "sleep",
                        "0.3",
                    ),
                    ("stop", "-t", "0", name),
                    ("rm", "-f", name),
                    ("start", name),
                    ("restart", "-t", "0", name),
                ]
            )
            try:
                engine.docker(*command, ok=False, timeout=60)
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{command} hangs") from None

    workers = [threading.Thread(target=work, args=(chance.random(),)) for _ in range(4)]
    for worker in workers:
        worker.start()
    time.sleep(chance.uniform(0.3, 1.0))
    engine.kill()
    ended.set()
    for worker in workers:
        worker.join()
    engine.start()


def test_many_clients_at_once(engine):
    clients = [engine.spawn("run", "--rm", "busybox", "echo", str(n)) for n in range(20)]
    outputs = [client.communicate(timeout=60)[0] for client in clients]
    assert outputs == [b"%d\n" % n for n in range(20)]
    assert engine.docker("ps", "-aq").out == ""
