import asyncio

from wherry.engine import filters
from wherry.engine.events import HISTORY, EventBus, matches


async def test_every_listener_hears_what_happens_after_it_came():
    bus = EventBus()
    bus.publish("container", "create", "1")
    listener = bus.subscribe()
    bus.publish("container", "start", "1")
    assert (await anext(listener)).action == "start"
    listener.close()
    bus.publish("container", "die", "1")
    assert [event async for event in listener] == []
    assert bus.listeners == 0


async def test_a_listener_can_wait():
    bus = EventBus()
    listener = bus.subscribe()
    waiting = asyncio.ensure_future(anext(listener))
    await asyncio.sleep(0)
    bus.publish("image", "tag", "x")
    assert (await waiting).type == "image"


async def test_who_falls_behind_is_cut_off_after_what_it_has():
    bus = EventBus()
    listener = bus.subscribe(limit=2)
    for number in range(5):
        bus.publish("container", "x", str(number))
    assert [event.id async for event in listener] == ["0", "1"]


def test_the_past_is_remembered_in_order_up_to_a_limit():
    bus = EventBus()
    for number in range(HISTORY + 10):
        bus.publish("container", "x", str(number))
    times = [event.time for event in bus.history(0)]
    assert len(times) == HISTORY
    assert times == sorted(set(times))
    assert len(bus.history(times[-3], times[-2])) == 2


def test_old_and_new_clients_find_their_fields():
    event = EventBus().publish("container", "start", "1" * 64, {"image": "busybox", "name": "web"})
    shown = event.to_api()
    assert (shown["status"], shown["id"], shown["from"]) == ("start", "1" * 64, "busybox")
    assert shown["Actor"]["Attributes"]["name"] == "web"
    assert shown["timeNano"] // 10**9 == shown["time"]


def test_filters_choose_events():
    bus = EventBus()
    start = bus.publish("container", "start", "ab" * 32, {"name": "web", "image": "busybox:1"})
    run = bus.publish("container", "exec_start: sh", "ab" * 32, {"name": "web", "x": "y"})
    tag = bus.publish("image", "tag", "sha256:1", {"name": "busybox:1"})

    def chosen(text):
        return [e for e in (start, run, tag) if matches(e, filters.parse(text))]

    assert chosen("") == [start, run, tag]
    assert chosen('{"type":["image"]}') == [tag]
    assert chosen('{"event":["exec_start"]}') == [run]
    assert chosen('{"container":["web"]}') == [start, run]
    assert chosen('{"container":["abab"]}') == [start, run]
    assert chosen('{"image":["busybox"]}') == [start, tag]
    assert chosen('{"label":["x=y"]}') == [run]
    assert chosen('{"image":["busybox:1"]}') == [start, tag]
    assert chosen('{"image":["docker.io/library/busybox"]}') == []
    assert chosen('{"event":["start"]}') == [start]
    assert chosen('{"scope":["swarm"]}') == []


async def test_a_listener_hears_only_what_it_wants():
    bus = EventBus()
    listener = bus.subscribe(limit=1, wanted=lambda event: event.action == "b")
    for action in ("a", "b", "a"):
        bus.publish("container", action, "1")
    assert (await anext(listener)).action == "b"
    listener.close()
    assert [event async for event in listener] == []
