"""Claims and volumes: which nodes will do, what is done once one is chosen."""

from __future__ import annotations

from typing import Any

import pytest
from test_scheduler import Bench, pod

from wherry.kube.api import meta
from wherry.kube.api.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
)
from wherry.kube.api.volume_matching import BIND_COMPLETED, SELECTED_NODE
from wherry.kube.scheduler.node_info import PodInfo
from wherry.kube.scheduler.plugins.default_preemption import by_budget


def claim(name: str, storage_class: str = "late", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": "1Gi"}},
            **spec,
        },
    }


def volume(name: str, node: str = "", **spec: Any) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "late",
        **spec,
    }
    if node:
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [here]}]}
        wanted["nodeAffinity"] = {"required": terms}
    return {"metadata": {"name": name}, "spec": wanted, "status": {"phase": "Available"}}


def using(name: str, *claims: str, **spec: Any) -> dict[str, Any]:
    volumes = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims]
    return pod(name, volumes=volumes, **spec)


async def prepare(bench: Bench, provisioner: str = "example.com/disks") -> None:
    for name, mode in (("late", "WaitForFirstConsumer"), ("soon", "Immediate")):
        await bench.client.create(
            STORAGE_CLASSES,
            {
                "metadata": {"name": name},
                "provisioner": provisioner,
                "volumeBindingMode": mode,
            },
        )
    for name in ("n1", "n2"):
        await bench.node(name, labels={"kubernetes.io/hostname": name})


async def bind(bench: Bench, name: str, to: str) -> None:
    """As the binder does."""
    patch = {"metadata": {"annotations": {BIND_COMPLETED: "yes"}}, "spec": {"volumeName": to}}
    await bench.client.patch(PERSISTENT_VOLUME_CLAIMS, name, patch, "default")


@pytest.mark.parametrize(
    ("storage_class", "expected"),
    [
        ("soon", "pod has unbound immediate PersistentVolumeClaims"),
        (None, 'persistentvolumeclaim "data" not found'),
    ],
)
async def test_what_cannot_be_served_is_said(storage_class, expected):
    async with Bench() as bench:
        await prepare(bench)
        if storage_class:
            await bench.client.create(PERSISTENT_VOLUME_CLAIMS, claim("data", storage_class))
        await bench.client.create(*_pods(using("web", "data")))
        assert await bench.refusal("web") == (
            f"0/2 nodes are available: {expected}. preemption: 0/2 nodes are available: "
            "2 Preemption is not helpful for scheduling."
        )


def _pods(body: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from wherry.kube.api.resources import PODS

    return PODS, body


async def test_the_claim_is_told_the_node_and_the_pod_waits_until_it_is_bound():
    async with Bench() as bench:
        await prepare(bench)
        await bench.client.create(PERSISTENT_VOLUME_CLAIMS, claim("data"))
        await bench.client.create(*_pods(using("web", "data")))

        def selected() -> str | None:
            found = bench.api.get(PERSISTENT_VOLUME_CLAIMS, "data", "default")
            return meta.annotations(found).get(SELECTED_NODE)

        node = await bench.until(selected)
        await bench.settle()
        assert bench.place("web") is None
        await bench.client.create(PERSISTENT_VOLUMES, volume("made", node))
        await bind(bench, "data", "made")
        await bench.placed("web")
        assert bench.place("web") == node


async def test_a_free_volume_decides_the_node_and_is_reserved():
    async with Bench() as bench:
        await prepare(bench, "kubernetes.io/no-provisioner")
        await bench.client.create(PERSISTENT_VOLUMES, volume("local", "n2"))
        for name in ("data", "more"):
            await bench.client.create(PERSISTENT_VOLUME_CLAIMS, claim(name))
        await bench.client.create(*_pods(using("web", "data")))

        def reserved() -> Any:
            return bench.api.get(PERSISTENT_VOLUMES, "local")["spec"].get("claimRef")

        assert (await bench.until(reserved))["name"] == "data"
        await bind(bench, "data", "local")
        await bench.placed("web")
        assert bench.place("web") == "n2"
        await bench.client.create(*_pods(using("second", "more")))
        assert "2 node(s) didn't find available persistent volumes to bind" in (
            await bench.refusal("second")
        )


async def test_a_bound_volume_is_used_where_it_is():
    async with Bench() as bench:
        await prepare(bench)
        await bench.client.create(PERSISTENT_VOLUMES, volume("there", "n2"))
        await bench.client.create(PERSISTENT_VOLUME_CLAIMS, claim("data"))
        await bind(bench, "data", "there")
        body = using("web", "data", nodeSelector={"kubernetes.io/hostname": "n1"})
        await bench.client.create(*_pods(body))
        message = await bench.refusal("web")
        assert "1 node(s) had volume node affinity conflict" in message
        await bench.client.create(*_pods(using("other", "data")))
        await bench.placed("other")
        assert bench.place("other") == "n2"


async def test_a_claim_for_one_pod_is_used_by_one():
    async with Bench() as bench:
        await prepare(bench)
        await bench.client.create(PERSISTENT_VOLUMES, volume("there"))
        alone = claim("data", accessModes=["ReadWriteOncePod"])
        await bench.client.create(PERSISTENT_VOLUME_CLAIMS, alone)
        await bind(bench, "data", "there")
        await bench.client.create(*_pods(using("first", "data")))
        await bench.placed("first")
        await bench.client.create(*_pods(using("second", "data")))
        assert (
            "2 node has pod using PersistentVolumeClaim with the same name and "
            "ReadWriteOncePod access mode" in await bench.refusal("second")
        )


async def test_a_volume_of_a_zone_is_used_there():
    async with Bench() as bench:
        await prepare(bench)
        await bench.node("n3", labels={"topology.kubernetes.io/zone": "b"})
        labelled = volume("zonal")
        labelled["metadata"]["labels"] = {"topology.kubernetes.io/zone": "a"}
        await bench.client.create(PERSISTENT_VOLUMES, labelled)
        await bench.client.create(PERSISTENT_VOLUME_CLAIMS, claim("data"))
        await bind(bench, "data", "zonal")
        only = {"topology.kubernetes.io/zone": "b"}
        await bench.client.create(*_pods(using("web", "data", nodeSelector=only)))
        assert "1 node(s) had no available volume zone" in await bench.refusal("web")


def test_pods_that_a_budget_keeps_are_told_from_the_others():
    def labelled(name: str, app: str) -> PodInfo:
        metadata = {"name": name, "namespace": "default", "uid": name, "labels": {"app": app}}
        return PodInfo({"metadata": metadata, "spec": {"containers": []}})

    budget = {
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}},
        "status": {"disruptionsAllowed": 1, "disruptedPods": {"gone": "now"}},
    }
    pods = [labelled("gone", "a"), labelled("a1", "a"), labelled("b", "b"), labelled("a2", "a")]
    violating, others = by_budget(pods, [budget])
    assert [p.uid for p in violating] == ["a2"]
    assert [p.uid for p in others] == ["gone", "a1", "b"]
