"""What the control plane needs for its work: server, controllers and scheduler in one process on a
store on the disk, as in an instance, with nodes that exist in name only."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from benchmarks import control_planes
from benchmarks.harness import Figure
from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    NAMESPACES,
    NODES,
    PODS,
)
from wherry.kube.apiserver.authn import MASTERS, known
from wherry.kube.apiserver.server import APIServer, APIServerConfig
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer
from wherry.kube.client.transport import Object, Transport
from wherry.kube.controllers import Options, run_controllers
from wherry.kube.scheduler import run_scheduler
from wherry.kube.store.sqlite import SQLiteStore

PODS_OF_ONE = 1000
CONTENTS = 2000
RESTING = 10_000
IDLE_SECONDS = 20
AUTOSCALERS = 50
EVENTS_SECONDS = 240  # an object's budget of events is used up then


class Plane:
    """A control plane; ``client`` is its administrator's."""

    def __init__(self, server: APIServer) -> None:
        self.client = Client(server.transport(known("admin", (MASTERS,))), manager="bench")
        self.pods = Informer(self.client, PODS)

    async def nodes(self, count: int) -> None:
        amounts = {"cpu": "64", "memory": "256Gi", "pods": "110"}
        condition = {"type": "Ready", "status": "True", "lastTransitionTime": meta.now()}
        status = {"allocatable": amounts, "capacity": amounts, "conditions": [condition]}
        for number in range(count):
            name = f"n{number}"
            await self.client.create(NODES, {"metadata": {"name": name}})
            await self.client.patch(NODES, name, {"status": status}, subresource="status")
        await self.until(self._untainted)

    async def _untainted(self) -> bool:
        items = (await self.client.list(NODES))["items"]
        return not any(node["spec"].get("taints") for node in items)

    async def until(self, check: Callable[[], Awaitable[bool]]) -> None:
        while not await check():  # noqa: ASYNC110 - the question is put from outside, as a client does
            await asyncio.sleep(0.02)

    async def furnished(self, namespace: str) -> None:
        async def check() -> bool:
            return any(
                meta.name(o) == "kube-root-ca.crt"
                for o in (await self.client.list(CONFIG_MAPS, namespace))["items"]
            )

        await self.until(check)


@asynccontextmanager
async def plane() -> AsyncIterator[Plane]:
    """One that runs, on an empty store."""
    with tempfile.TemporaryDirectory(prefix="wherry-bench-") as directory:
        store = await SQLiteStore.open(Path(directory) / "state.db")
        unused = Path(directory) / "unused"
        config = APIServerConfig(
            advertise_address="127.0.0.1",
            port=6443,
            service_cidr="10.96.0.0/16",
            tls_cert=unused,
            tls_key=unused,
        )
        server = APIServer(config, store)
        await server.open()
        made = Plane(server)
        manager = Client(server.transport("system:kube-controller-manager"))

        def identity(name: str) -> Transport:
            return server.transport(f"system:serviceaccount:kube-system:{name}")

        # Nobody keeps the nodes alive.
        options = Options(root_ca="PEM", node_grace=3600.0)
        tasks = [
            asyncio.ensure_future(run_controllers(manager, options, identity=identity)),
            asyncio.ensure_future(run_scheduler(Client(server.transport("system:kube-scheduler")))),
        ]
        made.pods.start()
        await made.pods.wait_synced()
        await made.furnished("default")
        try:
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await made.pods.stop()
            await server.close()
            await store.close()


def _deployment(replicas: int) -> Object:
    return {
        "metadata": {"name": "many"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "many"}},
            "template": {
                "metadata": {"labels": {"app": "many"}},
                "spec": {"containers": [{"name": "c", "image": "hello:1"}]},
            },
        },
    }


async def _deploy(at: Plane, count: int) -> float:
    """Seconds until all pods of a Deployment have a node."""
    bound: set[str] = set()
    done = asyncio.Event()

    def note(pod: Object, now: Object | None = None) -> None:
        pod = now or pod
        if pod["spec"].get("nodeName"):
            bound.add(meta.uid(pod))
            if len(bound) >= count:
                done.set()

    at.pods.add_handlers(on_add=note, on_update=note)
    begun = time.perf_counter()
    await at.client.create(DEPLOYMENTS, _deployment(count), "default")
    await done.wait()
    return time.perf_counter() - begun


