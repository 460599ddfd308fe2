"""From the text of a kubelet to figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import spans
from wherry.kube.metrics import answers
from wherry.kube.metrics.samples import Point, Sample, parse
from wherry.kube.metrics.usage import Usage, Usages

TEXT = """\
# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="a",namespace="ns",pod="p"} 4.5 1700000010000
container_cpu_usage_seconds_total{container="b",namespace="ns",pod="p"} 1.5e-1 1700000010000
container_cpu_usage_seconds_total{container="a",namespace="ns",pod="half"} 1 1700000010000
container_memory_working_set_bytes{container="a",namespace="ns",pod="p"} 1.048576e+06 1700000010000
container_memory_working_set_bytes{container="b",namespace="ns",pod="p"} 2048 1700000010000
container_start_time_seconds{container="a",namespace="ns",pod="p"} 1.69999999e+09 1700000010000
node_cpu_usage_seconds_total 1000.25 1700000010000
node_memory_working_set_bytes 4096
pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 99 1700000010000
nonsense{ 1
container_cpu_usage_seconds_total{container="a",namespace="ns",pod="q"} what 1700000010000
"""
AT = 1700000010.0


def test_five_families_count_and_half_pods_do_not() -> None:
    sample = parse(TEXT, AT)
    assert sample.node == Point(1000.25, 4096, AT)
    a, b = Point(4.5, 1 << 20, AT, 1699999990.0), Point(0.15, 2048, AT)
    assert sample.pods == {("ns", "p"): {"a": a, "b": b}}


def at(seconds: float, cpu: float, *, started: float = 0.0, node: bool = True) -> Sample:
    point = Point(cpu, 1024, AT + seconds, started and AT + started)
    return Sample(point if node else None, {("ns", "p"): {"a": point}})


def test_use_is_what_was_spent_between_two_samples() -> None:
    usages = Usages(15)
    usages.put("n", at(0, 10))
    assert usages.node("n") is None
    assert usages.pod("ns", "p") is None
    usages.put("n", at(15, 13))
    assert usages.node("n") == Usage(0.2, 1024, 15, AT + 15)
    assert usages.pod("ns", "p") == {"a": Usage(0.2, 1024, 15, AT + 15)}
    usages.put("n", at(15, 13))  # the kubelet has not looked again
    assert usages.node("n") == Usage(0.2, 1024, 15, AT + 15)


def test_a_container_that_began_anew_has_no_use_until_it_is_known() -> None:
    usages = Usages(15)
    usages.put("n", at(0, 10))
    usages.put("n", at(15, 0.5))
    assert usages.pod("ns", "p") is None
    usages.put("n", at(30, 0.5, started=28))
    assert usages.pod("ns", "p") is None
    usages.put("n", at(45, 2, started=28))
    assert usages.pod("ns", "p") == {"a": Usage(0.1, 1024, 15, AT + 45)}


def test_what_started_just_now_is_judged_by_its_start() -> None:
    usages = Usages(15)
    usages.put("n", at(12, 6, started=0.001))
    found = usages.pod("ns", "p")
    assert found is not None
    assert found["a"].cpu == pytest.approx(0.5, rel=1e-3)
    usages = Usages(15)
    usages.put("n", at(100, 6, started=0.001))
    assert usages.pod("ns", "p") is None


def test_nothing_is_held_that_nobody_tells_of() -> None:
    usages = Usages(15)
    usages.put("n", at(0, 1))
    usages.put("n", at(15, 2))
    usages.put("n", Sample(Point(3, 1, AT + 30)))
    assert usages.pod("ns", "p") is None
    usages.put("m", at(0, 1))
    usages.keep({"n"})
    assert usages.node("m") is None
    assert not usages._place
    usages.forget("n")
    assert usages.node("n") is None


def test_a_pod_that_moved_is_known_by_its_new_node() -> None:
    usages = Usages(15)
    for seconds in (0, 15):
        usages.put("old", at(seconds, seconds))
        usages.put("new", at(seconds, 2 * seconds))
    usages.forget("old")
    found = usages.pod("ns", "p")
    assert found is not None
    assert found["a"].cpu == 2


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 1 << 40)), max_size=20)
)
def test_use_is_never_negative(course: list[tuple[float, float, int]]) -> None:
    usages = Usages(15)
    for cpu, moment, memory in course:
        usages.put("n", Sample(Point(cpu, memory, moment)))
        if (found := usages.node("n")) is not None:
            assert found.cpu >= 0
            assert found.window > 0


def test_objects_and_tables_look_as_those_of_metrics_server() -> None:
    pod = {"metadata": {"name": "p", "namespace": "ns", "labels": {"app": "x"}}}
    usages = {
        "b": Usage(0.0015, 1536, 15.0231, AT),
        "a": Usage(1.234567891, 3 << 20, 15.0231, AT),
    }
    made = answers.pod_metrics(pod, usages, "2026-01-01T00:00:00Z")
    assert made["containers"] == [
        {"name": "a", "usage": {"cpu": "1234567891n", "memory": "3Mi"}},
        {"name": "b", "usage": {"cpu": "1500u", "memory": "1536"}},
    ]
    assert (made["timestamp"], made["window"]) == ("2023-11-14T22:13:30Z", "15.023s")
    assert made["metadata"]["labels"] == {"app": "x"}
    told = answers.table([made], "Metadata")
    assert [c["name"] for c in told["columnDefinitions"]] == ["Name", "cpu", "memory", "Window"]
    assert told["rows"][0]["cells"] == ["p", "1236067891n", "3147264", "15.023s"]
    assert told["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert answers.table([], "None")["rows"] == []


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (999, "999ns"),
        (1500, "1.5µs"),
        (2_500_000, "2.5ms"),
        (15_023_000_000, "15.023s"),
        (90 * 10**9, "1m30s"),
        (3600 * 10**9, "1h0m0s"),
        (-(10**9), "-1s"),
    ],
)
def test_durations_are_written_as_go_does(nanoseconds: int, text: str) -> None:
    assert spans.text(nanoseconds) == text
    assert spans.parse(text) == pytest.approx(nanoseconds / 10**9)


@pytest.mark.parametrize("text", ["", "1", "s", "1d", "1s 2s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        spans.parse(text)
