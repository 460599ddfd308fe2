"""The container engine beside Debian's dockerd."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks.harness import Figure, command, dockerd, resident, timed, wherry

RUNS = 15
IMAGE = "hello:1"
BURST = 20
CROWD = 50
LIST = 200
GIGABYTE = 1 << 30


@dataclass(frozen=True)
class Engine:
    """One of the two: how a client reaches it, and its processes."""

    env: dict[str, str]
    daemons: Callable[[], Sequence[int]]  # pids of what serves, monitors of containers excepted
    monitors: Callable[[], Sequence[int]]

    def docker(self, *arguments: str) -> str:
        return command("docker", *arguments, env=self.env)

    def burst(self, count: int = BURST) -> list[str]:
        """``docker run -d`` so many times at once; the ids."""
        with ThreadPoolExecutor(count) as pool:
            run = ("run", "-d", IMAGE, "sleep", "3600")
            return list(pool.map(lambda _: self.docker(*run).strip(), range(count)))


@contextmanager
def engines() -> Iterator[tuple[Engine, Engine | None]]:
    """Ours, and the peer where it can be had."""
    with wherry() as ours, dockerd() as peer:
        theirs = None
        if peer is not None:
            theirs = Engine(peer.env, peer.daemons, peer.monitors)
        yield Engine(ours.env, lambda: ours.daemons("node"), ours.monitors), theirs


def _compare(
    name: str, measure: Callable[[Engine], list[float]], *, ratio: float, unit: str = "s"
) -> Figure:
    with engines() as (ours, theirs):
        values = measure(ours)
        peer = measure(theirs) if theirs else []
    return Figure(name, values, unit, ratio=ratio, peer=peer)


def docker_run() -> list[Figure]:
    """``docker run --rm`` of ``true``."""

    def measure(engine: Engine) -> list[float]:
        return timed(lambda: engine.docker("run", "--rm", IMAGE, "true"), RUNS, warm_up=2)

    return [_compare("docker run --rm busybox true", measure, ratio=0.4)]


def docker_exec() -> list[Figure]:
    """``docker exec`` of ``true`` in a container that runs."""

    def measure(engine: Engine) -> list[float]:
        engine.docker("run", "-d", "--name", "target", IMAGE, "sleep", "600")
        return timed(lambda: engine.docker("exec", "target", "true"), RUNS, warm_up=2)

    return [_compare("docker exec of true", measure, ratio=0.5)]


def docker_burst() -> list[Figure]:
    """Twenty ``docker run -d`` at once, and ``docker rm -f`` of the twenty."""

    def measure(engine: Engine) -> tuple[list[float], list[float]]:
        started, removed = [], []
        for _ in range(3):
            begun = time.perf_counter()
            ids = engine.burst()
            started.append(time.perf_counter() - begun)
            removed += timed(partial(engine.docker, "rm", "-f", *ids), 1, warm_up=0)
        return started, removed

    with engines() as (ours, theirs):
        values = measure(ours)
        peers = measure(theirs) if theirs else ([], [])
    names = (f"{BURST} docker run -d at once", f"docker rm -f of {BURST}")
    return [
        Figure(name, mine, ratio=0.5, peer=peer)
        for name, mine, peer in zip(names, values, peers, strict=True)
    ]


def docker_filter() -> list[Figure]:
    """A gigabyte through ``docker run -i … cat``, with the log that is the default."""

    def measure(engine: Engine) -> list[float]:
        return timed(lambda: _through_cat(engine), 1, warm_up=0)

    return [_compare("docker run -i busybox cat of 1 GB", measure, ratio=1.0)]


def _through_cat(engine: Engine) -> None:
    line = b"a line of text as a program would write it, sixty-four bytes....\n"
    block = line * ((1 << 20) // len(line))
    wanted = GIGABYTE // len(block) * len(block)
    cat = subprocess.Popen(
        ["docker", "run", "-i", "--rm", IMAGE, "cat"],
        env=engine.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert cat.stdin is not None and cat.stdout is not None
    stdin, stdout = cat.stdin, cat.stdout

    def write() -> None:
        with stdin:
            for _ in range(wanted // len(block)):
                stdin.write(block)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        got = 0
        while data := stdout.read(1 << 20):
            got += len(data)
        writing.result()
    if cat.wait(30) != 0 or got != wanted:
        raise SystemExit(f"cat gave back {got} of {wanted} bytes")


def docker_memory() -> list[Figure]:
    """What fifty idle containers hold: the daemon, and what each container adds to it."""

    def measure(engine: Engine) -> tuple[float, float]:
        ids = [id for _ in range(CROWD // 10) for id in engine.burst(10)]
        daemon, monitors = resident(engine.daemons()), resident(engine.monitors())
        engine.docker("rm", "-f", *ids)
        return daemon, monitors / CROWD

    with engines() as (ours, theirs):
        values = measure(ours)
        peers = measure(theirs) if theirs else None
    return [
        Figure(name, [values[i]], "MB", target=target, peer=[peers[i]] if peers else [])
        for i, (name, target) in enumerate(
            ((f"daemon with {CROWD} idle containers", 90), ("monitor, for each container", 3))
        )
    ]


def docker_ps() -> list[Figure]:
    """``docker ps -a`` where there are 200 containers."""

    def measure(engine: Engine) -> list[float]:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: engine.docker("create", IMAGE, "true"), range(LIST)))
        return timed(lambda: engine.docker("ps", "-a"), RUNS)

    return [_compare(f"docker ps with {LIST} containers", measure, ratio=1.0)]
