"""Addresses of Services over random histories: none is given twice, none is lost."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from apiserver_harness import service
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.kube.api.errors import StatusError
from wherry.kube.api.families import family_of
from wherry.kube.api.kinds import KINDS
from wherry.kube.apiserver.allocation.pools import AddressRange
from wherry.kube.apiserver.allocation.services import Allocations
from wherry.kube.apiserver.objects import Stored
from wherry.kube.apiserver.resource_cache import Event

RANGES = {"IPv4": "10.0.0.0/28", "IPv6": "fd00:9::/124"}
SERVICE = KINDS["", "v1", "services"]


class Step(NamedTuple):
    """Service ``name`` is to have ``spec``, None to be deleted; the write may fail."""

    name: str
    spec: dict[str, Any] | None
    fails: bool


class Quiet:
    """A cache of nothing."""

    def list(self) -> list[Stored]:
        return []

    def listen(self, tell: Callable[[Event], None]) -> None:
        return


class World:
    """The Services, and what follows their events."""

    def __init__(self, cidrs: str) -> None:
        self.services: dict[str, dict[str, Any]] = {}
        self._tell: Callable[[Event], None]
        self.allocations = Allocations(cidrs)
        nothing = Quiet()
        self.allocations.follow(self, nothing, nothing)  # type: ignore[arg-type]

    def list(self) -> list[Stored]:
        return []

    def listen(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell

    def do(self, step: Step) -> None:
        old = self.services.get(step.name)
        if step.spec is None:
            if old is not None:
                self._store(step.name, None)
            return
        new = service(step.name, **copy.deepcopy(step.spec))
        new["metadata"] |= {"namespace": "default", "uid": step.name}
        if old is None:
            SERVICE.default(new)
            SERVICE.prepare_create(new)
            faults = SERVICE.validate(new)
        else:
            SERVICE.default(new)
            new["metadata"]["resourceVersion"] = "1"
            SERVICE.prepare_update(new, copy.deepcopy(old))
            faults = SERVICE.validate_update(new, old)
        if faults:
            return
        try:
            taken = self.allocations.take(new, old)
        except StatusError:
            return
        if not step.fails:
            self._store(step.name, new)
        taken.settle()

    def _store(self, name: str, new: dict[str, Any] | None) -> None:
        old = self.services.pop(name, None)
        if new is not None:
            self.services[name] = new
        before = Stored(name, 1, object=old) if old else None
        self._tell(Event(name, 2, Stored(name, 2, object=new) if new else None, before))

    def check(self) -> None:
        given = []
        for made in self.services.values():
            spec = made["spec"]
            if spec["type"] == "ExternalName":
                assert not spec.keys() & {"clusterIP", "clusterIPs", "ipFamilies"}
                continue
            assert spec["clusterIP"] == spec["clusterIPs"][0]
            if spec["clusterIP"] == "None":
                continue
            assert [family_of(address) for address in spec["clusterIPs"]] == spec["ipFamilies"]
            assert set(spec["ipFamilies"]) <= set(self.allocations.families)
            given += spec["clusterIPs"]
        assert len(given) == len(set(given))


specs = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["ClusterIP", "ExternalName"]),
        "externalName": st.just("example.com"),
        "ipFamilies": st.sampled_from([["IPv4"], ["IPv6"], ["IPv4", "IPv6"], ["IPv6", "IPv4"]]),
        "ipFamilyPolicy": st.sampled_from(["SingleStack", "PreferDualStack", "RequireDualStack"]),
        "clusterIP": st.sampled_from(["None", "10.0.0.3", "fd00:9::3", "10.1.0.1"]),
    },
)
steps = st.builds(Step, st.sampled_from("abcdefghijklmnopqrs"), specs | st.none(), st.booleans())


@settings(deadline=None)
@given(
    st.sampled_from([["IPv4"], ["IPv6"], ["IPv4", "IPv6"], ["IPv6", "IPv4"]]),
    st.lists(steps, max_size=40),
)
def test_no_address_is_given_twice_and_none_is_lost(families: list[str], done: list[Step]) -> None:
    world = World(",".join(RANGES[family] for family in families))
    for step in done:
        world.do(step)
        world.check()
    for name in tuple(world.services):
        world.do(Step(name, None, False))
    for pool in world.allocations.pools.values():
        (only,) = pool.ranges
        every = {pool.choose() for _ in range(only.size)}
        assert len(every) == only.size


def test_a_history_may_give_a_second_address_and_take_it_back() -> None:
    world = World(",".join(RANGES.values()))
    shown = []
    for spec in (
        {},
        {"ipFamilyPolicy": "RequireDualStack"},
        {"ipFamilyPolicy": "SingleStack"},
        {"type": "ExternalName", "externalName": "example.com"},
        {"clusterIP": "fd00:9::3"},
    ):
        world.do(Step("a", spec, False))
        world.check()
        shown.append(world.services["a"]["spec"].get("ipFamilies"))
    assert shown == [["IPv4"], ["IPv4", "IPv6"], ["IPv4"], None, ["IPv6"]]


def test_the_last_address_is_no_broadcast_in_ipv6() -> None:
    assert (AddressRange("10.0.0.0/28").size, AddressRange("fd00:9::/124").size) == (14, 15)
