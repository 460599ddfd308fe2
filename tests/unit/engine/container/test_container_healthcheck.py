"""What the results of probes say about a container."""

import pytest

from wherry.engine.container import healthcheck
from wherry.engine.container.healthcheck import Check, Health, Result
from wherry.engine.container.units import go_duration
from wherry.engine.errors import BadParameter

SECOND = 10**9


def result(code, at=100):
    return Result(at * SECOND, at * SECOND, code, "")


def test_nothing_is_checked_without_a_test_or_against_the_image_s():
    assert healthcheck.check_of({}) is None
    assert healthcheck.check_of({"Healthcheck": {"Test": ["NONE"]}}) is None
    assert healthcheck.check_of({"Healthcheck": {"Interval": SECOND}}) is None


def test_a_line_is_run_by_the_shell():
    check = healthcheck.check_of({"Healthcheck": {"Test": ["CMD-SHELL", "curl x"]}})
    assert check.command == ["/bin/sh", "-c", "curl x"]
    other = {"Shell": ["/bin/ash", "-c"], "Healthcheck": {"Test": ["CMD-SHELL", "x"]}}
    assert healthcheck.check_of(other).command == ["/bin/ash", "-c", "x"]


def test_times_left_out_have_docker_s_defaults():
    check = healthcheck.check_of({"Healthcheck": {"Test": ["CMD", "x"], "Timeout": SECOND}})
    assert check == Check(["x"], interval=30, timeout=1, start_period=0, retries=3)


def test_a_container_is_unhealthy_after_so_many_failures_in_a_row():
    health, check = Health(), Check(["x"], retries=2)
    assert [health.note(result(code), check, 0) for code in (1, 0, 1, 1)] == [
        False,
        True,
        False,
        True,
    ]
    assert (health.status, health.failing_streak) == ("unhealthy", 2)
    assert health.note(result(0), check, 0)
    assert (health.status, health.failing_streak) == ("healthy", 0)


def test_failures_within_the_start_period_do_not_count():
    health, check = Health(), Check(["x"], retries=1, start_period=10)
    assert not health.note(result(1, at=105), check, 100 * SECOND)
    assert health.status == "starting"
    assert health.note(result(1, at=111), check, 100 * SECOND)
    assert health.status == "unhealthy"


def test_after_a_success_failures_count_also_within_the_start_period():
    health, check = Health(), Check(["x"], retries=1, start_period=10)
    health.note(result(0, at=101), check, 100 * SECOND)
    health.note(result(1, at=102), check, 100 * SECOND)
    assert health.status == "unhealthy"


def test_probes_are_more_frequent_while_it_starts():
    check = Check(["x"], interval=30, start_interval=2, start_period=60)
    assert check.next_probe("starting", 10) == 2
    assert check.next_probe("starting", 61) == 30
    assert check.next_probe("healthy", 10) == 30


def test_the_last_five_results_are_kept():
    health = Health()
    for at in range(8):
        health.note(result(0, at), Check(["x"]), 0)
    assert [r.start // SECOND for r in health.log] == [3, 4, 5, 6, 7]


def test_the_user_s_check_is_completed_from_the_image_s():
    image = {"Test": ["CMD", "x"], "Interval": 5, "Retries": 2}
    assert healthcheck.merged({"Interval": 9}, image) == {**image, "Interval": 9}
    assert healthcheck.merged(None, image) == image
    assert healthcheck.merged(None, None) is None
    assert healthcheck.merged({"Retries": 2, "StartPeriod": None, "Test": []}, None) == {
        "Retries": 2
    }


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"Interval": 5}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Timeout": -1}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"StartPeriod": 999_999}, "StartPeriod in Healthcheck cannot be less than 1ms"),
        ({"StartInterval": 1}, "StartInterval in Healthcheck cannot be less than 1ms"),
        ({"Retries": -1}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_checks_that_make_no_sense_are_refused(given, text):
    with pytest.raises(BadParameter) as caught:
        healthcheck.validate(given)
    assert caught.value.message == text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (100_000_000, "100ms"),
        (1_500_000_000, "1.5s"),
        (60_000_000_000, "1m0s"),
        (3_690_000_000_000, "1h1m30s"),
    ],
)
def test_durations_are_printed_as_go_does(nanoseconds, text):
    assert go_duration(nanoseconds) == text
