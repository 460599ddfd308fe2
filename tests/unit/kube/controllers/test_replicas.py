from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cluster import READY, Cluster, change, ready, replica_set, template
from fake_api import jitter
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import EVENTS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.pod_owners import slow_start
from wherry.kube.controllers.replicas.plan import (
    deletion_cost,
    deletion_order,
    next_available,
    plan,
    status,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RS = "replicaset-controller"


def pod(name: str, **how: Any) -> Object:
    since = meta.format_time(NOW - timedelta(seconds=how.get("ready_for", 100)))
    state = "True" if how.get("ready", True) else "False"
    condition = {"type": "Ready", "status": state, "lastTransitionTime": since}
    created = meta.format_time(NOW - timedelta(seconds=how.get("age", 1000)))
    metadata: Object = {"name": name, "uid": name, "creationTimestamp": created}
    metadata["labels"] = how.get("labels", {"app": "web"})
    if "cost" in how:
        metadata["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": how["cost"]}
    if how.get("deleting"):
        metadata["deletionTimestamp"] = created
    return {
        "metadata": metadata,
        "spec": {"nodeName": how.get("node", "n1")},
        "status": {
            "phase": how.get("phase", "Running"),
            "conditions": [condition],
            "containerStatuses": [{"restartCount": how.get("restarts", 0)}],
        },
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"node": ""}, {"phase": "Pending", "ready": False}),
        ({"phase": "Pending", "ready": False}, {"phase": "Unknown", "ready": False}),
        ({"phase": "Unknown", "ready": False}, {"ready": False}),
        ({"ready": False}, {"cost": "-5"}),
        ({"cost": "-5"}, {}),
        ({}, {"cost": "10"}),
        ({"ready_for": 10}, {"ready_for": 10_000}),
        ({"restarts": 3}, {"restarts": 1}),
        ({"age": 10}, {"age": 100_000}),
    ],
)
def test_what_is_missed_least_goes_first(first: dict, second: dict):
    pods = [pod("a", **first), pod("b", **second)]
    assert [meta.name(p) for p in deletion_order(pods, pods, NOW)] == ["a", "b"]
    assert [meta.name(p) for p in deletion_order(pods[::-1], pods, NOW)] == ["a", "b"]


def test_a_crowded_node_gives_first():
    pods = [pod("a", node="n1"), pod("b", node="n2"), pod("c", node="n2")]
    assert meta.name(deletion_order(pods, pods, NOW)[-1]) == "a"


@pytest.mark.parametrize(
    ("text", "cost"), [("5", 5), ("-7", -7), ("+1", 0), ("1.5", 0), ("01", 0), ("9999999999", 0)]
)
def test_a_cost_is_a_32_bit_number_or_nothing(text: str, cost: int):
    assert deletion_cost(pod("a", cost=text)) == cost


@given(st.integers(0, 30), st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans())))
def test_a_plan_brings_exactly_the_number_that_is_wanted(wanted: int, states: list):
    pods = [
        pod(str(n), ready=ready, deleting=deleting, phase="Failed" if failed else "Running")
        for n, (ready, deleting, failed) in enumerate(states)
    ]
    removed = {str(n) for n in range(0, len(pods), 3)}
    active = [
        p
        for p, (_, deleting, failed) in zip(pods, states, strict=True)
        if not deleting and not failed and meta.uid(p) not in removed
    ]
    found = plan(replica_set(replicas=wanted), pods, pods, removed, NOW)
    assert len(active) + found.create - len(found.delete) == wanted
    assert not (found.create and found.delete)
    assert all(p in active for p in found.delete)


def test_status_counts_labelled_ready_and_available():
    owner = replica_set(replicas=4, minReadySeconds=50)
    owner["metadata"]["generation"] = 3
    pods = [
        pod("a"),
        pod("b", ready_for=20),
        pod("c", ready=False, labels={}),
        pod("d", deleting=True),
        pod("e", phase="Failed"),
        pod("gone"),
    ]
    assert status(owner, pods, {"gone"}, None, NOW) == {
        "replicas": 3,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 1,
        "observedGeneration": 3,
        "terminatingReplicas": 2,
    }
    assert next_available(owner, pods, NOW) == 30


def test_a_failure_shows_until_it_is_over():
    owner = replica_set()
    failed = status(owner, [], (), ("FailedCreate", "no"), NOW)
    (condition,) = failed["conditions"]
    assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
    assert "conditions" not in status({**owner, "status": failed}, [], (), None, NOW)


async def test_a_slow_start_tries_few_where_all_fail_and_all_where_none_does():
    calls = 0

    async def act() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StatusError(403, "Forbidden", "quota")

    assert str(await slow_start(500, act)) == "quota"
    assert calls == 3
    calls = 10
    assert await slow_start(100, act) is None
    assert calls == 110


async def test_a_replica_set_holds_its_number_whatever_happens_to_the_pods():
    async with Cluster(RS) as cluster:
        client, api = cluster.client, cluster.api
        await client.create(REPLICA_SETS, replica_set(replicas=4))
        await cluster.until(lambda: sum(map(ready, cluster.pods())) == 4)
        victims = [meta.name(p) for p in cluster.pods()[:2]]
        await client.delete(PODS, victims[0], "default")
        failed = api.get(PODS, victims[1], "default")
        await client.update_status(PODS, {**failed, "status": {"phase": "Failed"}})
        await cluster.until(
            lambda: (
                sum(ready(p) for p in cluster.pods()) == 4
                and victims[0] not in {meta.name(p) for p in cluster.pods()}
            )
        )
        await change(cluster, REPLICA_SETS, "web", replicas=1)
        await cluster.until(
            lambda: (
                sum(map(ready, cluster.pods())) == 1
                and api.get(REPLICA_SETS, "web", "default")["status"].get("readyReplicas") == 1
            )
        )
        await cluster.settle()
        said = [e["message"] for e in api.find(EVENTS)]
        assert sum(text.startswith("Created pod: ") for text in said) == 6
        assert sum(text.startswith("Deleted pod: ") for text in said) == 3


