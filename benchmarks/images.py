"""Images beside Debian's dockerd: loading, saving, moving to and from a registry, building."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.engine import IMAGE, Engine, engines
from benchmarks.harness import CLIENTS, Figure, command, timed

NAME = "big:1"
PORT = 5999
RUNS = 3
FILES = 10_000
_MEGABYTES = 170


@contextmanager
def _archive() -> Iterator[Path]:
    """A root file system of 170 MB as Debian's looks: thousands of files, part of them small."""
    with tempfile.TemporaryDirectory(prefix="wherry-bench-") as place:
        root = Path(place, "root")
        # Half of it can be compressed well, half of it cannot.
        text = b"the quick brown fox jumps over the lazy dog; " * 200
        for number in range(4000):
            directory = root / f"usr/share/d{number % 100}"
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f"f{number}").write_bytes(text)
        blob = root / "usr/lib"
        blob.mkdir(parents=True)
        for number in range(40):
            (blob / f"lib{number}.so").write_bytes(os.urandom((_MEGABYTES - 36) * 25_000))
        tar = Path(place, "root.tar")
        subprocess.run(["tar", "-C", root, "-cf", tar, "."], check=True)
        shutil.rmtree(root)
        yield tar


def _import(engine: Engine, tar: Path, name: str) -> None:
    with tar.open("rb") as file:
        subprocess.run(
            ["docker", "import", "-", name], stdin=file, env=engine.env, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip


def _pairs(
    measure: Callable[[Engine], dict[str, list[float]]], ratio: dict[str, float]
) -> list[Figure]:
    with engines() as (ours, theirs):
        values = measure(ours)
        peers = measure(theirs) if theirs else {}
    return [
        Figure(name, values[name], ratio=ratio[name], peer=peers.get(name, [])) for name in values
    ]


def load_and_save() -> list[Figure]:
    """``docker save`` and ``docker load`` of an image of 170 MB."""
    load, save = f"docker load of {_MEGABYTES} MB", f"docker save of {_MEGABYTES} MB"
    with _archive() as tar, tempfile.TemporaryDirectory(prefix="wherry-bench-") as place:

        def measure(engine: Engine) -> dict[str, list[float]]:
            _import(engine, tar, NAME)
            saved = str(Path(place, "saved.tar"))
            found: dict[str, list[float]] = {load: [], save: []}
            for _ in range(RUNS):
                found[save] += timed(lambda: engine.docker("save", "-o", saved, NAME), 1, 0)
                engine.docker("rmi", NAME)
                os.sync()
                found[load] += timed(lambda: engine.docker("load", "-i", saved), 1, 0)
            return found

        return _pairs(measure, {load: 1.0, save: 1.0})


def push_and_pull() -> list[Figure]:
    """The same image to and from Debian's docker-registry on loopback."""
    push, pull = f"docker push of {_MEGABYTES} MB", f"docker pull of {_MEGABYTES} MB"
    with _archive() as tar:

        def measure(engine: Engine) -> dict[str, list[float]]:
            found: dict[str, list[float]] = {push: [], pull: []}
            for _ in range(2):
                # A new registry each time: nothing of it is there already.
                with _registry(engine) as host:
                    name = f"{host}/{NAME}"
                    _import(engine, tar, name)
                    found[push] += timed(partial(engine.docker, "push", name), 1, 0)
                    engine.docker("rmi", name)
                    os.sync()
                    found[pull] += timed(partial(engine.docker, "pull", name), 1, 0)
                    engine.docker("rmi", name)
            return found

        return _pairs(measure, {push: 1.0, pull: 1.0})


@contextmanager
def _registry(engine: Engine) -> Iterator[str]:
    """A registry where the engine's loopback is."""
    pid = engine.daemons()[-1]
    with tempfile.TemporaryDirectory(prefix="wherry-bench-") as place:
        configuration = Path(place, "config.yml")
        configuration.write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\n"
            f"http: {{addr: '127.0.0.1:{PORT}'}}\nlog: {{level: error}}\n"
        )
        within = ["nsenter", "-t", str(pid), "-n"]
        # The peer's network namespace is as new as its daemon.
        subprocess.run([*within, "ip", "link", "set", "lo", "up"], check=True)
        server = subprocess.Popen(
            [*within, CLIENTS / "docker-registry", "serve", configuration],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            ping = [*within, "curl", "-sf", f"http://127.0.0.1:{PORT}/v2/"]
            while subprocess.run(ping, capture_output=True).returncode:
                time.sleep(0.05)
            yield f"127.0.0.1:{PORT}"
        finally:
            server.terminate()
            server.wait(10)


def build() -> list[Figure]:
    """``docker build``: everything cached, twenty steps of ``true``, ten thousand small files."""
    cached, steps = "rebuild with 5 steps cached", "build with 20 RUN true, no cache"
    context = f"build with a context of {FILES} files"
    with tempfile.TemporaryDirectory(prefix="wherry-bench-") as place:
        small, many, crowd = Path(place, "small"), Path(place, "many"), Path(place, "crowd")
        for directory in (small, many, crowd):
            directory.mkdir()
        (small / "file").write_text("x")
        (small / "Dockerfile").write_text(
            f"FROM {IMAGE}\nENV A=1\nCOPY file /file\nRUN true\nWORKDIR /w\nCMD sh\n"
        )
        (many / "Dockerfile").write_text(f"FROM {IMAGE}\n" + "RUN true\n" * 20)
        (crowd / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY . /files\n")
        for number in range(FILES):
            directory = crowd / f"d{number % 100}"
            directory.mkdir(exist_ok=True)
            (directory / f"f{number}").write_text(f"file {number}\n")

        def measure(engine: Engine) -> dict[str, list[float]]:
            env = {**engine.env, "DOCKER_BUILDKIT": "0"}

            def built(directory: Path, *options: str) -> str:
                return command("docker", "build", *options, str(directory), env=env)

            return {
                cached: timed(lambda: built(small), 10),
                steps: timed(lambda: built(many, "--no-cache"), RUNS, 0),
                context: timed(lambda: built(crowd, "--no-cache"), RUNS, 0),
            }

        return _pairs(measure, {cached: 1.0, steps: 0.5, context: 1.0})
