"""An instance of our own, a peer in a network namespace of its own, and figures to compare."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIENTS = ROOT / ".venv" / "clients"
PEERS = ROOT / ".venv" / "peers"


@dataclass(frozen=True)
class Figure:
    """One measured quantity; ``unit`` is s, MB or %.

    What is wanted is either a ``target`` or a ``ratio`` of what the peer needs.
    """

    name: str
    values: Sequence[float]
    unit: str = "s"
    target: float | None = None
    ratio: float | None = None
    peer: Sequence[float] = field(default=())

    @property
    def wanted(self) -> float | None:
        """The target in ``unit``; None where it depends on a peer that could not be had."""
        if self.ratio is not None and self.peer:
            return self.ratio * statistics.median(self.peer)
        return self.target

    def line(self) -> str:
        """The figure as a line of the table."""
        spread = f"{min(self.values):.3f}–{max(self.values):.3f}"
        target = f"{self.wanted:.3g} {self.unit}" if self.wanted is not None else ""
        peer = f"{statistics.median(self.peer):.3f}" if self.peer else ""
        median = f"{statistics.median(self.values):.3f} {self.unit}"
        return f"{self.name:<46}{median:>10}{spread:>18}{target:>10}{peer:>10}"


def environment(**extra: str) -> dict[str, str]:
    """Ours, with the clients first on PATH."""
    return dict(os.environ, PATH=f"{CLIENTS}:{os.environ['PATH']}", **extra)


def resident(pids: Iterable[int]) -> float:
    """Megabytes that processes hold, shared pages counted with each."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def processes(*words: str) -> list[int]:
    """The processes whose command lines have all of ``words``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if all(word in line for word in words):
                found.append(int(entry.name))
    return found


def timed(run: Callable[[], object], runs: int, warm_up: int = 1) -> list[float]:
    """Seconds of each of ``runs`` calls."""
    for _ in range(warm_up):
        run()
    values = []
    for _ in range(runs):
        begun = time.perf_counter()
        run()
        values.append(time.perf_counter() - begun)
    return values


def command(*argv: str, env: dict[str, str], stdin: bytes | None = None) -> str:
    """Run a client to its end; its output."""
    done = subprocess.run(argv, env=env, input=stdin, capture_output=True, check=False, timeout=120)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)}: {done.stderr.decode()}")
    return done.stdout.decode()


class Wherry:
    """An instance in a temporary directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = environment()

    def call(self, name: str, *arguments: str) -> str:
        """One ``wherry`` command on the instance."""
        argv = [sys.executable, "-m", "wherry", name, "--data-dir", str(self.directory)]
        return command(*argv, *arguments, env=environment())

    def read_env(self) -> None:
        """Take DOCKER_HOST and KUBECONFIG from ``wherry env``."""
        for line in self.call("env").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.env[name] = value

    def daemons(self, *names: str) -> list[int]:
        """Process ids of server and node, or of those named."""
        from wherry.host.pidfile import running_pid
        from wherry.launcher.instance import find

        instance = find(self.directory)
        assert instance is not None
        pids = [running_pid(instance.pid_file(name)) for name in names or ("server", "node")]
        return [pid for pid in pids if pid is not None]

    def monitors(self) -> list[int]:
        """Process ids of what stays with the containers when the daemons go."""
        from wherry.launcher.instance import find

        instance = find(self.directory)
        assert instance is not None
        return processes("monitor", str(instance.run_dir))

    def name_servers(self) -> list[int]:
        """Process ids of what answers for the cluster's names."""
        from wherry.launcher.instance import find

        instance = find(self.directory)
        assert instance is not None
        return processes("wherry.kube.dns", str(instance.run_dir))


@contextmanager
def wherry(*, up: bool = True) -> Iterator[Wherry]:
    """An instance, started with the sample's images, purged at the end."""
    directory = Path(tempfile.mkdtemp(prefix="wherry-bench-")) / "data"
    instance = Wherry(directory)
    try:
        if up:
            instance.call("up")
            instance.read_env()
            _images(directory)
        yield instance
    finally:
        if (directory / "instance.json").exists():
            instance.call("down", "--purge", "--grace", "1")
        shutil.rmtree(directory.parent, ignore_errors=True)


