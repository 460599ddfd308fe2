from __future__ import annotations

import time

import pytest
from fake_api import FakeAPI

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import EVENTS, PODS
from wherry.kube.client.client import Client
from wherry.kube.client.recorder import NORMAL, WARNING, EventRecorder

POD = {"metadata": {"name": "web", "namespace": "demo", "uid": "u1", "resourceVersion": "7"}}


@pytest.fixture
def api() -> FakeAPI:
    return FakeAPI()


@pytest.fixture
async def recorder(api: FakeAPI):
    recorder = EventRecorder(Client(api), "kubelet", "n1", pause=0.0)
    recorder.start()
    yield recorder
    await recorder.stop()


async def test_an_event_tells_who_what_and_about_whom(api, recorder):
    recorder.event(PODS, POD, NORMAL, "Started", "Started container web", field_path="spec.x")
    await recorder.flush()
    (event,) = api.find(EVENTS, "demo")
    assert event["metadata"]["name"].startswith("web.")
    assert event["involvedObject"] == {
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": "demo",
        "name": "web",
        "uid": "u1",
        "resourceVersion": "7",
        "fieldPath": "spec.x",
    }
    assert event["source"] == {"component": "kubelet", "host": "n1"}
    assert (event["type"], event["reason"], event["count"]) == ("Normal", "Started", 1)


async def test_equal_events_become_one_with_a_count(api, recorder):
    for _ in range(3):
        recorder.event(PODS, POD, WARNING, "BackOff", "Back-off restarting")
        await recorder.flush()
    recorder.event(PODS, POD, WARNING, "BackOff", "Back-off restarting")
    recorder.event(PODS, POD, WARNING, "BackOff", "Back-off restarting")
    await recorder.flush()
    (event,) = api.find(EVENTS)
    assert event["count"] == 5


async def test_an_event_that_expired_is_made_anew(api, recorder):
    recorder.event(PODS, POD, WARNING, "BackOff", "again")
    await recorder.flush()
    api.objects.clear()
    recorder.event(PODS, POD, WARNING, "BackOff", "again")
    await recorder.flush()
    (event,) = api.find(EVENTS)
    assert event["count"] == 1


async def test_many_similar_events_are_combined(api, recorder):
    for number in range(15):
        recorder.event(PODS, POD, WARNING, "Failed", f"attempt {number}")
    await recorder.flush()
    events = api.find(EVENTS)
    assert len(events) == 10
    (combined,) = [e for e in events if e["message"].startswith("(combined from similar events)")]
    assert combined["message"].endswith("attempt 14")
    assert combined["count"] == 6


async def test_an_object_that_never_stops_has_a_budget(api, recorder):
    for _ in range(100):
        recorder.event(PODS, POD, WARNING, "Failed", "always the same")
    await recorder.flush()
    (event,) = api.find(EVENTS)
    assert event["count"] == 25


async def test_a_refused_event_does_no_harm(api, recorder):
    def refuse(*_):
        raise StatusError(403, "Forbidden", "no")

    api.before = refuse
    recorder.event(PODS, POD, NORMAL, "Started", "lost")
    await recorder.flush()
    api.before = None
    recorder.event(PODS, POD, NORMAL, "Started", "kept")
    await recorder.flush()
    assert [e["message"] for e in api.find(EVENTS)] == ["kept"]


async def test_events_wait_for_a_server_that_is_away(api, recorder):
    attempts = 0

    def away(*_):
        nonlocal attempts
        attempts += 1
        if attempts < 5:
            raise ConnectionError("away")

    api.before = away
    recorder.event(PODS, POD, NORMAL, "Started", "late")
    await recorder.flush()
    assert [e["message"] for e in api.find(EVENTS)] == ["late"]


async def test_a_server_that_stays_away_is_given_up(api, recorder):
    attempts = 0

    def away(*_):
        nonlocal attempts
        attempts += 1
        if attempts <= 18:
            raise ConnectionError("away")

    api.before = away
    recorder.event(PODS, POD, NORMAL, "Started", "lost")
    await recorder.flush()
    recorder.event(PODS, POD, NORMAL, "Started", "kept")
    await recorder.flush()
    assert [e["message"] for e in api.find(EVENTS)] == ["kept"]


async def test_what_a_full_queue_loses_costs_no_budget_and_counts_nowhere(api, recorder):
    others = [
        {"metadata": {**POD["metadata"], "name": f"p{n}", "uid": f"u{n}"}} for n in range(1000)
    ]
    for other in others:
        recorder.event(PODS, other, NORMAL, "Started", "one")
    for _ in range(30):
        recorder.event(PODS, POD, NORMAL, "Started", "lost")
    await recorder.flush()
    assert len(api.find(EVENTS)) == 1000
    recorder.event(PODS, POD, NORMAL, "Started", "lost")
    await recorder.flush()
    assert [e["count"] for e in api.find(EVENTS) if e["message"] == "lost"] == [1]


async def test_what_went_beyond_the_budget_is_counted_by_the_next(api, recorder, monkeypatch):
    for _ in range(100):
        recorder.event(PODS, POD, WARNING, "Failed", "always the same")
    await recorder.flush()
    later = time.monotonic() + 301
    monkeypatch.setattr("wherry.kube.client.recorder.time.monotonic", lambda: later)
    recorder.event(PODS, POD, WARNING, "Failed", "always the same")
    await recorder.flush()
    (event,) = api.find(EVENTS)
    assert event["count"] == 101


async def test_events_of_many_containers_are_similar(api, recorder):
    for number in range(12):
        path = f"spec.containers{{c{number}}}"
        recorder.event(PODS, POD, WARNING, "Failed", f"container {number}", field_path=path)
    await recorder.flush()
    assert len(api.find(EVENTS)) == 10
