"""Of several controllers one writes statuses, and nobody writes over another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import idle_clock
import pytest
from fake_api import FakeAPI

from wherry.kube.api.resources import INGRESS_CLASSES, INGRESSES, LEASES
from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.ingress import leadership, statuses
from wherry.kube.ingress.addresses import Fixed
from wherry.kube.ingress.controller import IngressController
from wherry.kube.ingress.flags import Options
from wherry.kube.ingress.leadership import Leadership
from wherry.kube.ingress.nginx import Nginx
from wherry.kube.ingress.settings import Settings
from wherry.kube.ingress.world import CONTROLLER

CLASS = {"metadata": {"name": "nginx"}, "spec": {"controller": CONTROLLER}}


@pytest.fixture(autouse=True)
async def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", at_once)  # no time passes in threads
    idle_clock.install(monkeypatch)


class AnyNginx:
    """One that takes everything."""

    pid = None

    def prepare(self) -> None:
        """It needs nothing."""

    async def version(self) -> tuple[int, ...]:
        return (1, 26, 0)

    def has_file(self, _: str) -> bool:
        return True

    def keep_files(self, _: object) -> None:
        """It has no files."""

    drop_files = keep_files

    async def test(self, _: str) -> str:
        return ""

    async def apply(self, _: str) -> None:
        """It serves nothing."""

    def retire(self) -> None:
        """It has no former processes."""


class Replica:
    """A controller that is reached at an address of its own."""

    def __init__(
        self, api: FakeAPI, name: str, address: str, *, alone: bool = False, **options: Any
    ) -> None:
        client = Client(api, manager=name)
        self.name, self.address = name, address
        self.informers = SharedInformers(client)
        self.leadership = (
            Leadership() if alone else leadership.by_lease(client, "edge", "leader", name)
        )
        controller = IngressController(
            client,
            self.informers,
            cast(Nginx, AnyNginx()),
            Settings("/run/ingress"),
            addresses=Fixed([address]),
            leadership=self.leadership,
            own_class=False,
            options=Options(**options),
        )
        self.informers.start()
        self.task = asyncio.ensure_future(controller.run())

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.informers.stop()


async def make(api: FakeAPI, *names: str) -> None:
    for name in names:
        metadata = {"name": name, "namespace": "shop"}
        spec = {"ingressClassName": "nginx", "rules": [{"host": f"{name}.example.com"}]}
        await Client(api).create(INGRESSES, {"metadata": metadata, "spec": spec})


async def started(api: FakeAPI, count: int) -> list[Replica]:
    await Client(api).create(INGRESS_CLASSES, CLASS)
    await make(api, "a", "b")
    return [Replica(api, f"pod-{n}", f"192.0.2.{n}") for n in range(count)]


def said(api: FakeAPI) -> list[str]:
    """What each Ingress says, in the order in which they were made."""
    return [
        ",".join(address["ip"] for address in statuses.told(ingress))
        for ingress in api.find(INGRESSES)
    ]


def writes(api: FakeAPI) -> int:
    """How often somebody wrote into a status of an Ingress."""
    return sum(
        method != "GET" and "/ingresses/" in path and path.endswith("/status")
        for method, path in api.requests
    )


def leader(api: FakeAPI) -> str:
    lease = api.get(LEASES, "leader", "edge")
    return lease["spec"]["holderIdentity"] if lease is not None else ""


async def until(check: Callable[[], bool]) -> None:
    for _ in range(1000):
        if check():
            return
        await asyncio.sleep(0.1)
    pytest.fail("did not come true")


async def all_say_the_leader(api: FakeAPI, replicas: list[Replica]) -> Replica:
    """The one that leads, once each Ingress says its address."""
    by_name = {replica.name: replica for replica in replicas}
    await until(lambda: leader(api) in by_name and set(said(api)) == {by_name[leader(api)].address})
    return by_name[leader(api)]


async def test_one_writes_once_and_then_all_are_quiet() -> None:
    api = FakeAPI()
    replicas = await started(api, 3)
    first = await all_say_the_leader(api, replicas)
    assert writes(api) == 2
    await asyncio.sleep(120)
    assert writes(api) == 2
    await make(api, "c")
    await until(lambda: said(api)[-1] == first.address)
    await asyncio.sleep(120)
    assert writes(api) == 3
    assert sum(replica.leadership.held for replica in replicas) == 1
    for replica in replicas:
        await replica.end()
    api.assert_untouched()


@pytest.mark.parametrize("gently", [True, False])
async def test_another_takes_over_from_a_leader_that_ends_or_is_killed(gently: bool) -> None:
    api = FakeAPI()
    replicas = await started(api, 3)
    first = await all_say_the_leader(api, replicas)
    if gently:
        first.leadership.resign()
        assert not first.leadership.held
    else:

        def gone(method: str, path: str, _: Any) -> None:
            if "/leases/" in path:
                raise ConnectionError("it was killed, and gives nothing back")

        api.before = gone
        await first.end()
        api.before = None
        assert leader(api) == first.name
    others = [replica for replica in replicas if replica is not first]
    second = await all_say_the_leader(api, others)
    assert second is not first and writes(api) == 4
    await asyncio.sleep(120)
    assert writes(api) == 4
    for replica in replicas:
        await replica.end()


async def test_whoever_has_resigned_writes_no_more() -> None:
    api = FakeAPI()
    await Client(api).create(INGRESS_CLASSES, CLASS)
    replica = Replica(api, "alone", "192.0.2.1", alone=True)
    await make(api, "a")
    await until(lambda: said(api) == ["192.0.2.1"])
    replica.leadership.resign()
    await make(api, "b")
    await asyncio.sleep(60)
    assert said(api) == ["192.0.2.1", ""] and not api.find(LEASES)
    await replica.end()


async def test_statuses_are_left_alone_where_that_was_told() -> None:
    api = FakeAPI()
    await Client(api).create(INGRESS_CLASSES, CLASS)
    await make(api, "a")
    replica = Replica(api, "alone", "192.0.2.1", alone=True, update_status=False)
    await until(lambda: replica.leadership.held)
    await asyncio.sleep(60)
    assert said(api) == [""] and not writes(api)
    await replica.end()
