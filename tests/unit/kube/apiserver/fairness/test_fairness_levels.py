"""Seats, queues and their turns, without a server."""

from __future__ import annotations

import asyncio

import pytest

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.fairness.levels import Level, Rules, Seats, hand, rules
from wherry.kube.apiserver.fairness.widths import of_list


def limited(shares: int, queues: int = 64, hand: int = 6, length: int = 50) -> dict[str, object]:
    queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": length}
    response = {"type": "Queue", "queuing": queuing}
    return {
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": shares, "limitResponse": response},
    }


def level(**given: int) -> Level:
    made = Level("test")
    made.follow(Rules(**{"seats": 2, "queues": 16, "hand": 4, "longest": 50, **given}))
    return made


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_levels_share_all_seats_by_their_shares_and_exempt_ones_have_no_limit() -> None:
    reject = {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {}}}
    found = rules({"a": limited(30), "b": limited(10), "c": reject, "e": {"type": "Exempt"}}, 600)
    assert found["a"] == Rules(440, 64, 6, 50)
    assert found["b"] == Rules(147, 64, 6, 50)
    assert found["c"] == Rules(15, 0, 0, 50)
    assert found["e"] == Rules()


def test_a_hand_has_different_queues_and_is_always_the_same() -> None:
    for flow in map(str, range(100)):
        cards = hand(flow, 64, 6)
        assert len(set(cards)) == 6
        assert all(0 <= card < 64 for card in cards)
        assert cards == hand(flow, 64, 6)
    assert len({hand(str(n), 64, 6) for n in range(100)}) == 100


def test_a_list_takes_a_seat_for_each_hundred_objects_up_to_ten() -> None:
    assert [of_list(n, "") for n in (0, 100, 101, 500, 17_600)] == [1, 1, 2, 5, 10]
    assert of_list(17_600, "500") == 5
    assert of_list(100, "500") == 1
    assert of_list(17_600, "many") == 10


async def test_while_there_are_seats_nobody_waits() -> None:
    seats = level()
    assert isinstance(seats.at_once(1), Seats)
    assert isinstance(seats.at_once(1), Seats)
    assert seats.at_once(1) is None


async def test_who_is_wider_than_the_level_takes_all_of_it() -> None:
    seats = level()
    taken = seats.at_once(10)
    assert taken is not None and seats.in_use == 2
    taken.leave()
    taken.leave()
    assert seats.in_use == 0


async def test_queues_take_turns_so_that_one_who_floods_is_not_before_others() -> None:
    seats = level(seats=1)
    order: list[str] = []

    async def ask(who: str) -> None:
        taken = await seats.enter(who, 1)
        order.append(who)
        await asyncio.sleep(0)
        taken.leave()

    held = await seats.enter("someone", 1)
    asking = [asyncio.ensure_future(ask("flood")) for _ in range(40)]
    await settle()
    asking.append(asyncio.ensure_future(ask("calm")))
    await settle()
    held.leave()
    await asyncio.gather(*asking)
    assert order.index("calm") < 10
    assert seats.in_use == seats.waiting == 0


async def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    seats = level(seats=1, queues=1, hand=1, longest=2)
    held = await seats.enter("a", 1)
    waiting = [asyncio.ensure_future(seats.enter("a", 1)) for _ in range(2)]
    await settle()
    with pytest.raises(StatusError) as refused:
        await seats.enter("a", 1)
    assert refused.value.code == 429
    assert (refused.value.details or {})["retryAfterSeconds"] == 1
    held.leave()
    for each in waiting:
        (await each).leave()


async def test_a_level_that_rejects_has_no_queue() -> None:
    seats = level(seats=1, queues=0, hand=0)
    held = await seats.enter("a", 1)
    with pytest.raises(StatusError):
        await seats.enter("a", 1)
    held.leave()
    (await seats.enter("a", 1)).leave()


async def test_who_hangs_up_while_he_waits_takes_no_seat() -> None:
    seats = level(seats=1)
    held = await seats.enter("a", 1)
    gone = asyncio.ensure_future(seats.enter("b", 1))
    late = asyncio.ensure_future(seats.enter("c", 1))
    await settle()
    gone.cancel()
    late_gone = asyncio.ensure_future(seats.enter("d", 1))
    await settle()
    held.leave()
    late_gone.cancel()  # in the moment in which it may have been let in
    (await late).leave()
    await settle()
    assert seats.in_use == seats.waiting == 0


async def test_more_seats_let_in_who_waits() -> None:
    seats = level(seats=1)
    held = await seats.enter("a", 1)
    waiting = asyncio.ensure_future(seats.enter("b", 1))
    await settle()
    seats.follow(Rules(2, 16, 4, 50))
    (await waiting).leave()
    held.leave()
    assert seats.in_use == 0
