"""Conditions of a status: found, put in place, and believed only when they are True."""

from __future__ import annotations

from wherry.kube.api import conditions

READY = {"type": "Ready", "status": "True", "reason": "Up", "lastTransitionTime": "then"}


def test_a_condition_is_true_only_where_it_is_there_and_says_so() -> None:
    assert conditions.is_true({"status": {"conditions": [READY]}}, "Ready")
    assert not conditions.is_true({"status": {"conditions": [READY]}}, "Other")
    assert not conditions.is_true(
        {"status": {"conditions": [{**READY, "status": "False"}]}}, "Ready"
    )
    assert not conditions.is_true({"status": {"conditions": None}}, "Ready")
    assert not conditions.is_true({}, "Ready")


def test_the_time_of_a_transition_stays_while_only_the_reason_changes() -> None:
    again = {**READY, "lastTransitionTime": "now"}
    assert conditions.put([READY], again) == [READY]
    other = {**again, "reason": "Restarted"}
    assert conditions.put([READY], other) == [{**other, "lastTransitionTime": "then"}]
    down = {**again, "status": "False"}
    assert conditions.put([READY], down) == [down]
