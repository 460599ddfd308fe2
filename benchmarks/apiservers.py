"""Two API servers to compare: ours on SQLite, and upstream's kube-apiserver on etcd.

Upstream's is run where the variable ``WHERRY_KUBE_APISERVER`` names its binary (version 1.20 is
what the targets were derived from).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks import packages
from benchmarks.harness import CLIENTS, environment, resident
from wherry.launcher.pki import Authority

TOKEN = "benchmark"
PEER = "WHERRY_KUBE_APISERVER"


@dataclass
class Server:
    """An API server on a free port of the loopback; its files are in ``place``."""

    place: Path
    port: int = field(default_factory=lambda: free_port())
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @cached_property
    def context(self) -> ssl.SSLContext:
        """For clients of it."""
        return ssl.create_default_context(cafile=str(self.place / "pki" / "ca.crt"))

    def request(self, path: str, body: bytes | None = None, method: str | None = None) -> bytes:
        """One request, as an administrator."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        asked = urllib.request.Request(self.url + path, body, headers, method=method)
        with urllib.request.urlopen(asked, context=self.context, timeout=60) as answer:
            data: bytes = answer.read()
        return data

    def resident(self) -> float:
        """Megabytes of all its processes."""
        return resident(process.pid for process in self.processes)

    def processor(self) -> float:
        """Seconds of processor time that all its processes have taken."""
        return sum(_processor(process.pid) for process in self.processes)

    def launch(self, argv: Sequence[str], log: str, **env: str) -> None:
        self.processes.append(
            subprocess.Popen(
                argv,
                env=environment(**env),
                stdout=subprocess.DEVNULL,
                stderr=(self.place / log).open("ab"),
            )
        )

    def until_ready(self) -> None:
        """Until it says that it is, and the namespace of the benchmarks is there."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.request("/readyz")
                self.request("/api/v1/namespaces/default")
                return
            except (urllib.error.URLError, OSError) as error:
                if time.monotonic() > deadline or self.processes[-1].poll() is not None:
                    log = (self.place / "log").read_text()[-2000:]
                    raise SystemExit(f"the API server did not start: {log}") from error
                time.sleep(0.01)

    def make_account(self) -> None:
        """What a controller makes, and admission wants of a namespace with pods."""
        path = "/api/v1/namespaces/default/serviceaccounts"
        self.request(path, b'{"metadata": {"name": "default"}}')

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _prepared() -> Server:
    place = Path(tempfile.mkdtemp(prefix="wherry-bench-api-"))
    (place / "pki").mkdir()
    authority = Authority(place / "pki")
    authority.issue_server("server", "kube-apiserver", names=["localhost"], addresses=["127.0.0.1"])
    (place / "tokens.csv").write_text(f'{TOKEN},benchmark,1,"system:masters"\n')
    return Server(place)


@contextmanager
def ours() -> Iterator[Server]:
    """Our API server, ready, its store empty."""
    server = _prepared()
    pki = server.place / "pki"
    argv = [sys.executable, "-m", "wherry.kube.apiserver", "--data-dir", str(server.place / "data")]
    argv += ["--port", str(server.port), "--token-auth-file", str(server.place / "tokens.csv")]
    argv += ["--tls-cert", str(pki / "server.crt"), "--tls-key", str(pki / "server.key")]
    try:
        server.launch(argv, "log")
        server.until_ready()
        server.make_account()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.place, ignore_errors=True)


def peer_binary() -> Path | None:
    """Upstream's kube-apiserver, where it is given and there is an etcd for it."""
    path = Path(os.environ.get(PEER, ""))
    return path if path.is_file() and (CLIENTS / "etcd").exists() else None


@contextmanager
def theirs() -> Iterator[Server | None]:
    """Upstream's on an etcd of its own, as it comes; None where it is not to be had."""
    binary = peer_binary()
    if binary is None:
        yield None
        return
    server = _prepared()
    client, members = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    pki = server.place / "pki"
    try:
        server.launch(
            [
                *(str(CLIENTS / "etcd"), "--data-dir", str(server.place / "etcd")),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", members, "--initial-advertise-peer-urls", members),
                *("--initial-cluster", f"default={members}", "--quota-backend-bytes=8589934592"),
            ],
            "etcd.log",
        )
        server.launch(
            [
                *(str(binary), "--etcd-servers", client, "--secure-port", str(server.port)),
                *("--bind-address=127.0.0.1", "--service-cluster-ip-range=10.96.0.0/16"),
                *("--tls-cert-file", str(pki / "server.crt")),
                *("--tls-private-key-file", str(pki / "server.key")),
                *("--token-auth-file", str(server.place / "tokens.csv")),
                *("--service-account-key-file", str(pki / "server.crt")),
                *("--service-account-signing-key-file", str(pki / "server.key")),
                "--service-account-issuer=https://kubernetes.default.svc",
                "--authorization-mode=Node,RBAC",
            ],
            "log",
        )
        try:
            server.until_ready()
        except SystemExit as error:
            print(error)
            yield None
            return
        server.make_account()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.place, ignore_errors=True)


@dataclass(frozen=True)
class Load:
    """What wrk saw."""

    per_second: float
    megabytes_per_second: float


def wrk(server: Server, path: str, connections: int, seconds: float = 5, lua: str = "") -> Load:
    """Load for some seconds; ``lua`` is a script for it.

    Raises:
        SystemExit: wrk is not to be had, or an answer was no success.
    """
    found = packages.program("wrk")
    if found is None:
        raise SystemExit("wrk is not installed and cannot be downloaded")
    argv = [str(found), "--threads", "1", "--connections", str(connections)]
    argv += ["--duration", f"{seconds:g}s", "--header", f"Authorization: Bearer {TOKEN}"]
    script = server.place / "load.lua"
    script.write_text(lua + _REPORT)
    argv += ["--script", str(script), server.url + path]
    done = subprocess.run(
        argv,
        env=packages.libraries(),
        capture_output=True,
        text=True,
        check=False,
    )
    report = [line for line in done.stdout.splitlines() if line.startswith("report ")]
    if done.returncode or not report:
        raise SystemExit(f"wrk: {done.stdout}{done.stderr}")
    requests, volume, microseconds, failed = map(float, report[0].split()[1:])
    if failed:
        raise SystemExit(f"wrk: {failed:.0f} requests failed:\n{done.stdout}")
    return Load(requests / microseconds * 1e6, volume / microseconds)


_REPORT = """
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format("report %d %d %d %d", summary.requests, summary.bytes, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""
