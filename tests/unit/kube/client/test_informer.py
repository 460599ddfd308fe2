from __future__ import annotations

import asyncio

import pytest
from fake_api import FakeAPI

from wherry.kube.api.resources import CONFIG_MAPS, PODS
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer, SharedInformers


def config_map(name: str, **data: str) -> dict:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


@pytest.fixture
def api() -> FakeAPI:
    return FakeAPI()


@pytest.fixture
async def informer(api: FakeAPI):
    informer = Informer(Client(api), CONFIG_MAPS)
    yield informer
    await informer.stop()


async def test_what_was_there_and_what_comes_is_held(api, informer):
    client = Client(api)
    await client.create(CONFIG_MAPS, config_map("a"))
    informer.start()
    await informer.wait_synced()
    assert informer.get("default", "a") is api.get(CONFIG_MAPS, "a", "default")
    await informer.reached(await client.create(CONFIG_MAPS, config_map("b")))
    assert {o["metadata"]["name"] for o in informer.list()} == {"a", "b"}
    assert informer.list("default") and not informer.list("other")
    await informer.reached(await client.delete(CONFIG_MAPS, "a", "default"))
    assert informer.get("default", "a") is None
    assert len(informer) == 1


async def test_handlers_hear_each_change_once_in_order(api, informer):
    heard = []
    informer.add_handlers(
        on_add=lambda o: heard.append(("add", o["data"]["x"])),
        on_update=lambda old, new: heard.append(("update", old["data"]["x"], new["data"]["x"])),
        on_delete=lambda o: heard.append(("delete", o["data"]["x"])),
    )
    client = Client(api)
    await client.create(CONFIG_MAPS, config_map("a", x="1"))
    informer.start()
    await informer.wait_synced()
    await client.update(CONFIG_MAPS, config_map("a", x="2"))
    await informer.reached(await client.delete(CONFIG_MAPS, "a", "default"))
    assert heard == [("add", "1"), ("update", "1", "2"), ("delete", "2")]


async def test_a_late_handler_hears_what_is_already_there(api, informer):
    await Client(api).create(CONFIG_MAPS, config_map("a"))
    informer.start()
    await informer.wait_synced()
    heard = []
    informer.add_handlers(on_add=heard.append)
    assert [o["metadata"]["name"] for o in heard] == ["a"]


async def test_a_failing_handler_does_not_stop_the_others(api, informer):
    heard = []
    informer.add_handlers(on_add=lambda o: 1 / 0)
    informer.add_handlers(on_add=heard.append)
    informer.start()
    await informer.reached(await Client(api).create(CONFIG_MAPS, config_map("a")))
    assert len(heard) == 1


async def test_a_broken_watch_resumes_without_a_new_list(api, informer):
    client = Client(api)
    informer.start()
    await informer.reached(await client.create(CONFIG_MAPS, config_map("a")))
    await api.break_watches()
    await informer.reached(await client.create(CONFIG_MAPS, config_map("b")))
    assert len(informer) == 2
    lists = [path for method, path in api.requests if method == "GET"]
    assert len(lists) == 1


async def test_a_compacted_revision_leads_to_a_new_list_that_reports_what_vanished(api, informer):
    client = Client(api)
    informer.start()
    heard = []
    informer.add_handlers(
        on_add=lambda o: heard.append(("add", o["metadata"]["name"])),
        on_delete=lambda o: heard.append(("delete", o["metadata"]["name"])),
    )
    await informer.reached(await client.create(CONFIG_MAPS, config_map("a")))
    await client.create(CONFIG_MAPS, config_map("recreated"))
    await informer.reached(await client.create(CONFIG_MAPS, config_map("kept")))
    heard.clear()
    api._broken += 1  # and nobody is told before the history is gone
    await client.delete(CONFIG_MAPS, "a", "default")
    await client.delete(CONFIG_MAPS, "recreated", "default")
    await client.create(CONFIG_MAPS, config_map("recreated"))
    last = await client.create(CONFIG_MAPS, config_map("b"))
    api.compact()
    await informer.reached(last)
    assert sorted(heard) == [
        ("add", "b"),
        ("add", "recreated"),
        ("delete", "a"),
        ("delete", "recreated"),
    ]


async def test_an_answer_nobody_expected_leads_to_a_new_list(api, informer):
    client = Client(api)
    informer.start()
    await informer.reached(await client.create(CONFIG_MAPS, config_map("a")))
    made = await client.create(CONFIG_MAPS, config_map("b"))
    made["metadata"]["resourceVersion"] = "nonsense"
    await asyncio.sleep(0.01)
    made["metadata"]["resourceVersion"] = "2"
    await asyncio.wait_for(informer.reached(made), 60)
    assert len(informer) == 2


async def test_a_server_that_is_not_there_yet_is_found_soon(api):
    down = True

    def refuse(*_):
        if down:
            raise ConnectionRefusedError("connection refused")

    api.before = refuse
    informer = Informer(Client(api), CONFIG_MAPS)
    informer.start()
    await asyncio.sleep(0.03)
    assert not informer.synced
    down = False
    await asyncio.wait_for(informer.wait_synced(), 20)  # where it is refused it waits for 30
    await informer.stop()


async def test_indices_follow_the_objects(api, informer):
    informer.add_indexer("x", lambda o: [o["data"]["x"]] if "x" in o.get("data", {}) else [])
    client = Client(api)
    informer.start()
    await informer.reached(await client.create(CONFIG_MAPS, config_map("a", x="1")))
    await informer.reached(await client.create(CONFIG_MAPS, config_map("b", x="1")))
    assert len(informer.by_index("x", "1")) == 2
    await informer.reached(await client.update(CONFIG_MAPS, config_map("a", x="2")))
    assert [o["metadata"]["name"] for o in informer.by_index("x", "1")] == ["b"]
    assert informer.by_index("x", "2")[0]["data"]["x"] == "2"
    await informer.reached(await client.delete(CONFIG_MAPS, "a", "default"))
    assert informer.by_index("x", "2") == []
    informer.add_indexer("name", lambda o: [o["metadata"]["name"]])
    assert len(informer.by_index("name", "b")) == 1


async def test_field_selectors_hold_back_and_bring_objects(api):
    client = Client(api)
    mine = Informer(client, PODS, field_selector="spec.nodeName=n1")
    mine.start()
    await mine.wait_synced()
    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": {}}
    await client.create(PODS, pod)
    binding = {"metadata": {"name": "p", "namespace": "default"}, "target": {"name": "n1"}}
    await client.create(PODS, binding, name="p", subresource="binding")
    await mine.reached(api.get(PODS, "p", "default"))
    assert mine.get("default", "p") is not None
    await mine.stop()


async def test_components_share_one_informer_and_one_watch(api):
    informers = SharedInformers(Client(api))
    assert informers.informer(PODS) is informers.informer(PODS)
    informers.start()
    late = informers.informer(CONFIG_MAPS)
    await late.wait_synced()
    assert [p for _, p in api.requests].count("/api/v1/pods") == 1
    await informers.stop()