async def _fill(at: Plane, namespace: str, count: int) -> None:
    await at.client.create(NAMESPACES, {"metadata": {"name": namespace}})
    await at.furnished(namespace)
    for start in range(0, count, 100):
        await asyncio.gather(
            *(
                at.client.create(CONFIG_MAPS, {"metadata": {"name": f"c{n}"}}, namespace)
                for n in range(start, min(start + 100, count))
            )
        )


async def _empty(at: Plane) -> float:
    """Seconds until a full namespace is gone."""
    await _fill(at, "full", CONTENTS)
    begun = time.perf_counter()
    await at.client.delete(NAMESPACES, "full")

    async def gone() -> bool:
        try:
            await at.client.get(NAMESPACES, "full")
        except StatusError as error:
            return error.code == 404
        return False

    await at.until(gone)
    return time.perf_counter() - begun


async def _rest(at: Plane) -> float:
    """Percent of a core while nothing changes."""
    await _deploy(at, PODS_OF_ONE)
    await _fill(at, "still", RESTING - PODS_OF_ONE)
    await asyncio.sleep(5)
    begun = time.process_time()
    await asyncio.sleep(IDLE_SECONDS)
    return (time.process_time() - begun) / IDLE_SECONDS * 100


async def _unmeasured(at: Plane) -> float:
    """Percent of a core for autoscalers that fail."""
    metric = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    for number in range(AUTOSCALERS):
        body = _deployment(1)
        body["metadata"] = {"name": f"d{number}"}
        await at.client.create(DEPLOYMENTS, body, "default")
        spec = {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"d{number}"},
            "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": metric}],
        }
        autoscaler = {"metadata": {"name": f"d{number}"}, "spec": spec}
        await at.client.create(HORIZONTAL_POD_AUTOSCALERS, autoscaler, "default")
    await asyncio.sleep(EVENTS_SECONDS)
    begun = time.process_time()
    await asyncio.sleep(2 * IDLE_SECONDS)
    return (time.process_time() - begun) / (2 * IDLE_SECONDS) * 100


def _measured(measure: Callable[[Plane], Awaitable[float]], nodes: int, runs: int) -> list[float]:
    async def once() -> float:
        async with plane() as at:
            await at.nodes(nodes)
            return await measure(at)

    return [uvloop.run(once()) for _ in range(runs)]


def deployed() -> list[Figure]:
    """A Deployment of a thousand pods on ten nodes: created and bound."""
    values = _measured(lambda at: _deploy(at, PODS_OF_ONE), 10, 3)
    peer = []
    with control_planes.theirs(10) as server:
        if server is not None:
            peer.append(control_planes.deploy(server, _deployment(PODS_OF_ONE)))
    return [Figure("Deployment of 1,000 pods, all bound", values, target=3.0, peer=peer)]


def namespace() -> list[Figure]:
    """A namespace with two thousand objects, deleted."""
    values, peer = _measured(_empty, 1, 3), []
    with control_planes.theirs(1) as server:
        if server is not None:
            control_planes.fill(server, "full", CONTENTS)
            peer.append(control_planes.empty(server, "full"))
    return [Figure("namespace with 2,000 objects deleted", values, target=5.0, peer=peer)]


def idle() -> list[Figure]:
    """What ten thousand objects cost that nobody touches."""
    values, peer = _measured(_rest, 10, 1), []
    with control_planes.theirs(10) as server:
        if server is not None:
            control_planes.deploy(server, _deployment(PODS_OF_ONE))
            control_planes.fill(server, "still", RESTING - PODS_OF_ONE)
            time.sleep(5)
            peer.append(control_planes.rest(server, IDLE_SECONDS))
    return [Figure("control plane at rest, 10,000 objects", values, "%", 1, peer=peer)]


def autoscalers() -> list[Figure]:
    """What fifty autoscalers cost whose metrics are not to be had, once they have said so as often
    as events may."""
    return [Figure("50 autoscalers without metrics", _measured(_unmeasured, 2, 1), "%", 1)]
