"""Further ranges of cluster IPs that are not free: nobody is led there, and it is said."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
from fake_api import FakeAPI

from wherry.kube.api.resources import EVENTS, NODES, SERVICE_CIDRS, SERVICES
from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.proxy.proxy import Proxy
from wherry.kube.proxy.ranges import Ways, clashes

TOLD = ("10.96.0.0/16",)
Object = dict[str, Any]


class Mode:
    """What is served, and of which ranges cluster IPs are."""

    name, protocols = "noted", frozenset({"tcp"})

    def __init__(self) -> None:
        self.served: dict[Any, Any] = {}
        self.ranges: Sequence[str] = ()

    async def start(self, wanted: Mapping[Any, Any]) -> None:
        self.served = dict(wanted)

    async def use(self, services: Sequence[str]) -> None:
        self.ranges = services

    async def change(self, changes: Mapping[Any, Any]) -> None:
        self.served |= changes

    async def stop(self) -> None:
        pass

    def addresses(self) -> set[str]:
        return {served.cluster_ip for served in self.served.values() if served is not None}


class NoRoutes(Ways):
    """On a machine whose links lead to ``here``."""

    def __init__(self, here: list[str]) -> None:
        super().__init__(TOLD, lambda _: "")
        self.here = here

    def use(self, cidrs: Sequence[str]) -> None:
        pass

    def clashes(self, cidrs: Iterable[str], nodes: Sequence[Object]) -> dict[str, str]:
        return clashes(cidrs, (), nodes, self.here)


def service(name: str, address: str) -> Object:
    spec = {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def cidr(name: str, *cidrs: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}}


async def until(what: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if what():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not so after a minute")


@pytest.mark.parametrize("first", [True, False])
async def test_nobody_is_led_into_a_range_that_is_not_free_until_it_is(first: bool) -> None:
    api, mode, ways = FakeAPI(), Mode(), NoRoutes(["198.51.100.0/24"])
    client = Client(api)
    informers = SharedInformers(client)

    async def write() -> None:
        ranges = cidr("more", "198.51.100.0/28", "fd00::/112"), cidr("good", "10.97.0.0/24")
        for each in ranges:
            await client.create(SERVICE_CIDRS, each)
        for each in (
            service("in", "198.51.100.3"),
            service("out", "10.96.0.3"),
            service("good", "10.97.0.3"),
        ):
            await client.create(SERVICES, each)

    proxy = Proxy(informers, mode, node_name="one", told=TOLD, ways=ways)
    if first:
        await write()
    informers.start()
    running = asyncio.create_task(proxy.run())
    try:
        if not first:
            await until(lambda: bool(mode.ranges))
            await write()
        await until(lambda: mode.addresses() == {"10.96.0.3", "10.97.0.3"})
        await until(lambda: mode.ranges == (*TOLD, "10.97.0.0/24"))
        what = "198.51.100.0/28 overlaps 198.51.100.0/24, which this node reaches otherwise"
        notes = {
            ("RangeOverlaps", "more", f"198.51.100.0/28 is not served on node one: {_it(what)}"),
            ("AddressTaken", "in", f"198.51.100.3 is not served on this node: {what}"),
        }

        def told() -> set[tuple[str, str, str]]:
            return {
                (e["reason"], e["involvedObject"]["name"], e["message"]) for e in api.find(EVENTS)
            }

        await until(lambda: told() == notes)

        ways.here = []
        node = {"metadata": {"name": "two"}, "spec": {"podCIDRs": ["10.97.0.0/26"]}}
        await client.create(NODES, node)
        await until(lambda: mode.addresses() == {"10.96.0.3", "198.51.100.3"})
        await until(lambda: mode.ranges == (*TOLD, "198.51.100.0/28"))
        await client.delete(NODES, "two")
        await until(lambda: mode.addresses() == {"10.96.0.3", "198.51.100.3", "10.97.0.3"})
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await informers.stop()


def _it(what: str) -> str:
    return "it " + what.partition(" ")[2]
