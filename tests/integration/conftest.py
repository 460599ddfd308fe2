"""A live instance for the tests: real daemons on this kernel, real clients on PATH.

``cluster`` is one instance for the whole session, in a data directory of its own, beside whatever
else runs on the machine; when it is purged the machine must be as it was.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import direct
import pytest

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / ".venv" / "clients"

# A terminal's width, which some pytest exports: the clients would fold their tables to it.
os.environ.pop("COLUMNS", None)
# Clients written in Go live for a moment: while they are small they need not tidy up.
os.environ.update(GOGC="off", GOMEMLIMIT="128MiB")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        reason = pytest.mark.skip(reason="needs root: namespaces, mounts, network links")
        for item in items:
            if "integration" in item.path.parts:
                item.add_marker(reason)


@dataclass(frozen=True)
class Finished:
    """How a client's command ended."""

    code: int
    out: str
    err: str


class Instance:
    """One instance and the clients that talk to it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.kubectl_name = "kubectl"
        self._exports: dict[str, str] | None = None  # until a command may change them

    @property
    def environment(self) -> dict[str, str]:
        if self._exports is None:
            lines = self.wherry("env").out.splitlines()
            pairs = (line.removeprefix("export ").partition("=") for line in lines)
            self._exports = {name: value for name, _, value in pairs}
        return {**os.environ, "PATH": f"{CLIENTS}:{os.environ['PATH']}", **self._exports}

    def wherry(self, command: str, *arguments: str, ok: bool = True) -> Finished:
        argv = [sys.executable, "-m", "wherry", command, *arguments]
        self._exports = None
        return _run([*argv, "--data-dir", str(self.data_dir)], dict(os.environ), ok=ok)

    def purge(self) -> bool:
        """At the end of a test, if it is still there; a failure is told, and fails nobody."""
        if not (self.data_dir / "instance.json").exists():
            return True
        done = self.wherry("down", "--purge", "--grace", "1", ok=False)
        if done.code:
            told = f"{self.data_dir} was not purged:\n{done.out}{done.err}"
            warnings.warn(told, stacklevel=2)
        return done.code == 0

    def docker(self, *arguments: str, ok: bool = True, stdin: str | None = None) -> Finished:
        return _run(["docker", *arguments], self.environment, ok=ok, stdin=stdin)

    def kubectl(self, *arguments: str, ok: bool = True, stdin: str | None = None) -> Finished:
        if "wait" in arguments and not any(each.startswith("--timeout") for each in arguments):
            arguments = (*arguments, "--timeout=110s")  # its own 30 s are for a quiet machine
        return _run([self.kubectl_name, *arguments], self.environment, ok=ok, stdin=stdin)

    def get(self, *arguments: str) -> Any:
        """What ``kubectl get … -o json`` prints."""
        found = self.read(arguments)
        return found or json.loads(self.kubectl("get", *arguments, "-o", "json").out)

    def read(self, arguments: tuple[str, ...], namespace: str = "default") -> Any:
        """The same where it can be had without kubectl, else None."""
        plain = type(self).kubectl is Instance.kubectl and self.kubectl_name == "kubectl"
        kubeconfig = self.environment.get("KUBECONFIG") if plain else None
        return direct.read(Path(kubeconfig), arguments, namespace) if kubeconfig else None

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """A client that stays, with its output on a pipe."""
        return subprocess.Popen(
            argv,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def pid(self, daemon: str) -> int:
        from wherry.host.pidfile import running_pid
        from wherry.launcher.instance import find

        instance = find(self.data_dir)
        assert instance is not None
        pid = running_pid(instance.pid_file(daemon))
        assert pid is not None, f"{daemon} does not run"
        return pid


def _run(
    argv: list[str], environment: dict[str, str], *, ok: bool, stdin: str | None = None
) -> Finished:
    done = subprocess.run(
        argv,
        env=environment,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=300,  # for what hangs, not for what is slow
        check=False,
    )
    finished = Finished(done.returncode, done.stdout, done.stderr)
    if ok and finished.code != 0:
        pytest.fail(f"{' '.join(argv)} ended with {finished.code}:\n{finished.out}{finished.err}")
    return finished


@contextmanager
def _instances() -> Iterator[Callable[[], Instance]]:
    """Makes instances that are purged at the end."""
    base = Path(tempfile.mkdtemp(prefix="wherry-test-"))
    base.chmod(0o755)  # users of pods with user namespaces must get through
    made: list[Instance] = []

    def make() -> Instance:
        made.append(Instance(base / f"instance{len(made)}"))
        return made[-1]

    try:
        yield make
    finally:
        purged = [instance.purge() for instance in made]
        if all(purged):  # else what is left still holds its slot, and can be looked at
            shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module")
def new_instance() -> Iterator[Callable[[], Instance]]:
    """Makes instances that are purged at the end of the file: a machine has room for some."""
    with _instances() as make:
        yield make


@pytest.fixture(scope="session")
def cluster() -> Iterator[Instance]:
    """A running instance with the sample's images."""
    with _instances() as make:
        instance = make()
        instance.wherry("up", "--sample")
        yield instance


@pytest.fixture
def namespace(cluster: Instance) -> Iterator[str]:
    """A Kubernetes namespace of the test's own."""
    name = f"t{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", ok=False)


def eventually(
    check: Callable[[], Any], *, seconds: float = 60.0, told: Callable[[], str] = str
) -> Any:
    """The first true value of ``check``; fails when none comes in time, with what ``told`` says."""
    deadline = time.monotonic() + seconds
    pause = 0.05
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"did not come true in {seconds:.0f} s (last: {value!r}) {told()}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)  # a client asked without end takes the time that it awaits
