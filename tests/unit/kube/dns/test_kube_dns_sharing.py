"""Room that clients share."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.dns.sharing import Shares

CLIENTS = st.sampled_from("abcde")


def come(shares: Shares[int], client: str, number: int) -> str | None:
    """The client takes a place; who had to give one for it."""
    giver = shares.who_gives(client)
    if giver is not None:
        given = shares.oldest(giver)
        assert given is not None
        shares.give(giver, given)
    shares.take(client, number)
    return giver


def test_who_is_alone_has_as_many_as_one_may_have():
    shares: Shares[int] = Shares(8, of_one=6)
    assert [come(shares, "a", n) for n in range(7)] == [None] * 6 + ["a"]
    assert len(shares) == 6 and shares.oldest("a") == 1


def test_who_comes_late_finds_its_share():
    shares: Shares[int] = Shares(8, of_one=8)
    for n in range(8):
        come(shares, "a", n)
    assert [come(shares, "b", n) for n in range(6)] == ["a"] * 4 + ["b"] * 2
    assert come(shares, "c", 0) == "a"


def test_what_was_used_lately_stays_longest():
    shares: Shares[int] = Shares(2, of_one=2)
    come(shares, "a", 1)
    come(shares, "a", 2)
    shares.renew("a", 1)
    come(shares, "a", 3)
    assert shares.oldest("a") == 1
    shares.renew("a", 2)  # no longer there
    shares.give("a", 2)
    assert len(shares) == 2


@given(
    st.integers(1, 12), st.integers(1, 12), st.lists(st.tuples(st.booleans(), CLIENTS), max_size=80)
)
def test_nobody_loses_a_fair_share_to_others(places: int, of_one: int, steps: list):
    shares: Shares[int] = Shares(places, of_one)
    held: Counter[str] = Counter()
    for number, (comes, client) in enumerate(steps):
        if comes:
            had = held[client]
            giver = shares.who_gives(client)
            if giver is not None and giver != client:
                # Only of who has more, and nobody is left with less than it.
                assert held[giver] > had and held[giver] == max(held.values())
            if giver == client:
                # Refused only with its share or more.
                others = sum(1 for other in held if held[other] and other != client)
                assert had >= min(of_one, places // (others + 1))
            if giver != client or had:
                come(shares, client, number)
                held[giver or ""] -= giver is not None
                held[client] += 1
        elif held[client]:
            oldest = shares.oldest(client)
            assert oldest is not None
            shares.give(client, oldest)
            held[client] -= 1
        assert len(shares) == sum(held[c] for c in "abcde") <= places
        assert max(held.values(), default=0) <= of_one
