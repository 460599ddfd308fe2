"""The API server beside upstream's: how soon, how many, how large.

The pods are of 2 KB, as a controller makes them: with requests, a probe, a volume and the record
of who set which field.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.apiservers import TOKEN, Server, ours, theirs, wrk
from benchmarks.harness import Figure

PODS = "/api/v1/namespaces/default/pods"
MANY = 17_600
PAGE = 500
WATCHERS = 1000
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)


def pod(name: str) -> dict[str, object]:
    """A pod of some 2 KB once it is stored."""
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10}
    resources = {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "500m", "memory": "256Mi"},
    }
    container = {
        "name": "app",
        "image": "registry.example.com/team/app:1.2.3",
        "args": ["serve", "--port=8080"],
        "env": [{"name": "MODE", "value": "production"}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "resources": resources,
        "readinessProbe": probe,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "app", "tier": "backend"}},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    }


_NAME = "NAME-OF-POD"

# Every connection counts on its own: wrk runs the script once, in one thread.
_CREATE = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local before, after = [==[%s]==], [==[%s]==]
local n = %d
function request()
  n = n + 1
  return wrk.format(nil, nil, nil, before .. string.format("pod-%%06d", n) .. after)
end
"""


def _creating(first: int = 0) -> str:
    before, after = json.dumps(pod(_NAME)).split(_NAME)
    return _CREATE % (before, after, first)


def fill(server: Server, count: int, present: int = 0) -> None:
    """Make pods until there are ``count``; ``present`` are there already."""
    script = "import sys; from benchmarks.apiserver import make_pods; make_pods(*sys.argv[1:])"
    subprocess.run(
        [
            *(sys.executable, "-c", script),
            *(str(server.port), str(server.place / "pki" / "ca.crt"), str(present), str(count)),
        ],
        check=True,
    )


def make_pods(port: str, ca: str, first: str, last: str) -> None:
    """Make pods with numbers from ``first`` to before ``last`` over 32 connections."""
    import asyncio

    import aiohttp
    import uvloop

    async def make() -> None:
        numbers = iter(range(int(first), int(last)))
        context = ssl.create_default_context(cafile=ca)
        headers = {"Authorization": f"Bearer {TOKEN}"}

        async def work(client: aiohttp.ClientSession) -> None:
            for n in numbers:
                async with client.post(PODS, json=pod(f"many-{n:06}")) as answer:
                    if answer.status != 201:
                        raise SystemExit(await answer.text())

        async with aiohttp.ClientSession(
            f"https://127.0.0.1:{port}",
            headers=headers,
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
        ) as client:
            await asyncio.gather(*(work(client) for _ in range(32)))

    uvloop.run(make())


@contextmanager
def _both(count: int = 0) -> Iterator[list[Server]]:
    """Ours, and upstream's where it can be had, each with so many pods; one after the other they
    are measured, but the idle one costs next to nothing."""
    with ours() as mine, theirs() as other:
        servers = [mine] + ([other] if other else [])
        for server in servers:
            if count:
                fill(server, count)
        yield servers


def _measured(
    servers: list[Server], measure: Callable[[Server], list[float]]
) -> tuple[list[float], list[float]]:
    values = [measure(server) for server in servers]
    return values[0], values[1] if len(values) > 1 else []