def _images(directory: Path) -> None:
    from wherry.launcher.instance import find
    from wherry.launcher.sample import make_images

    instance = find(directory)
    assert instance is not None
    make_images(instance)


@dataclass(frozen=True)
class Dockerd:
    """Debian's dockerd: the environment for ``docker``, and where its files are."""

    env: dict[str, str]
    place: Path

    def daemons(self) -> list[int]:
        """Process ids of dockerd and containerd."""
        monitors = self.monitors()
        return [pid for pid in processes("containerd", str(self.place)) if pid not in monitors] + [
            pid for pid in processes("dockerd", str(self.place)) if pid not in monitors
        ]

    def monitors(self) -> list[int]:
        """Process ids of containerd's shims."""
        return processes("containerd-shim", str(self.place))


@contextmanager
def dockerd() -> Iterator[Dockerd | None]:
    """Debian's dockerd with the same image in it.

    It lives in network and mount namespaces of its own, so that its bridge and its firewall rules
    touch nothing of this machine. None where its packages cannot be had.
    """
    programs = _dockerd_programs()
    if programs is None:
        yield None
        return
    place = Path(tempfile.mkdtemp(prefix="wherry-peer-"))
    socket = place / "docker.sock"
    env = environment(DOCKER_HOST=f"unix://{socket}")
    libraries = PEERS / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
    env["PATH"] = f"{env['PATH']}:{programs}:{PEERS / 'usr/bin'}:/usr/sbin:/sbin"
    env["LD_LIBRARY_PATH"] = str(libraries)
    env["XTABLES_LIBDIR"] = str(libraries / "xtables")
    daemon = subprocess.Popen(
        [
            *("unshare", "--net", "--mount", "dockerd"),
            *("--data-root", str(place / "data"), "--exec-root", str(place / "exec")),
            *("--pidfile", str(place / "pid"), "--host", env["DOCKER_HOST"]),
        ],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=(place / "log").open("wb"),
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 30
        while subprocess.run(["docker", "version"], env=env, capture_output=True).returncode:
            if time.monotonic() > deadline or daemon.poll() is not None:
                print(f"dockerd did not start: {(place / 'log').read_text()[-400:]}")
                yield None
                return
            time.sleep(0.2)
        _import_into(env)
        yield Dockerd(env, place)
    finally:
        daemon.terminate()
        daemon.wait(30)
        shutil.rmtree(place, ignore_errors=True)
        for group in Path("/sys/fs/cgroup").glob("*/docker"):
            with contextlib.suppress(OSError):  # a dockerd of the machine's own uses it
                group.rmdir()


def _import_into(env: dict[str, str]) -> None:
    from wherry.engine.image import busybox

    tar = busybox.root(busybox.find())
    change = ("--change", "ENV PATH=/bin")
    command("docker", "import", *change, "-", "hello:1", env=env, stdin=tar)


def _dockerd_programs() -> Path | None:
    """Where dockerd and containerd are, unpacked alone from Debian's packages."""
    programs = PEERS / "usr" / "sbin"
    if not (programs / "dockerd").exists():
        PEERS.mkdir(parents=True, exist_ok=True)
        packages = ["docker.io", "containerd", "runc", "tini", "iptables", "libip4tc2"]
        packages += ["libip6tc2", "libxtables12", "libnetfilter-conntrack3", "libnfnetlink0"]
        got = subprocess.run(
            ["apt-get", "-q", "download", *packages], cwd=PEERS, capture_output=True
        )
        if got.returncode != 0:
            return None
        for package in PEERS.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(PEERS)], check=True)
        # What update-alternatives would do.
        for name in ("iptables", "ip6tables"):
            (programs / name).symlink_to("xtables-nft-multi")
    return programs
