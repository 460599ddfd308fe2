"""Who has which address."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.network.address_pool import AddressPool, PoolExhausted


def test_addresses_rise_and_first_last_and_reserved_are_spared() -> None:
    pool = AddressPool("10.0.0.0/29", reserved=("10.0.0.1", ""))
    assert [pool.allocate(f"c{n}") for n in range(5)] == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(PoolExhausted):
        pool.allocate("one too many")


def test_an_owner_keeps_its_address() -> None:
    pool = AddressPool("10.0.0.0/24")
    assert pool.allocate("a") == pool.allocate("a") == "10.0.0.1"
    assert pool.owners() == {"a": "10.0.0.1"}


def test_the_lowest_free_address_is_given() -> None:
    pool = AddressPool("10.0.0.0/29", reserved=("10.0.0.1",))
    for name in "abc":
        pool.allocate(name)
    pool.release("c")
    pool.release("a")
    assert [pool.allocate(f"x{n}") for n in range(3)] == ["10.0.0.2", "10.0.0.4", "10.0.0.5"]


def test_a_part_of_the_range_can_be_given_out() -> None:
    pool = AddressPool("10.0.0.0/16", part="10.0.5.0/30")
    assert [pool.allocate(f"c{n}") for n in range(4)] == [f"10.0.5.{n}" for n in range(4)]
    with pytest.raises(PoolExhausted):
        pool.allocate("one too many")
    assert pool.claim("asked for", "10.0.9.9") == "10.0.9.9"


def test_addresses_of_ipv6() -> None:
    pool = AddressPool("fd00:1::/64", reserved=("fd00:1::1",))
    assert pool.allocate("a") == "fd00:1::2"
    assert pool.claim("b", "fd00:1:0:0::99") == "fd00:1::99"
    assert "fd00:2::1" not in pool and "10.0.0.1" not in pool
    with pytest.raises(ValueError):
        pool.claim("c", "fd00:1::99")


def test_a_released_address_is_the_last_to_be_given_again_where_they_rotate() -> None:
    pool = AddressPool("10.0.0.0/29", rotating=True)
    for name in "abc":
        pool.allocate(name)
    pool.release("a")
    assert [pool.allocate(f"x{n}") for n in range(3)] == ["10.0.0.4", "10.0.0.5", "10.0.0.6"]
    assert pool.allocate("y") == "10.0.0.1"


def test_a_claim_gets_that_address_or_none() -> None:
    pool = AddressPool("10.0.0.0/24", reserved=("10.0.0.1",))
    assert pool.claim("a", "10.0.0.9") == "10.0.0.9"
    assert pool.claim("a", "10.0.0.9") == "10.0.0.9"
    for owner, address in (
        ("b", "10.0.0.9"),
        ("b", "10.0.0.1"),
        ("b", "10.0.1.1"),
        ("b", "10.0.0.0"),
        ("b", "10.0.0.255"),
        ("a", "10.0.0.10"),
        ("b", "nonsense"),
    ):
        with pytest.raises(ValueError):
            pool.claim(owner, address)
    pool.release("a")
    pool.release("nobody")
    assert pool.claim("b", "10.0.0.9") == "10.0.0.9"


@pytest.mark.parametrize("cidr", ["10.0.0.0/32", "10.0.0.0/31"])
def test_a_range_too_small_has_none(cidr: str) -> None:
    with pytest.raises(PoolExhausted):
        AddressPool(cidr).allocate("a")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20))))
def test_nobody_shares_an_address(steps: list[tuple[bool, int]]) -> None:
    pool = AddressPool("10.0.0.0/28", reserved=("10.0.0.1",))
    for release, number in steps:
        try:
            pool.release(str(number)) if release else pool.allocate(str(number))
        except PoolExhausted:
            assert len(pool.owners()) == 13
        owned = list(pool.owners().values())
        assert len(set(owned)) == len(owned)
        assert "10.0.0.1" not in owned
        assert all(ipaddress.ip_address(a) in ipaddress.ip_network(pool.cidr) for a in owned)
