"""An autoscaler over random recommendations stays between its bounds, grows and shrinks no faster
than its policies let it, and gets where it is told to in the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.kube.controllers.autoscaling.behavior import Bounds, History, decide

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=40),
    st.tuples(st.integers(1, 5), st.integers(15, 120), st.sampled_from([0, 60])),
    st.tuples(st.integers(1, 5), st.integers(15, 120), st.sampled_from([0, 60])),
)
def test_it_keeps_to_its_bounds_and_its_pace_and_arrives(wanted: list, up: tuple, down: tuple):
    def rule(value: int, period: int, window: int) -> dict:
        policy = {"type": "Pods", "value": value, "periodSeconds": period}
        return {"policies": [policy], "stabilizationWindowSeconds": window}

    behavior = {"scaleUp": rule(*up), "scaleDown": rule(*down)}
    history, current, moment = History(), 10, NOW
    steps: list[tuple[datetime, int]] = []
    last = wanted[-1]
    for desired in [*wanted, *[last] * 600]:
        moment += timedelta(seconds=15)
        bounds = Bounds(2, 40, current)
        found = decide(behavior, history, desired, bounds, moment, 300.0)
        assert 2 <= found.replicas <= 40
        history.recommended(desired, moment)
        history.scaled(current, found.replicas, moment)
        steps.append((moment, found.replicas - current))
        current = found.replicas
        for (value, period, _), sign in ((up, 1), (down, -1)):
            since = moment - timedelta(seconds=period)
            recent = sum(change for when, change in steps[-9:] if when > since)
            steady = all(sign * change >= 0 for _, change in steps[-18:])
            assert not steady or sign * recent <= value, "no faster than the policy"
        if len(steps) > len(wanted) and current == max(2, min(40, last)):
            break
    assert current == max(2, min(40, last))
