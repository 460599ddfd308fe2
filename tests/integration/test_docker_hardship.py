"""The engine in hard times: eight clients at random, and what it runs by killed.

``WHERRY_STRESS`` is the number of containers that the eight clients make (500 is five minutes).
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from docker_harness import Daemon, until

pytest_plugins = ("docker_fixtures",)

CLIENTS = 8
ROUNDS = int(os.environ.get("WHERRY_STRESS", "80"))


def nothing_held(engine: Daemon) -> None:
    """Wait until the kernel has cleared away what earlier tests have removed."""
    until(lambda: not any(engine.holdings().values()))


def everything(engine: Daemon) -> dict[str, list[str]]:
    """What there is besides containers, too."""
    return engine.holdings() | {
        "networks": sorted(engine.docker("network", "ls", "-q").out.split()),
        "volumes": sorted(engine.docker("volume", "ls", "-q").out.split()),
    }


class Client:
    """One client, with a seed of its own."""

    def __init__(self, engine: Daemon, number: int, network: str) -> None:
        self.engine = engine
        self.number = number
        self.network = network
        self.chance = random.Random(number)
        self.ids: list[str] = []
        self.made = 0

    def options(self) -> list[str]:
        chance, volume = self.chance, f"stress-{self.chance.randrange(4)}"
        choices = (
            ["-p", "80"],
            ["-p", "127.0.0.1::53/udp"],
            ["--network", self.network],
            ["--network", "none"],
            ["-v", f"{volume}:/data"],
            ["-v", "/anonymous"],
            ["--tmpfs", "/scratch"],
            ["--memory", "32m"],
            ["--restart", "on-failure:2"],
            ["--init"],
            ["--log-driver", "none"],
            ["--health-cmd", "true", "--health-interval", "1s"],
        )
        chosen = chance.sample(choices, chance.randrange(4))
        networks = [one for one in chosen if one[0] == "--network"]
        return [word for one in chosen if one not in networks[1:] for word in one]

    def command(self) -> list[str]:
        return self.chance.choice(
            (["sleep", "1000"], ["true"], ["sh", "-c", "exit 3"], ["sh", "-c", "echo x; sleep 1"])
        )

    def step(self) -> None:
        chance = self.chance
        if not self.ids or (self.made < ROUNDS // CLIENTS and chance.random() < 0.4):
            verb = chance.choice((["run", "-d"], ["run", "-d"], ["create"]))
            done = self.engine.docker(
                *(*verb, "--label", "stress", *self.options(), "busybox", *self.command()), ok=False
            )
            self.made += 1
            if done.out.strip():
                self.ids.append(done.out.split()[-1])
            return
        id = chance.choice(self.ids)
        other = chance.choice(
            (
                ["start"], ["stop", "-t", "0"], ["kill"], ["restart", "-t", "0"], ["pause"],
                ["unpause"], ["logs"], ["inspect"], ["rm", "-v"], ["rm", "-fv"], ["rm", "-fv"],
            )
        )  # fmt: skip
        done = self.engine.docker(*other, id, ok=False)
        if other[0] == "rm" and done.code == 0:
            self.ids.remove(id)

    def run(self) -> None:
        while self.made < ROUNDS // CLIENTS:
            self.step()
        for id in self.ids:
            self.engine.docker("rm", "-f", "-v", id, ok=False)


@pytest.mark.parametrize("killed", [False, True])
def test_clients_at_random_leave_the_machine_as_it_was(engine: Daemon, killed: bool) -> None:
    nothing_held(engine)
    before = everything(engine)
    network = f"stress-{killed}"
    bridge = f"br-{engine.docker('network', 'create', network).out[:12]}"
    over = threading.Event()

    def kill() -> None:
        while not over.wait(4):
            engine.kill()
            engine.start()

    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        killer = pool.submit(kill) if killed else None
        clients = [Client(engine, number, network) for number in range(CLIENTS)]
        try:
            for future in [pool.submit(client.run) for client in clients]:
                future.result()
        finally:
            over.set()
            if killer is not None:
                killer.result()
    # What a kill has interrupted, its user would do again.
    left = engine.docker("ps", "-aq", "--filter", "label=stress").out.split()
    assert killed or not left, engine.docker("ps", "-a").out
    if left:
        engine.docker("rm", "-f", "-v", *left)
    volumes = engine.docker("volume", "ls", "-q", "--filter", "name=stress-").out.split()
    if volumes:
        engine.docker("volume", "rm", *volumes)
    engine.docker("network", "rm", network)
    assert not Path("/sys/class/net", bridge).exists()
    # The kernel removes links in the background.
    until(lambda: everything(engine) == before)


def test_a_killed_monitor_is_replaced_and_containers_go_on(engine: Daemon) -> None:
    engine.docker("run", "-d", "--name", "one", "busybox", "sh", "-c", "sleep 3; echo late; exit 7")
    engine.docker("run", "-d", "--name", "two", "busybox", "sleep", "1000")
    monitors = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if _mentions(path, b"monitor/__main__.py", str(engine.root).encode())
    ]
    assert monitors
    for pid in monitors:
        os.kill(pid, signal.SIGKILL)
    assert engine.docker("run", "--rm", "busybox", "echo", "new").out == "new\n"
    assert engine.docker("exec", "two", "echo", "there").out == "there\n"
    engine.docker("wait", "one")
    assert engine.inspect("one", "{{.State.Status}}") == "exited"
    assert engine.docker("logs", "one").out == "late\n"
    engine.docker("stop", "-t", "0", "two")
    assert engine.inspect("two", "{{.State.Running}}") == "false"


def _mentions(path: Path, *words: bytes) -> bool:
    try:
        line = path.read_bytes()
    except OSError:
        return False
    return all(word in line for word in words)


def test_a_killed_oci_runtime_leaves_nothing_half_made(engine: Daemon, tmp_path: Path) -> None:
    """crun is killed while it creates; the client hears of it, nothing stays."""
    nothing_held(engine)
    over = threading.Event()

    def hunt() -> None:
        while not over.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                if _mentions(path, b"crun", b"create", str(engine.run_dir).encode()):
                    try:
                        os.kill(int(path.parent.name), signal.SIGKILL)
                    except ProcessLookupError:
                        continue
            time.sleep(0.001)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        codes = {engine.docker("run", "--rm", "busybox", "true", ok=False).code for _ in range(15)}
    finally:
        over.set()
        hunter.join()
    assert codes <= {0, 125, 137}
    engine.remove_all()
    nothing_held(engine)
    assert engine.docker("run", "--rm", "busybox", "echo", "well").out == "well\n"
