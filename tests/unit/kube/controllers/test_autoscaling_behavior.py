"""What is done of a recommendation: windows, policies, limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.controllers.autoscaling.behavior import Bounds, History, decide, tolerances

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOW = 300.0


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def rule(*policies: tuple[str, int, int], select: str = "Max", window: int = 0) -> dict[str, Any]:
    return {
        "selectPolicy": select,
        "stabilizationWindowSeconds": window,
        "policies": [{"type": t, "value": v, "periodSeconds": p} for t, v, p in policies],
    }


def test_the_highest_recommendation_of_the_window_holds_when_shrinking() -> None:
    history = History([(ago(301), 9), (ago(299), 7), (ago(10), 5)])
    decision = decide(None, history, 3, Bounds(1, 10, 8), NOW, WINDOW)
    assert decision.replicas == 7
    assert decision.able[0] == "ScaleDownStabilized"
    assert not decision.limited
    assert decision.limit[0] == "DesiredWithinRange"


@pytest.mark.parametrize(
    ("desired", "bounds", "replicas", "reason"),
    [
        (5, Bounds(1, 10, 3), 5, "DesiredWithinRange"),
        (50, Bounds(1, 10, 6), 10, "TooManyReplicas"),
        (50, Bounds(1, 100, 6), 12, "ScaleUpLimit"),
        (50, Bounds(1, 100, 1), 4, "ScaleUpLimit"),
        (1, Bounds(2, 10, 6), 2, "TooFewReplicas"),
    ],
)
def test_limits_without_behavior(desired: int, bounds: Bounds, replicas: int, reason: str) -> None:
    decision = decide(None, History(), desired, bounds, NOW, WINDOW)
    assert (decision.replicas, decision.limit[0]) == (replicas, reason)
    assert decision.limited is (reason != "DesiredWithinRange")
    assert decision.able[0] == "ReadyForNewScale"


@pytest.mark.parametrize(
    ("up", "replicas"),
    [
        (rule(("Pods", 4, 60)), 14),
        (rule(("Percent", 50, 60)), 15),
        (rule(("Percent", 50, 60), ("Pods", 4, 60)), 15),
        (rule(("Percent", 50, 60), ("Pods", 4, 60), select="Min"), 14),
        (rule(("Percent", 1, 60)), 11),  # rounded up, so that it grows at all
        (rule(("Percent", 50, 60), select="Disabled"), 10),
    ],
)
def test_policies_for_growing(up: dict[str, Any], replicas: int) -> None:
    decision = decide({"scaleUp": up}, History(), 100, Bounds(1, 200, 10), NOW, WINDOW)
    assert (decision.replicas, decision.limit[0]) == (replicas, "ScaleUpLimit")


@pytest.mark.parametrize(
    ("down", "replicas"),
    [
        (rule(("Pods", 4, 60)), 6),
        (rule(("Percent", 50, 60)), 5),
        (rule(("Percent", 50, 60), ("Pods", 4, 60)), 5),
        (rule(("Percent", 50, 60), ("Pods", 4, 60), select="Min"), 6),
        (rule(("Percent", 15, 60)), 8),
        (rule(("Percent", 50, 60), select="Disabled"), 10),
    ],
)
def test_policies_for_shrinking(down: dict[str, Any], replicas: int) -> None:
    decision = decide({"scaleDown": down}, History(), 1, Bounds(1, 200, 10), NOW, WINDOW)
    assert (decision.replicas, decision.limit[0]) == (replicas, "ScaleDownLimit")


def test_what_was_done_in_the_period_counts() -> None:
    behavior = {"scaleUp": rule(("Pods", 4, 60)), "scaleDown": rule(("Pods", 4, 60))}
    history = History(ups=[(ago(61), 9), (ago(30), 3)])
    assert decide(behavior, history, 50, Bounds(1, 99, 10), NOW, WINDOW).replicas == 11
    history = History(downs=[(ago(61), 9), (ago(30), 3)])
    assert decide(behavior, history, 1, Bounds(1, 99, 10), NOW, WINDOW).replicas == 9
    # What grew may shrink again and still is within the period's allowance, and the other way.
    history = History(ups=[(ago(30), 4)])
    assert decide(behavior, history, 1, Bounds(1, 99, 10), NOW, WINDOW).replicas == 2


def test_windows_of_both_directions() -> None:
    behavior = {
        "scaleUp": rule(("Percent", 1000, 15), window=60),
        "scaleDown": rule(("Percent", 100, 15), window=120),
    }
    history = History([(ago(30), 7), (ago(90), 12)])
    up = decide(behavior, history, 15, Bounds(1, 99, 5), NOW, WINDOW)
    assert (up.replicas, up.able[0]) == (7, "ScaleUpStabilized")
    down = decide(behavior, history, 2, Bounds(1, 99, 20), NOW, WINDOW)
    assert (down.replicas, down.able[0]) == (12, "ScaleDownStabilized")
    between = decide(behavior, history, 2, Bounds(1, 99, 9), NOW, WINDOW)
    assert between.replicas == 9


def test_a_behavior_without_a_window_for_shrinking_has_the_usual_one() -> None:
    behavior = {"scaleUp": rule(("Pods", 4, 15)), "scaleDown": {"selectPolicy": "Max"}}
    history = History([(ago(200), 8)])
    assert decide(behavior, history, 2, Bounds(1, 99, 10), NOW, WINDOW).replicas == 8
    assert decide(behavior, history, 2, Bounds(1, 99, 10), NOW, 100.0).replicas == 2


def test_tolerances_are_quantities() -> None:
    of = tolerances({"scaleUp": {"tolerance": "50m"}, "scaleDown": {}}, 0.1)
    assert (of.down, of.up) == (0.1, 0.05)
    assert tolerances(None, 0.2).up == 0.2


rules = st.one_of(
    st.none(),
    st.builds(
        lambda policies, select, window: rule(*policies, select=select, window=window),
        st.lists(
            st.tuples(
                st.sampled_from(("Pods", "Percent")), st.integers(1, 200), st.integers(1, 300)
            ),
            min_size=1,
            max_size=3,
        ),
        st.sampled_from(("Max", "Min", "Disabled")),
        st.integers(0, 300),
    ),
)
behaviors = st.one_of(
    st.none(),
    st.builds(
        lambda up, down: {
            **({"scaleUp": up} if up else {}),
            **({"scaleDown": down} if down else {}),
        },
        rules,
        rules,
    ),
)


@given(
    behaviors,
    st.integers(1, 20),
    st.integers(0, 100),
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 300)), max_size=20),
)
def test_an_autoscaler_stays_between_its_bounds_and_its_policies(
    behavior: dict[str, Any] | None, least: int, span: int, course: list[tuple[int, int]]
) -> None:
    most, moment, history = least + span, NOW, History()
    current = least
    for pause, desired in course:
        moment += timedelta(seconds=pause)
        decision = decide(behavior, history, desired, Bounds(least, most, current), moment, 60)
        after = decision.replicas
        history.recommended(desired, moment)
        assert least <= after <= most
        # It moves no further than what was recommended, now or within the windows.
        recent = [least, desired, current, *(replicas for _, replicas in history.recommendations)]
        assert min(recent) <= after <= max(recent)
        if desired >= current:
            assert after >= min(current, most)
        if behavior is not None:
            for name, moved in (("scaleUp", after - current), ("scaleDown", current - after)):
                given_rule = behavior.get(name)
                if moved > 0 and given_rule:
                    assert given_rule["selectPolicy"] != "Disabled"
        history.scaled(current, after, moment)
        current = after


@given(behaviors, st.integers(1, 50), st.integers(1, 30))
def test_a_constant_recommendation_is_reached_and_kept(
    behavior: dict[str, Any] | None, desired: int, current: int
) -> None:
    """Once there, it does not move."""
    bounds, moment, history = (1, 60), NOW, History()
    seen = []
    for _ in range(40):
        moment += timedelta(seconds=15)
        decision = decide(behavior, history, desired, Bounds(*bounds, current), moment, 60)
        history.recommended(desired, moment)
        history.scaled(current, decision.replicas, moment)
        current = decision.replicas
        seen.append(current)
    assert sorted(seen) == seen or sorted(seen, reverse=True) == seen
