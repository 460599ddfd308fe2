"""How long what failed is left alone: 10 s, doubling up to 5 min, and anew after a good while."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.kubelet.backoff import Backoff, go_duration


def _waits(backoff: Backoff, runs: list[float]) -> list[float]:
    """What each failure costs, where a try comes when its wait is over, and lasts so long."""
    now, waits = 0.0, []
    for lasted in runs:
        failed_at = now + lasted
        wait = backoff.remaining("c", failed_at, failed_at)
        waits.append(wait)
        now = failed_at + wait
        backoff.next("c", failed_at, now)
    return waits


def test_the_first_restart_is_at_once_then_each_wait_is_twice_the_last() -> None:
    waits = _waits(Backoff(), [0.0] * 9)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_who_ran_for_twice_the_longest_wait_begins_anew() -> None:
    waits = _waits(Backoff(), [0, 0, 0, 0, 601.0, 0])
    assert waits == [0, 10, 20, 40, 0, 10]
    waits = _waits(Backoff(), [0, 0, 0, 0, 599.0, 0])
    assert waits == [0, 10, 20, 40, 80, 160]


def test_what_is_reset_begins_anew_and_others_are_others() -> None:
    backoff = Backoff()
    _waits(backoff, [0.0] * 4)
    assert backoff.remaining("other", 1.0, 1.0) == 0
    backoff.reset("c")
    assert backoff.delay("c") == 0


@given(st.lists(st.floats(0, 1000), max_size=30), st.floats(1, 600))
def test_no_wait_is_longer_than_the_longest(runs: list[float], longest: float) -> None:
    assert all(0 <= wait <= longest for wait in _waits(Backoff(longest=longest), runs))


def test_durations_are_written_as_go_does() -> None:
    assert [go_duration(s) for s in (10, 40, 160, 300, 3600)] == [
        "10s", "40s", "2m40s", "5m0s", "1h0m0s",
    ]  # fmt: skip