def ready() -> list[Figure]:
    """From the start of the process on an empty store until /readyz says so."""

    def start(server: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with server():  # type: ignore[attr-defined]
                pass

        return run

    values, peer = [], []
    for _ in range(5):
        begun = time.perf_counter()
        with ours():
            values.append(time.perf_counter() - begun)
    for _ in range(2):
        begun = time.perf_counter()
        with theirs() as server:
            if server is not None:
                peer.append(time.perf_counter() - begun)
    return [Figure("API server ready, empty store", values, target=0.8, peer=peer)]


def create() -> list[Figure]:
    """Durable creates of pods over 32 connections."""

    def measure(server: Server) -> list[float]:
        return [wrk(server, PODS, 32, lua=_creating(run * 100_000)).per_second for run in range(3)]

    with _both() as servers:
        values, peer = _measured(servers, measure)
    return [Figure("create pods, 32 connections", values, "/s", 2500, peer=peer)]


def get() -> list[Figure]:
    """Gets of one pod over 32 connections."""

    def measure(server: Server) -> list[float]:
        return [wrk(server, f"{PODS}/many-000001", 32).per_second for _ in range(3)]

    with _both(10) as servers:
        values, peer = _measured(servers, measure)
    return [Figure("get a pod, 32 connections", values, "/s", 10_000, peer=peer)]


def lists() -> list[Figure]:
    """Lists of 500 pods, 1 MB, over 4 connections."""

    def measure(server: Server) -> list[float]:
        return [wrk(server, PODS, 4).per_second for _ in range(3)]

    with _both(PAGE) as servers:
        values, peer = _measured(servers, measure)
    return [Figure("list 500 pods, 4 connections", values, "/s", 300, peer=peer)]


def many() -> list[Figure]:
    """What 17,600 pods cost in memory, and lists of all of them over 2 connections."""

    def measure(server: Server) -> list[float]:
        path = f"{PODS}?resourceVersion=0"
        return [wrk(server, path, 2).per_second for _ in range(3)]

    with _both() as servers:
        idle, peer_idle = _measured(servers, lambda server: [server.resident()])
        for server in servers:
            fill(server, MANY)
        held, peer_held = _measured(servers, lambda server: [server.resident()])
        values, peer = _measured(servers, measure)
        after, peer_after = _measured(servers, lambda server: [server.resident()])
    return [
        Figure("resident memory, idle", idle, "MB", 80, peer=peer_idle),
        Figure("resident memory, 17,600 pods", held, "MB", 400, peer=peer_held),
        Figure("list 17,600 pods, 2 connections", values, "/s", 12, peer=peer),
        Figure("resident memory after lists of all", after, "MB", peer=peer_after),
    ]


def watchers() -> list[Figure]:
    """From sending a change until the last of 1,000 watchers is told."""

    def measure(server: Server) -> list[float]:
        script = "import sys; from benchmarks.apiserver import tell; tell(*sys.argv[1:])"
        ca = str(server.place / "pki" / "ca.crt")
        done = subprocess.run(
            [sys.executable, "-c", script, str(server.port), ca],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return [1000 * float(word) for word in done.stdout.split()]

    with _both(1) as servers:
        values, peer = _measured(servers, measure)
    return [Figure("one change to 1,000 watchers, last told", values, "ms", 30, peer=peer)]


class _Connection:
    """A TLS connection whose arriving bytes can be taken now and read later."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_hostname="127.0.0.1")
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self.arrived(self.socket.recv(1 << 16))
        self._flush()

    def _flush(self) -> None:
        self.socket.sendall(self._going.read())

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def arrived(self, data: bytes) -> None:
        self._coming.write(data)

    def read(self) -> bytes:
        """All that has arrived."""
        pieces = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                pieces.append(self._tls.read(1 << 16))
        return b"".join(pieces)


_EVENT = b'"type":"'


def tell(port: str, ca: str) -> None:
    """Open the watches, change a pod 20 times, print how long each took to arrive at all. The
    clock stops when the last bytes are there; that each got the event is looked at afterwards, as
    a thousand clients would do it each on its own machine."""
    context = ssl.create_default_context(cafile=ca)
    head = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    watching = f"GET {PODS}?watch=1&resourceVersion=0 HTTP/1.1\r\n{head}\r\n".encode()
    watchers: dict[int, _Connection] = {}
    poll = select.epoll()
    for _ in range(WATCHERS):
        watcher = _Connection(int(port), context)
        watcher.send(watching)
        while _EVENT not in watcher.read():
            watcher.arrived(watcher.socket.recv(1 << 16))
        watchers[watcher.socket.fileno()] = watcher
        poll.register(watcher.socket, select.EPOLLIN)
    writer = _Connection(int(port), context)
    for n in range(20):
        time.sleep(0.2)
        body = json.dumps({"metadata": {"annotations": {"n": str(n)}}})
        request = f"PATCH {PODS}/many-000000 HTTP/1.1\r\n{head}"
        request += "Content-Type: application/merge-patch+json\r\n"
        request += f"Content-Length: {len(body)}\r\n\r\n{body}"
        arrived: dict[int, bytes] = {}
        begun = time.perf_counter()
        writer.send(request.encode())
        while len(arrived) < WATCHERS:
            for number, _ in poll.poll():
                arrived[number] = arrived.get(number, b"") + os.read(number, 1 << 16)
        print(time.perf_counter() - begun)
        for number, data in arrived.items():
            watchers[number].arrived(data)
            if watchers[number].read().count(_EVENT) != 1:
                raise SystemExit("a watcher was not told once")
        writer.socket.recv(1 << 16)


def growth() -> list[Figure]:
    """How the cost grows with the number of objects: a table of its own, on standard output. Beside
    each rate stands the server's processor time for one request, in microseconds: on a machine
    that is busy otherwise it tells more."""
    print(f"{'pods':>8}{'MB':>6}{'create/s':>10}{'µs':>7}{'get/s':>8}{'µs':>7}", end="")
    print(f"{'list 500/s':>12}{'µs':>7}")
    with ours() as server:
        present = 0
        for size in SIZES:
            fill(server, size, present)
            present = size
            print(f"{size:>8}{server.resident():>6.0f}", end="")
            for path, connections, lua, width in (
                (PODS, 32, _creating(10_000_000 + size), 10),
                (f"{PODS}/many-000001", 32, "", 8),
                (f"{PODS}?limit={PAGE}", 4, "", 12),
            ):
                before = server.processor()
                rate = wrk(server, path, connections, 3, lua).per_second
                cost = (server.processor() - before) / (rate * 3)
                print(f"{rate:>{width}.0f}{cost * 1e6:>7.0f}", end="", flush=True)
            print()
    return []
