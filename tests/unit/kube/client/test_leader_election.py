from __future__ import annotations

import asyncio
import contextlib
import copy
import logging

import idle_clock
import pytest
from fake_api import FakeAPI

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import LEASES
from wherry.kube.client.client import Client
from wherry.kube.client.election import LeaderElector, LeadershipLost


@pytest.fixture(autouse=True)
async def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    idle_clock.install(monkeypatch)


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


@pytest.mark.parametrize("before", [1, 2])
async def test_a_renewal_that_was_cancelled_on_its_way_does_not_keep_the_lease(before: int):
    api = FakeAPI()
    first = Replica(api, "first")
    await asyncio.wait_for(first.leads.wait(), 1)
    steps = 0

    def renewed(*_):
        """Its write arrives before the lease is read to be given back, or only then."""
        nonlocal steps
        steps += 1
        if steps == before:
            late = copy.deepcopy(api.get(LEASES, "scheduler", "kube-system"))
            late["spec"]["renewTime"] = "2026-01-01T00:00:00.000000Z"
            api._update(LEASES, api.get(LEASES, "scheduler", "kube-system"), late, "")

    first.task.cancel()
    api.before = renewed
    await first.end()
    assert steps >= before
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


async def test_whoever_may_not_stand_for_election_is_told_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = FakeAPI()

    def denied(*_):
        raise StatusError(403, "Forbidden", "no rights to leases")

    api.before = denied
    with caplog.at_level(logging.WARNING, "wherry.kube.client.election"):
        mine = elector(api, "mine")
        assert not await mine._attempt()
        assert not await mine._attempt()
    assert [record.message for record in caplog.records] == [
        "kube-system/scheduler: no rights to leases"
    ]


async def test_an_answer_that_comes_after_later_news_changes_nothing():
    mine = elector(FakeAPI(), "mine")
    for version, holder in (("5", ""), ("4", "other")):
        metadata = {"name": "scheduler", "resourceVersion": version}
        mine._observe({"metadata": metadata, "spec": {"holderIdentity": holder}})
    assert mine._observed is not None and mine._observed["holderIdentity"] == ""


async def test_a_lease_from_a_backup_has_its_holder_though_it_is_older_than_what_was_seen():
    api = FakeAPI()
    mine = elector(api, "mine")
    metadata = {"name": "scheduler", "resourceVersion": "1000000"}
    mine._observe({"metadata": metadata, "spec": {"holderIdentity": "gone"}})
    other = Replica(api, "other")
    await other.leads.wait()
    assert not await mine._attempt()
    assert mine._observed is not None and mine._observed["holderIdentity"] == "other"
    await other.end()


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
