"""Services as their clients see them: how soon, how fast, and what is lost during an update."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from benchmarks import packages
from benchmarks.harness import Figure, Wherry, command, environment, wherry
from benchmarks.ingress import pods, serving
from wherry.kube.api.resources import ENDPOINT_SLICES, PODS, SERVICES
from wherry.kube.client.client import Client
from wherry.kube.client.https import from_kubeconfig

READY, ROUNDS, CONNECTIONS = 40, 21, 32
RATE, UPDATES, REPLICAS = 500, 3, 3
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
GATE = "bench.example.com/open"


# ---- how soon


def ready() -> list[Figure]:
    """From an endpoint that is ready to its first client; the same from what a pod says."""
    with wherry() as instance:
        slices, gates = asyncio.run(_ready(instance))
    return [
        Figure("endpoint written as ready, its traffic flows", slices, target=0.05),
        Figure("pod's readiness gate opened, its traffic flows", gates),
    ]


@asynccontextmanager
async def _client(instance: Wherry) -> AsyncIterator[Client]:
    transport = from_kubeconfig(instance.directory / "admin.conf")
    try:
        yield Client(transport)
    finally:
        await transport.close()


async def _ready(instance: Wherry) -> tuple[list[float], list[float]]:
    async with _client(instance) as client:
        return await _by_slices(client), await _by_gates(client)


async def _by_slices(client: Client) -> list[float]:
    """A port of this machine is the endpoint, written by hand."""
    made = await client.create(SERVICES, _service("byhand", None), "default")
    server = await asyncio.start_server(_hello, "0.0.0.0", 0)
    place = (made["spec"]["clusterIP"], 80)
    slice_: dict[str, Any] = {
        "metadata": {
            "name": "byhand",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "byhand"},
        },
        "addressType": "IPv4",
        "ports": [{"port": server.sockets[0].getsockname()[1], "protocol": "TCP"}],
        "endpoints": [{"addresses": [_own_address()], "conditions": {"ready": False}}],
    }
    slice_ = await client.create(ENDPOINT_SLICES, slice_, "default")
    values = []
    for _ in range(READY):
        slice_["endpoints"][0]["conditions"]["ready"] = True
        begun = time.perf_counter()
        slice_ = await client.update(ENDPOINT_SLICES, slice_)
        await _answered(place)
        values.append(time.perf_counter() - begun)
        slice_["endpoints"][0]["conditions"]["ready"] = False
        slice_ = await client.update(ENDPOINT_SLICES, slice_)
        await _refused(place)
    server.close()
    return values


async def _by_gates(client: Client) -> list[float]:
    """A pod becomes ready when somebody says so: kubelet, controllers and proxy have their part."""
    pod = {
        "metadata": {"name": "gated", "labels": {"app": "gated"}},
        "spec": {
            "readinessGates": [{"conditionType": GATE}],
            "containers": [{"name": "hello", "image": "hello:1"}],
            "terminationGracePeriodSeconds": 1,
        },
    }
    made = await client.create(SERVICES, _service("gated", {"app": "gated"}), "default")
    await client.create(PODS, pod, "default")
    while not (ip := (await client.get(PODS, "gated", "default"))["status"].get("podIP")):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await _answered((ip, 8080))
    place = (made["spec"]["clusterIP"], 80)
    values = []
    for _ in range(READY):
        begun = time.perf_counter()
        await _open_gate(client, "True")
        await _answered(place)
        values.append(time.perf_counter() - begun)
        await _open_gate(client, "False")
        await _refused(place)
    return values


async def _open_gate(client: Client, status: str) -> None:
    patch = {"status": {"conditions": [{"type": GATE, "status": status}]}}
    await client.patch(PODS, "gated", patch, "default", subresource="status")


def _service(name: str, selector: dict[str, str] | None) -> dict[str, Any]:
    spec = {"selector": selector, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"metadata": {"name": name}, "spec": {k: v for k, v in spec.items() if v is not None}}


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


async def _hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")
    writer.close()


async def _answered(place: tuple[str, int]) -> None:
    """Ask until somebody answers: who is refused asks again at once."""
    while await _ask(*place):  # noqa: ASYNC110 - as a client does
        await asyncio.sleep(0.001)


async def _refused(place: tuple[str, int]) -> None:
    while not await _ask(*place):  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def _ask(address: str, port: int) -> str:
    """What went wrong; nothing where nothing did."""
    writer = None
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(REQUEST)
            answer = await reader.read()
        return "" if b" 200 " in answer.split(b"\r\n", 1)[0] else repr(answer)
    except OSError as error:  # time-outs are such
        return repr(error)
    finally:
        if writer is not None:
            writer.close()


# ---- how fast


def rate() -> list[Figure]:
    """Requests a second by way of the cluster IP, as a part of those to the pod's own address.

    The peer between the two is one rule written by hand that sends an address to the pod: what
    the kernel itself takes for translating and for a second look at its routes.
    """
    wrk = packages.program("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed and cannot be downloaded")
    with serving() as (instance, _):
        command("kubectl", "scale", "deploy", "bench", "--replicas=1", env=instance.env)
        while len(own := pods(instance)) != 1:
            time.sleep(0.2)
        get = ("kubectl", "get", "svc", "bench", "-o", "jsonpath={.spec.clusterIP}")
        inside = f"http://{command(*get, env=instance.env)}/"
        direct = f"http://{own[0]}:8080/"
        with _rule_by_hand(own[0]) as by_hand:
            ours, theirs, hands = _in_turn(str(wrk), (inside, direct, by_hand))
        each = ("-H", "Connection: close")  # two ways to one pod by hand would share their ports
        opened, opened_direct = _in_turn(str(wrk), (inside, direct), each)
    return [
        Figure("requests a second through a ClusterIP", ours, "", peer=theirs),
        Figure("as a part of the pod's own address", _parts(ours, theirs), "", 0.97),
        Figure("one DNAT rule by hand, as a part of it", _parts(hands, theirs), ""),
        Figure("connections a second through a ClusterIP", opened, "", peer=opened_direct),
        Figure("as a part of the pod's own address", _parts(opened, opened_direct), ""),
    ]


@contextmanager
def _rule_by_hand(pod: str) -> Iterator[str]:
    """An address that one rule leads to a pod; it never leaves the machine (RFC 2544's range)."""
    address, table = "198.18.0.1", "wherry-bench"
    rule = f"ip daddr {address} tcp dport 80 dnat to {pod}:8080"
    chain = f"chain output {{ type nat hook output priority -105; {rule}\n}}\n"
    command("ip", "route", "add", address, "dev", "lo", "src", _own_address(), env=environment())
    try:
        data = f"table ip {table} {{ {chain} }}\n".encode()
        command("nft", "-f", "-", env=environment(), stdin=data)
        try:
            yield f"http://{address}/"
        finally:
            command("nft", "delete", "table", "ip", table, env=environment())
    finally:
        command("ip", "route", "del", address, env=environment())


def _in_turn(wrk: str, urls: Sequence[str], words: Sequence[str] = ()) -> list[list[float]]:
    """The rates of each, asked in short rounds, the order another each time."""
    values: dict[str, list[float]] = {url: [] for url in urls}
    for turn in range(ROUNDS):
        first = turn % len(urls)
        for url in (*urls[first:], *urls[:first]):
            values[url].append(_requests(wrk, url, words))
    return [values[url] for url in urls]


def _parts(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [mine / yours for mine, yours in zip(ours, theirs, strict=True)]


def _requests(wrk: str, url: str, words: Sequence[str]) -> float:
    """Requests a second during one second; the client has the first CPU to itself."""
    argv = ["taskset", "-c", "0", wrk, "-t1", f"-c{CONNECTIONS}", "-d1s", *words, url]
    said = command(*argv, env=packages.libraries())
    if "Non-2xx" in said:
        raise SystemExit(said)
    return float(said.partition("Requests/sec:")[2].split()[0])


# ---- what is lost


def update() -> list[Figure]:
    """Requests lost at 500 a second, each on a connection of its own, while a Deployment is
    updated whose servers obey SIGTERM at once."""
    with wherry() as instance:
        asked, lost = asyncio.run(_updated(instance))
    print(f"# {asked} asked, {lost[:3]}")
    return [Figure(f"requests lost of {RATE} a second, Deployment updated", [len(lost)], "", 0)]


async def _updated(instance: Wherry) -> tuple[int, list[str]]:
    await asyncio.to_thread(_roll, instance, 0)
    async with _client(instance) as client:
        made = await client.create(SERVICES, _service("rolled", {"app": "rolled"}), "default")
    place = (made["spec"]["clusterIP"], 80)
    await _answered(place)
    rolling = asyncio.create_task(asyncio.to_thread(_updates, instance))
    loop = asyncio.get_running_loop()
    tasks, due = [], loop.time()
    while not rolling.done():
        tasks.append(asyncio.create_task(_ask(*place)))
        due = max(due + 1 / RATE, loop.time() - 0.1)
        await asyncio.sleep(max(0.0, due - loop.time()))
    await rolling
    return len(tasks), list(filter(None, await asyncio.gather(*tasks)))


def _updates(instance: Wherry) -> None:
    for number in range(1, UPDATES + 1):
        _roll(instance, number)


def _roll(instance: Wherry, number: int) -> None:
    container = {
        "name": "hello",
        "image": f"hello:{1 + number % 2}",
        "readinessProbe": {"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1},
    }
    labels = {"app": "rolled"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "rolled"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    data = json.dumps(deployment).encode()
    command("kubectl", "apply", "-f", "-", env=instance.env, stdin=data)
    command("kubectl", "rollout", "status", "deploy/rolled", "--timeout=90s", env=instance.env)
