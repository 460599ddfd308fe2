from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from wherry.kube.controllers.service_cidr import condition, is_held, remaining, taken

Object = dict[str, Any]


def named(name: str, *cidrs: str, going: bool = False) -> Object:
    metadata: Object = {"name": name}
    if going:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata, "spec": {"cidrs": list(cidrs)}}


def address(name: str, by: str = "ipallocator.k8s.io") -> Object:
    return {"metadata": {"name": name, "labels": {"ipaddress.kubernetes.io/managed-by": by}}}


@pytest.mark.parametrize(
    ("others", "addresses", "held"),
    [
        ([], [], False),
        ([], ["10.97.0.9"], True),
        ([], ["10.96.0.9", "fd00::9"], False),
        ([], ["10.97.0.0", "10.97.0.255"], False),  # no Service has these
        ([named("wide", "10.0.0.0/8")], ["10.97.0.9"], False),
        ([named("same", "10.97.0.0/24")], ["10.97.0.9"], False),
        ([named("same", "10.97.0.0/24", going=True)], ["10.97.0.9"], True),
        ([named("half", "10.97.0.0/25")], ["10.97.0.9"], False),
        ([named("half", "10.97.0.0/25")], ["10.97.0.200"], True),
        ([named("six", "fd00::/112")], ["10.97.0.9", "fd00::9"], True),
    ],
)
def test_a_range_is_held_by_addresses_that_are_in_no_other(
    others: list[Object], addresses: list[str], held: bool
) -> None:
    o = named("more", "10.97.0.0/24", going=True)
    assert is_held(o, [o, *others], map(address, addresses)) is held


def test_addresses_of_others_hold_nothing() -> None:
    o = named("more", "10.97.0.0/24", going=True)
    assert not is_held(o, [o], [address("10.97.0.9", "somebody")])


def test_of_two_families_each_may_hold_it() -> None:
    o = named("more", "10.97.0.0/24", "fd00::/112", going=True)
    wide = named("wide", "10.0.0.0/8")
    assert not is_held(o, [o, wide], [address("10.97.0.9")])
    assert is_held(o, [o, wide], [address("fd00::9")])


def test_it_says_whether_it_is_ready() -> None:
    moment = "2026-01-01T00:00:00Z"
    ready = condition(named("more", "10.97.0.0/24"), held=False, moment=moment)
    assert ready is not None
    assert (ready["status"], ready["message"]) == ("True", "Kubernetes Service CIDR is ready")
    going = named("more", "10.97.0.0/24", going=True)
    held = condition(going, held=True, moment=moment)
    assert held is not None
    assert (held["status"], held["reason"]) == ("False", "Terminating")
    assert condition(going, held=False, moment=moment) is None


def test_one_that_goes_stays_a_little() -> None:
    going = named("more", "10.97.0.0/24", going=True)
    assert remaining(going, datetime(2026, 1, 1, 0, 0, 4, tzinfo=UTC)) == 6


def test_one_in_which_there_is_something_is_not_ready() -> None:
    node = {
        "metadata": {"name": "b"},
        "spec": {"podCIDRs": ["10.244.1.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "198.51.100.7"}]},
    }
    pods = ["10.244.0.0/16"]
    assert taken(named("more", "10.97.0.0/24"), pods, [node]) == ""
    assert taken(named("kubernetes", "198.51.100.0/24"), pods, [node]) == ""
    found = taken(named("more", "fd00::/112", "198.51.100.0/24"), pods, [node])
    assert found == "198.51.100.0/24 overlaps 198.51.100.7, an address of node b"
    found = taken(named("more", "10.0.0.0/8"), pods, [node])
    assert found == "10.0.0.0/8 overlaps 10.244.1.0/24, the pods of node b"
    found = taken(named("more", "10.244.9.0/28"), pods, [])
    assert found == "10.244.9.0/28 overlaps 10.244.0.0/16, the pods of the cluster"
    said = condition(named("more", "10.244.9.0/28"), held=False, moment="now", taken=found)
    assert said is not None
    assert (said["status"], said["reason"]) == ("False", "RangeOverlaps")
    assert said["message"] == f"{found}: no addresses are given of it"
