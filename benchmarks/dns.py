"""The cluster's name server, asked as pods ask, beside Debian's dnsmasq with the same names.

Asked are names that are there, names that the search path makes (and nobody has), types that a name
has not, and ports; ``dnsperf`` asks.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import packages
from benchmarks.harness import Figure, Wherry, command, wherry
from wherry.kube.api.resources import SERVICES as SERVICE_KIND
from wherry.kube.client.client import Client
from wherry.kube.client.https import from_kubeconfig

SERVICES = 500
RATE = 20_000
BUSY_RATE = 2_000
SECONDS = 5
RUNS = 3


def answers() -> list[Figure]:
    """As many as it can, and how long each takes at 20,000 a second."""
    dnsperf = packages.program("dnsperf")
    if dnsperf is None:
        raise SystemExit("dnsperf is not installed and cannot be downloaded")
    with tempfile.TemporaryDirectory() as place, wherry() as instance:
        questions = Path(place) / "questions"
        questions.write_text("".join(_questions()))
        asking = _Asking(dnsperf, questions)
        service = _services(instance)
        with _dnsmasq(Path(place)) as peer:
            many = [asking.many(*service) for _ in range(RUNS)]
            theirs = [asking.many(*peer) for _ in range(RUNS)] if peer else []
            slow = [asking.latency(*service) for _ in range(RUNS)]
            their_slow = [asking.latency(*peer) for _ in range(RUNS)] if peer else []
    return [
        Figure("DNS answers a second, one core", many, "", RATE, peer=theirs),
        Figure(f"DNS, 99th percentile at {RATE} a second", slow, "ms", 2, peer=their_slow),
    ]


def busy() -> list[Figure]:
    """How long answers take while the node has nothing else to do, and while it starts 30 pods."""
    dnsperf = packages.program("dnsperf")
    if dnsperf is None:
        raise SystemExit("dnsperf is not installed and cannot be downloaded")
    with tempfile.TemporaryDirectory() as place, wherry() as instance:
        questions = Path(place) / "questions"
        questions.write_text("".join(_questions()))
        asking = _Asking(dnsperf, questions)
        service = _services(instance)
        idle = [asking.latency(*service, rate=BUSY_RATE) for _ in range(RUNS)]
        values = []
        for run in range(RUNS):
            create = ("create", "deployment", f"many{run}", "--image=hello:1", "--replicas=30")
            command("kubectl", *create, env=instance.env)
            values.append(asking.latency(*service, rate=BUSY_RATE))
    return [
        Figure(f"DNS, 99th percentile at {BUSY_RATE} a second", idle, "ms", 2),
        Figure("the same while the node starts pods", values, "ms"),
    ]


def follows() -> list[Figure]:
    """From a Service's creation being acknowledged until its name is answered."""
    with wherry() as instance:
        service = _services(instance)
        values = asyncio.run(_created_until_answered(Path(instance.env["KUBECONFIG"]), service))
    return [Figure("Service created until its name is answered", values, "ms", 50)]


async def _created_until_answered(kubeconfig: Path, server: tuple[str, int]) -> list[float]:
    transport = from_kubeconfig(kubeconfig)
    client = Client(transport)
    loop = asyncio.get_running_loop()
    values = []
    try:
        for number in range(50):
            name = f"new{number}"
            labels = (name, "default", "svc", "cluster", "local")
            wire = b"".join(bytes([len(part)]) + part.encode() for part in labels)
            question = b"\1\1\1\0\0\1\0\0\0\0\0\0" + wire + b"\0\0\1\0\1"
            body = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}
            await client.create(SERVICE_KIND, body, "default")
            begun = time.perf_counter()
            code = 3
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.setblocking(False)
                asking.connect(server)
                while code:
                    await loop.sock_sendall(asking, question)
                    code = (await loop.sock_recv(asking, 4096))[3] & 0xF
            values.append((time.perf_counter() - begun) * 1000)
    finally:
        await transport.close()
    return values


def _names() -> Iterator[str]:
    return (f"s{n}.default.svc.cluster.local" for n in range(SERVICES))


def _questions() -> Iterator[str]:
    for name in _names():
        yield f"{name} A\n{name} AAAA\n_http._tcp.{name} SRV\n"
        yield f"{name.partition('.')[0]}.other.default.svc.cluster.local A\n"


def _services(instance: Wherry) -> tuple[str, int]:
    """Make Services; the address of the name server."""
    items = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name.partition(".")[0]},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        }
        for name in _names()
    ]
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": items}).encode()
    command("kubectl", "create", "-f", "-", env=instance.env, stdin=body)
    get = ("kubectl", "-n", "kube-system", "get", "service", "kube-dns")
    address = command(*get, "-o", "jsonpath={.spec.clusterIP}", env=instance.env)
    time.sleep(2)  # what has just been made is told to everybody
    return address, 53


class _Asking:
    def __init__(self, dnsperf: Path, questions: Path) -> None:
        self._argv = [str(dnsperf), "-d", str(questions), "-c", "10", "-l", str(SECONDS)]

    def many(self, address: str, port: int) -> float:
        """Answers a second, with 100 questions on the way."""
        said = self._run(address, port, "-q", "100")
        return float(said.partition("Queries per second:")[2].split()[0])

    def latency(self, address: str, port: int, rate: int = RATE) -> float:
        """The 99th percentile in milliseconds."""
        said = self._run(address, port, "-q", "100", "-Q", str(rate), "-v")
        lines = [line.split() for line in said.splitlines() if line[:2] == "> "]
        # "T" is one that nobody answered.
        times = sorted(math.inf if words[1] == "T" else float(words[-1]) for words in lines)
        return times[len(times) * 99 // 100] * 1000

    def _run(self, address: str, port: int, *more: str) -> str:
        argv = [*self._argv, "-s", address, "-p", str(port), *more]
        return command(*argv, env=packages.libraries())


@contextmanager
def _dnsmasq(place: Path) -> Iterator[tuple[str, int] | None]:
    """A dnsmasq that knows the same names and nothing else."""
    found = packages.program("dnsmasq")
    if found is None:
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = ["local=/cluster.local/"]
    for name in _names():
        lines += [f"host-record={name},10.96.1.1", f"srv-host=_http._tcp.{name},{name},80"]
    (place / "dnsmasq.conf").write_text("\n".join(lines) + "\n")
    argv = [str(found), "-k", "-C", str(place / "dnsmasq.conf"), "-p", str(port), "-u", "root"]
    argv += ["-a", "127.0.0.1", "-z", "-R", "-h", "--pid-file="]
    daemon = subprocess.Popen(argv, env=packages.libraries())
    try:
        time.sleep(0.5)
        yield "127.0.0.1", port
    finally:
        daemon.terminate()
        daemon.wait()
