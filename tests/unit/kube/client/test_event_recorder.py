from __future__ import annotations

import pytest
from fake_api import FakeAPI

from wherry.kube.api.resources import EVENTS, PODS
from wherry.kube.client.client import Client
from wherry.kube.client.recorder import NORMAL, WARNING, EventRecorder

POD = {"metadata": {"name": "web", "namespace": "demo", "uid": "u1", "resourceVersion": "7"}}


@pytest.fixture
def api() -> FakeAPI:
    return FakeAPI()


@pytest.fixture
async def recorder(api: FakeAPI):
    recorder = EventRecorder(Client(api), "kubelet", "n1")
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
        raise ConnectionError("away")

    api.before = refuse
    recorder.event(PODS, POD, NORMAL, "Started", "lost")
    await recorder.flush()
    api.before = None
    recorder.event(PODS, POD, NORMAL, "Started", "kept")
    await recorder.flush()
    assert [e["message"] for e in api.find(EVENTS)] == ["kept"]
