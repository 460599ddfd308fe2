"""What the enforcer asks of nftables, and when a pod may start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from fake_api import FakeAPI

from wherry.kube.api.resources import NAMESPACES, NETWORK_POLICIES, PODS
from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.network_policy.enforcer import Enforcer, Running
from wherry.net.nftables.nft import NftError


class Kernel:
    """Keeps the scripts; refuses as many as it is told to."""

    def __init__(self) -> None:
        self.scripts: list[str] = []
        self.refuse = 0
        self.came = asyncio.Event()

    async def run(self, script: str) -> None:
        if self.refuse:
            self.refuse -= 1
            raise NftError("no")
        self.scripts.append(script)
        self.came.set()

    async def says(self, text: str) -> None:
        """Return when a script with ``text`` has come."""
        async with asyncio.timeout(60):
            while not any(text in script for script in self.scripts):
                self.came.clear()
                await self.came.wait()


def pod(name: str, ip: str = "", node: str = "here", **spec: Any) -> dict[str, Any]:
    status = {"podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running"} if ip else {}
    return {
        "metadata": {"name": name, "namespace": "red", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c"}], **spec},
        "status": status,
    }


def policy(name: str, **spec: Any) -> dict[str, Any]:
    made = {"podSelector": {}, "policyTypes": ["Ingress"], **spec}
    return {"metadata": {"name": name, "namespace": "red"}, "spec": made}


class Stage:
    def __init__(self) -> None:
        self.api = FakeAPI()
        self.client = Client(self.api)
        self.kernel = Kernel()
        self.runs: list[Running] = []

    async def running(self) -> list[Running]:
        return self.runs

    @contextlib.asynccontextmanager
    async def enforcer(self) -> AsyncIterator[Enforcer]:
        informers = SharedInformers(self.client)
        enforcer = Enforcer(
            informers, self.kernel, table="t", node_name="here", running=self.running
        )
        informers.start()
        task = asyncio.create_task(enforcer.run())
        try:
            yield enforcer
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await informers.stop()


def played(play: Callable[[Stage], Any]) -> None:
    async def run() -> None:
        stage = Stage()
        await stage.client.create(NAMESPACES, {"metadata": {"name": "red"}})
        await play(stage)

    asyncio.run(run())


def test_without_policies_what_a_former_process_left_goes() -> None:
    async def play(stage: Stage) -> None:
        async with stage.enforcer() as enforcer:
            await enforcer.cover(pod("a"), ("10.0.0.1",))
        assert stage.kernel.scripts == ["table inet t\ndelete table inet t\n"]

    played(play)


def test_a_pod_is_covered_by_every_policy_written_before() -> None:
    async def play(stage: Stage) -> None:
        async with stage.enforcer() as enforcer:
            made = await stage.client.create(PODS, pod("a"))
            await stage.client.create(NETWORK_POLICIES, policy("deny"))
            await enforcer.cover(made, ("10.0.0.1",))
            (frame,) = (s for s in stage.kernel.scripts if "chain always" in s)
            assert "10.0.0.1 : " in frame or any("10.0.0.1 :" in s for s in stage.kernel.scripts)
            before = len(stage.kernel.scripts)
            await enforcer.cover(made, ("10.0.0.1",))
            assert len(stage.kernel.scripts) == before

    played(play)


def _refuse(*_: Any) -> None:
    raise ConnectionRefusedError("no")


def test_a_pod_that_needs_no_api_starts_without_and_is_judged_when_it_answers() -> None:
    async def play(stage: Stage) -> None:
        await stage.client.create(NETWORK_POLICIES, policy("deny"))
        stage.api.before = _refuse
        async with stage.enforcer() as enforcer, asyncio.timeout(60):
            waiting = asyncio.create_task(enforcer.cover(pod("a"), ("10.0.0.1",)))
            await enforcer.cover(pod("static"), ("10.0.0.2",), alone=True)
            assert not waiting.done() and not stage.kernel.scripts
            stage.api.before = None
            await stage.kernel.says("10.0.0.2 :")
            await waiting
            await stage.client.create(NETWORK_POLICIES, policy("more"))
            await enforcer.cover(pod("static"), ("10.0.0.2",), alone=True)
            assert any("more" in s for s in stage.kernel.scripts)

    played(play)


def test_what_is_known_holds_for_a_pod_that_starts_when_the_api_has_gone() -> None:
    async def play(stage: Stage) -> None:
        await stage.client.create(NETWORK_POLICIES, policy("deny"))
        async with stage.enforcer() as enforcer, asyncio.timeout(60):
            await enforcer.cover(pod("a"), ("10.0.0.1",))
            stage.api.before = _refuse
            await enforcer.cover(pod("static"), ("10.0.0.2",), alone=True)
            assert "10.0.0.2 :" in stage.kernel.scripts[-1]

    played(play)


def test_cover_that_was_given_up_is_waited_for_again() -> None:
    async def play(stage: Stage) -> None:
        await stage.client.create(NETWORK_POLICIES, policy("deny"))
        made = await stage.client.create(PODS, pod("a"))
        stage.kernel.refuse = 2
        async with stage.enforcer() as enforcer:
            first = asyncio.create_task(enforcer.cover(made, ("10.0.0.1",)))
            await asyncio.sleep(0)
            first.cancel()
            await enforcer.cover(made, ("10.0.0.1",))
            assert "10.0.0.1 :" in stage.kernel.scripts[-1]

    played(play)


def test_what_runs_already_is_known_before_the_first_rules() -> None:
    async def play(stage: Stage) -> None:
        made = await stage.client.create(PODS, pod("a"))
        await stage.client.create(PODS, pod("hosted", hostNetwork=True))
        await stage.client.create(NETWORK_POLICIES, policy("deny"))
        stage.runs = [
            Running("red", "a", made["metadata"]["uid"], ("10.0.0.1",)),
            Running("red", "a-former", "other", ("10.0.0.2",)),
        ]
        async with stage.enforcer():
            await stage.kernel.says("chain always")
        assert "10.0.0.1 :" in stage.kernel.scripts[0]
        assert "10.0.0.2" not in stage.kernel.scripts[0]

    played(play)


def test_an_address_is_its_new_owners_at_once() -> None:
    async def play(stage: Stage) -> None:
        await stage.client.create(PODS, pod("old", "10.0.0.1"))
        await stage.client.create(
            NETWORK_POLICIES, policy("deny", podSelector={"matchLabels": {"app": "old"}})
        )
        async with stage.enforcer() as enforcer:
            await stage.kernel.says("10.0.0.1 :")
            made = await stage.client.create(PODS, pod("new"))
            await enforcer.cover(made, ("10.0.0.1",))
            assert "delete element inet t ingress4 { 10.0.0.1 }" in stage.kernel.scripts[-1]
            enforcer.uncover(made)
            await stage.kernel.says("add element inet t ingress4 { 10.0.0.1")

    played(play)


def test_a_policy_that_cannot_be_read_lets_nothing_through() -> None:
    async def play(stage: Stage) -> None:
        broken = policy("x", ingress=[{}, {"from": [{"ipBlock": {"cidr": "nonsense"}}]}])
        await stage.client.create(PODS, pod("a", "10.0.0.1"))
        await stage.client.create(NETWORK_POLICIES, broken)
        async with stage.enforcer():
            await stage.kernel.says("10.0.0.1 :")
        assert (
            " accept"
            not in stage.kernel.scripts[-1].partition("chain ingress {")[2].partition("\n}\n")[2]
        )

    played(play)


def test_what_the_kernel_refused_is_said_again_in_whole() -> None:
    async def play(stage: Stage) -> None:
        await stage.client.create(PODS, pod("a", "10.0.0.1"))
        await stage.client.create(NETWORK_POLICIES, policy("deny"))
        stage.kernel.refuse = 2
        async with stage.enforcer():
            await stage.kernel.says("10.0.0.1 :")
        assert stage.kernel.scripts[0].startswith("table inet t\ndelete table inet t\n")

    played(play)


def test_the_name_server_is_known_when_the_node_has_its_range() -> None:
    async def play(stage: Stage) -> None:
        informers = SharedInformers(stage.client)
        where: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        enforcer = Enforcer(informers, stage.kernel, table="t", node_name="here", name_server=where)
        informers.start()
        task = asyncio.create_task(enforcer.run())
        await stage.client.create(NETWORK_POLICIES, policy("deny"))
        await stage.kernel.says("chain always")
        where.set_result(("10.0.0.254",))
        await stage.kernel.says("add element inet t names4 { 10.0.0.254 }")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await informers.stop()

    played(play)
