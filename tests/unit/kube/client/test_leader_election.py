from __future__ import annotations

import asyncio
import contextlib

import pytest
from fake_api import FakeAPI

from wherry.kube.api.resources import LEASES
from wherry.kube.client.client import Client
from wherry.kube.client.election import LeaderElector, LeadershipLost


def elector(api: FakeAPI, identity: str) -> LeaderElector:
    return LeaderElector(
        Client(api),
        "scheduler",
        identity,
        lease_duration=0.3,
        renew_deadline=0.2,
        retry_period=0.02,
    )


class Replica:
    def __init__(self, api: FakeAPI, identity: str) -> None:
        self.leads = asyncio.Event()
        self.stopped = asyncio.Event()
        self.task = asyncio.ensure_future(elector(api, identity).run(self.lead))

    async def lead(self) -> None:
        self.leads.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()

    async def end(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def test_one_leads_and_the_other_takes_over_at_once_when_it_steps_down():
    api = FakeAPI()
    first = Replica(api, "first")
    await asyncio.wait_for(first.leads.wait(), 1)
    second = Replica(api, "second")
    await asyncio.sleep(0.5)
    assert not second.leads.is_set()
    assert not first.stopped.is_set()
    await first.end()
    await asyncio.wait_for(second.leads.wait(), 0.1)
    lease = api.get(LEASES, "scheduler", "kube-system")
    assert lease["spec"]["holderIdentity"] == "second"
    assert lease["spec"]["leaseTransitions"] == 1
    await second.end()
    assert api.get(LEASES, "scheduler", "kube-system")["spec"]["holderIdentity"] == ""


async def test_a_leader_that_vanished_is_replaced_when_its_lease_has_run_out():
    api = FakeAPI()
    ghost = elector(api, "ghost")
    assert await ghost._attempt()
    began = asyncio.get_running_loop().time()
    second = Replica(api, "second")
    await asyncio.wait_for(second.leads.wait(), 2)
    assert asyncio.get_running_loop().time() - began >= 0.29
    await second.end()


async def test_a_leader_cut_off_stops_before_another_may_begin():
    api = FakeAPI()
    first = Replica(api, "first")
    await asyncio.wait_for(first.leads.wait(), 1)

    def cut(*_):
        raise ConnectionError("cut off")

    api.before = cut
    await asyncio.wait_for(first.stopped.wait(), 0.29)
    with pytest.raises(LeadershipLost):
        await first.task


async def test_the_leader_returns_when_its_work_does():
    api = FakeAPI()

    async def lead() -> None:
        return

    await asyncio.wait_for(elector(api, "only").run(lead), 1)
    assert api.get(LEASES, "scheduler", "kube-system")["spec"]["holderIdentity"] == ""


async def test_a_failure_of_the_work_is_the_callers():
    async def lead() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await elector(FakeAPI(), "only").run(lead)