async def test_matching_orphans_are_adopted_and_strangers_released():
    async with Cluster(RS) as cluster:
        client, api = cluster.client, cluster.api
        own = {"metadata": {"name": "mine", "namespace": "default"}, "spec": template()["spec"]}
        own["metadata"]["labels"] = {"app": "web"}
        await client.create(PODS, own)
        await client.create(REPLICA_SETS, replica_set(replicas=2))
        await cluster.until(lambda: len(cluster.pods()) == 2)
        mine = await cluster.until(
            lambda: (p := api.get(PODS, "mine", "default")) and meta.controller_of(p) and p
        )
        assert meta.controller_of(mine)["name"] == "web"
        await client.patch(PODS, "mine", {"metadata": {"labels": {"app": "x"}}}, "default")
        await cluster.until(lambda: len(cluster.pods()) == 3)
        await cluster.until(lambda: not meta.owner_references(api.get(PODS, "mine", "default")))
        assert api.get(PODS, "mine", "default") is not None


async def test_pods_of_another_controller_are_not_touched():
    async with Cluster(RS) as cluster:
        client = cluster.client
        await client.create(REPLICA_SETS, replica_set("web", 2))
        await cluster.until(lambda: len(cluster.pods()) == 2)
        twin = replica_set("twin", 1)
        twin["spec"]["selector"] = {"matchLabels": {"app": "web"}}
        twin["spec"]["template"] = template("web")
        await client.create(REPLICA_SETS, twin)
        await cluster.until(lambda: len(cluster.pods()) == 3)
        await cluster.settle()
        owners = sorted(meta.controller_of(p)["name"] for p in cluster.pods())
        assert owners == ["twin", "web", "web"]


async def test_min_ready_seconds_delay_availability():
    async with Cluster(RS) as cluster:
        await cluster.client.create(REPLICA_SETS, replica_set(replicas=1, minReadySeconds=1))

        def counts() -> tuple[int, int]:
            found = cluster.api.get(REPLICA_SETS, "web", "default").get("status") or {}
            return found.get("readyReplicas", 0), found.get("availableReplicas", 0)

        await cluster.until(lambda: counts() == (1, 0))
        await cluster.until(lambda: counts() == (1, 1))


async def test_a_replication_controller_works_by_its_map_of_labels():
    async with Cluster("replicationcontroller-controller") as cluster:
        body = replica_set(replicas=2)
        body["spec"]["selector"] = {"app": "web"}
        await cluster.client.create(REPLICATION_CONTROLLERS, body)
        await cluster.until(lambda: sum(map(ready, cluster.pods())) == 2)
        assert meta.controller_of(cluster.pods()[0])["kind"] == "ReplicationController"
        await cluster.settle()
        sources = {e["source"]["component"] for e in cluster.api.find(EVENTS)}
        assert sources == {"replication-controller"}


async def test_a_refused_pod_is_an_event_and_is_tried_again_without_a_hot_loop():
    async with Cluster(RS) as cluster:
        attempts = 0

        def refuse(method: str, path: str, body: object) -> None:
            nonlocal attempts
            if method == "POST" and path.endswith("/pods"):
                attempts += 1
                raise StatusError(403, "Forbidden", 'pods "web-x" is forbidden: exceeded quota: q')

        cluster.api.before = refuse
        await cluster.client.create(REPLICA_SETS, replica_set(replicas=10))
        await cluster.until(lambda: attempts > 3)
        await asyncio.sleep(0.2)
        assert attempts < 12
        said = [e["message"] for e in cluster.api.find(EVENTS)]
        assert said == ['Error creating: pods "web-x" is forbidden: exceeded quota: q']


@pytest.mark.parametrize("seed", range(6))
async def test_never_a_pod_too_many_whatever_lags_breaks_or_dies(seed: int):
    rng = random.Random(seed)
    async with Cluster(RS) as cluster:
        cluster.api.watch_delay = jitter(0.002)
        most = 0

        def look(method: str, path: str, body: object) -> None:
            nonlocal most
            if method == "POST" and path.endswith("/pods") and rng.random() < 0.2:
                raise ConnectionError("the answer is lost")
            most = max(most, len([p for p in cluster.pods() if p["status"]["phase"] != "Failed"]))

        cluster.api.after = look
        await cluster.client.create(REPLICA_SETS, replica_set(replicas=8))
        for _ in range(12):
            await asyncio.sleep(rng.random() * 0.02)
            pods = cluster.pods()
            match rng.choice(("kill", "fail", "restart", "break")):
                case "kill" if pods:
                    await cluster.client.delete(PODS, meta.name(rng.choice(pods)), "default")
                case "fail" if pods:
                    failed = {**rng.choice(pods), "status": {"phase": "Failed"}}
                    failed["metadata"] = {**failed["metadata"]}
                    del failed["metadata"]["resourceVersion"]
                    await cluster.client.update_status(PODS, failed)
                case "restart":
                    await cluster.stop()
                    cluster.start()
                case "break":
                    await cluster.api.break_watches()
        await cluster.until(
            lambda: (
                sum(map(ready, cluster.pods())) == 8
                and cluster.api.get(REPLICA_SETS, "web", "default")["status"].get("readyReplicas")
                == 8
            )
        )
        assert most <= 8


__all__ = ["READY"]
