"""Controllers and scheduler that are killed, doubled and refused, on the real server and store."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from test_controllers_on_server import World, deployment, ready, template

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    DEPLOYMENTS,
    EVENTS,
    PODS,
    REPLICA_SETS,
    RESOURCE_QUOTAS,
)
from wherry.kube.apiserver.server import APIServer, APIServerConfig
from wherry.kube.client.client import Client
from wherry.kube.client.election import LeaderElector
from wherry.kube.client.informer import Informer
from wherry.kube.client.transport import Object
from wherry.kube.controllers import Options, run_controllers
from wherry.kube.store.sqlite import SQLiteStore

ROLLING = 50
REPLICAS = 4
SURGE, UNAVAILABLE = 1, 1  # 25 % of four each


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = await SQLiteStore.open(tmp_path / "state.db")
    unused = tmp_path / "unused"
    config = APIServerConfig(
        advertise_address="127.0.0.1",
        port=6443,
        service_cidr="10.96.0.0/16",
        tls_cert=unused,
        tls_key=unused,
    )
    server = APIServer(config, store)
    await server.open()
    async with World(server, Options(root_ca="PEM", node_grace=3600.0)) as world:
        for number in range(4):
            await world.node(f"n{number}")
        yield world
    await server.close()
    await store.close()


class Watch:
    """How many pods each application had at most, and how few that were available, ever."""

    def __init__(self, world: World) -> None:
        self.pods = Informer(world.client, PODS)
        self.living: defaultdict[str, dict[str, bool]] = defaultdict(dict)
        self.most: Counter[str] = Counter()
        self.fewest: dict[str, int] = {}
        self.pods.add_handlers(
            on_add=self.note, on_update=lambda _, pod: self.note(pod), on_delete=self.gone
        )

    def note(self, pod: Object) -> None:
        if meta.is_deleting(pod):
            self.gone(pod)
            return
        app = meta.labels(pod)["app"]
        self.living[app][meta.uid(pod)] = ready(pod)
        self._count(app)

    def gone(self, pod: Object) -> None:
        app = meta.labels(pod)["app"]
        self.living[app].pop(meta.uid(pod), None)
        self._count(app)

    def _count(self, app: str) -> None:
        self.most[app] = max(self.most[app], len(self.living[app]))
        serving = sum(self.living[app].values())
        self.fewest[app] = min(self.fewest.get(app, serving), serving)


async def test_fifty_deployments_roll_while_the_control_plane_is_killed_again_and_again(
    world: World,
):
    chance = random.Random()  # any moment must do
    names = [f"d{number}" for number in range(ROLLING)]
    for name in names:
        body = deployment(name, REPLICAS)
        body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0
        await world.client.create(DEPLOYMENTS, body, "default")
    for name in names:
        await _until_rolled_out(world, name)
    watch = Watch(world)
    watch.pods.start()
    await watch.pods.wait_synced()
    watch.fewest.clear()
    for name in names:
        patch = {"spec": {"template": template(name, "hello:2")}}
        await world.client.patch(DEPLOYMENTS, name, patch, "default")
    for _ in range(12):
        await asyncio.sleep(chance.uniform(0.02, 0.4))
        await world.stop()
        world.start()
    for name in names:
        await _until_rolled_out(world, name)
    await watch.pods.stop()
    for name in names:
        assert watch.most[name] <= REPLICAS + SURGE, name
        assert watch.fewest.get(name, REPLICAS) >= REPLICAS - UNAVAILABLE, name
    sets = {meta.uid(rs): rs for rs in await world.items(REPLICA_SETS)}
    assert len(sets) == 2 * ROLLING
    living = [pod for pod in await world.items(PODS) if not meta.is_deleting(pod)]
    assert len(living) == ROLLING * REPLICAS
    for pod in living:
        owner = meta.controller_of(pod)
        assert owner is not None and owner["uid"] in sets, "no pod is an orphan"
        assert pod["spec"]["containers"][0]["image"] == "hello:2"


async def _until_rolled_out(world: World, name: str) -> None:
    async def check() -> bool:
        d = await world.get(DEPLOYMENTS, name)
        status = d.get("status") or {}
        counts = ("updatedReplicas", "replicas", "availableReplicas")
        settled = status.get("observedGeneration") == d["metadata"]["generation"]
        return settled and all(status.get(c, 0) == REPLICAS for c in counts)

    await world.until(check, 240.0)  # of fifty at once the first may be the last


async def test_of_two_replicas_one_acts_and_the_other_takes_over(world: World):
    await world.stop()  # from here on the two below are all there are
    acting: list[str] = []

    def candidate(name: str) -> asyncio.Task[None]:
        client = Client(world.transport("system:kube-controller-manager"))
        elector = LeaderElector(
            client,
            "kube-controller-manager",
            name,
            lease_duration=15,  # (who ends gives it back)
            renew_deadline=10,
            retry_period=0.2,
        )

        async def act() -> None:
            acting.append(name)
            try:
                await run_controllers(
                    client,
                    world.options,
                    identity=lambda account: world.transport(
                        f"system:serviceaccount:kube-system:{account}"
                    ),
                )
            finally:
                acting.remove(name)

        return asyncio.ensure_future(elector.run(act))

    tasks = {name: candidate(name) for name in ("a", "b")}

    async def sets_of(name: str) -> bool:
        found = [rs for rs in await world.items(REPLICA_SETS) if meta.labels(rs)["app"] == name]
        return bool(found)

    await world.client.create(DEPLOYMENTS, deployment("first", 1), "default")
    await world.until(lambda: sets_of("first"))
    (leader,) = acting
    tasks.pop(leader).cancel()

    async def taken_over() -> bool:
        return acting == list(tasks)

    await world.until(taken_over)
    await world.client.create(DEPLOYMENTS, deployment("second", 1), "default")
    await world.until(lambda: sets_of("second"))
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


async def test_a_full_quota_is_told_and_retried_slower_and_slower_and_passes_when_there_is_room(
    world: World,
):
    quota: Object = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}}
    await world.client.create(RESOURCE_QUOTAS, quota, "default")

    async def counted() -> bool:
        found = await world.get(RESOURCE_QUOTAS, "few")
        return (found.get("status") or {}).get("hard") == {"pods": "2"}

    await world.until(counted)
    await world.client.create(DEPLOYMENTS, deployment("web", REPLICAS), "default")

    async def failed() -> bool:
        sets = await world.items(REPLICA_SETS)
        conditions = [c for rs in sets for c in (rs.get("status") or {}).get("conditions", ())]
        d = await world.get(DEPLOYMENTS, "web")
        told = [c["type"] for c in (d.get("status") or {}).get("conditions", ())]
        return [c["reason"] for c in conditions] == ["FailedCreate"] and "ReplicaFailure" in told

    async def two() -> bool:
        return len(await world.items(PODS)) == 2

    await world.until(failed)
    await world.until(two)
    (rs,) = await world.items(REPLICA_SETS)

    text = "exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2"

    async def said() -> list[Object]:
        failures = [e for e in await world.items(EVENTS) if e["reason"] == "FailedCreate"]
        return [e for e in failures if text in e["message"]]

    (event, *_) = await world.until(said)
    assert event["involvedObject"]["name"] == meta.name(rs)
    await asyncio.sleep(1.0)
    tries = sum(e.get("count") or 1 for e in await said())
    assert tries < 40, "the wait between attempts grows"
    raised = {"spec": {"hard": {"pods": "10"}}}
    await world.client.patch(RESOURCE_QUOTAS, "few", raised, "default")
    await _until_rolled_out(world, "web")

    async def forgotten() -> bool:
        d = await world.get(DEPLOYMENTS, "web")
        return "ReplicaFailure" not in [c["type"] for c in d["status"]["conditions"]]

    await world.until(forgotten)


async def test_a_webhook_that_does_not_answer_is_an_event_and_no_hot_loop(world: World):
    hook: dict[str, Any] = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "dead"},
        "webhooks": [
            {
                "name": "dead.example.com",
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "resources": ["pods"],
                        "operations": ["CREATE"],
                    }
                ],
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 1,
            }
        ],
    }
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    await world.client.transport.request("POST", path, body=hook)
    await world.client.create(DEPLOYMENTS, deployment("web", REPLICAS), "default")

    async def said() -> list[Object]:
        return [e for e in await world.items(EVENTS) if e["reason"] == "FailedCreate"]

    (event, *_) = await world.until(said)
    assert 'failed calling webhook "dead.example.com"' in event["message"]
    await asyncio.sleep(1.0)
    assert sum(e.get("count") or 1 for e in await said()) < 40
    await world.client.transport.request("DELETE", f"{path}/dead")
    await _until_rolled_out(world, "web")


async def test_somebody_who_writes_at_the_same_time_only_delays(world: World):
    await world.client.create(DEPLOYMENTS, deployment("web", REPLICAS), "default")
    stop = asyncio.Event()

    async def meddle() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            note = {"metadata": {"annotations": {"number": str(number)}}}
            for resource in (DEPLOYMENTS, REPLICA_SETS):
                for o in await world.items(resource):
                    try:
                        await world.client.patch(resource, meta.name(o), note, "default")
                    except StatusError as error:
                        assert error.reason in ("Conflict", "NotFound")
            await asyncio.sleep(0.002)

    meddling = asyncio.ensure_future(meddle())
    await _until_rolled_out(world, "web")
    for image in ("hello:2", "hello:3"):
        patch = {"spec": {"template": template("web", image)}}
        await world.client.patch(DEPLOYMENTS, "web", patch, "default")
        await _until_rolled_out(world, "web")
    stop.set()
    await meddling
    assert len(await world.items(REPLICA_SETS)) == 3
