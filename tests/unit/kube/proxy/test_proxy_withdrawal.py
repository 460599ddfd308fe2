"""When nobody is led to a pod any more: what the kubelet waits for before it signals."""

import asyncio
import contextlib

from fake_api import FakeAPI

from wherry.kube.api.resources import ENDPOINT_SLICES, SERVICES
from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.proxy.proxy import Proxy


class Slow:
    """A mode whose changes are done when ``let`` says so."""

    name, protocols = "slow", frozenset({"tcp"})

    def __init__(self):
        self.let = asyncio.Event()
        self.let.set()
        self.begun = asyncio.Event()
        self.served = {}

    async def start(self, wanted):
        self.served = dict(wanted)
        if wanted:
            self.begun.set()

    async def use(self, services):
        pass

    async def change(self, changes):
        await self.let.wait()
        self.served |= changes
        self.begun.set()

    async def stop(self):
        pass


class Connections:
    """Of clients: they end when ``over`` says so."""

    def __init__(self):
        self.over = asyncio.Event()

    async def ended(self, _address):
        await self.over.wait()


def slice_of(*, terminating):
    conditions = {"ready": not terminating, "serving": True, "terminating": terminating}
    return {
        "metadata": {
            "name": "web-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": conditions},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": True}},
        ],
    }


async def settled(task):
    """Let everything run that can, and whether ``task`` has come to its end."""
    for _ in range(50):
        await asyncio.sleep(0.002)
    return task.done()


@contextlib.asynccontextmanager
async def playing():
    client = Client(FakeAPI())
    mode, connections = Slow(), Connections()
    informers = SharedInformers(client)
    proxy = Proxy(informers, mode, node_name="one")
    proxy._connections = connections
    spec = {"clusterIP": "10.96.0.1", "ports": [{"port": 80, "protocol": "TCP"}]}
    made = {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}
    await client.create(SERVICES, made)
    await client.create(ENDPOINT_SLICES, slice_of(terminating=False))
    informers.start()
    running = asyncio.create_task(proxy.run())
    async with asyncio.timeout(60):
        await mode.begun.wait()
        try:
            yield proxy, client, mode, connections
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await informers.stop()


async def leave(client):
    current = await client.get(ENDPOINT_SLICES, "web-1", "default")
    new = slice_of(terminating=True)
    new["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
    await client.update(ENDPOINT_SLICES, new)


def endpoints(mode):
    (served,) = mode.served.values()
    return [address for address, _ in served.inside]


def test_rules_lead_elsewhere_and_clients_have_their_answers_first():
    async def play():
        async with playing() as (proxy, client, mode, connections):
            assert endpoints(mode) == ["10.0.0.1", "10.0.0.2"]
            waiting = asyncio.create_task(proxy.withdrawn("default", "10.0.0.1"))
            assert not await settled(waiting)  # it is an endpoint still
            mode.let.clear()
            await leave(client)
            assert not await settled(waiting)  # the rules are not changed yet
            mode.let.set()
            while endpoints(mode) != ["10.0.0.2"]:  # noqa: ASYNC110 - as tests see it
                await asyncio.sleep(0.002)
            assert not await settled(waiting)  # somebody waits for an answer
            connections.over.set()
            await waiting

    asyncio.run(play())


def test_a_pod_of_no_service_is_not_waited_for():
    async def play():
        async with playing() as (proxy, _client, _mode, _connections):
            await proxy.withdrawn("default", "10.0.0.9")
            await proxy.withdrawn("other", "10.0.0.1")

    asyncio.run(play())
