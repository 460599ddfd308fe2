"""Pods' ephemeral volumes get claims."""

from __future__ import annotations

from cluster import Cluster

from wherry.kube.api import meta
from wherry.kube.api.resources import EVENTS, PERSISTENT_VOLUME_CLAIMS, PODS
from wherry.kube.client.transport import Object

SPEC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


def pod() -> Object:
    template = {"metadata": {"labels": {"for": "scratch"}}, "spec": SPEC}
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "containers": [{"name": "c", "image": "x"}],
            "volumes": [
                {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}},
                {"name": "plain", "emptyDir": {}},
            ],
        },
    }


async def test_a_claim_is_made_that_is_the_pods():
    async with Cluster("ephemeral-volume-controller", kubelet=False) as cluster:
        made = await cluster.client.create(PODS, pod())
        (claim,) = await cluster.until(lambda: cluster.api.find(PERSISTENT_VOLUME_CLAIMS))
        assert meta.name(claim) == "web-scratch"
        assert claim["spec"] == SPEC and meta.labels(claim) == {"for": "scratch"}
        assert meta.is_controlled_by(claim, made)
        await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "web-scratch", "default")
        await cluster.until(lambda: cluster.api.find(PERSISTENT_VOLUME_CLAIMS))


async def test_anothers_claim_of_that_name_is_told_and_waited_for():
    async with Cluster("ephemeral-volume-controller", kubelet=False) as cluster:
        other = {"metadata": {"name": "web-scratch", "namespace": "default"}, "spec": SPEC}
        await cluster.client.create(PERSISTENT_VOLUME_CLAIMS, other)
        made = await cluster.client.create(PODS, pod())
        (event,) = await cluster.until(lambda: cluster.api.find(EVENTS))
        assert event["reason"] == "FailedBinding"
        assert event["message"] == (
            "ephemeral volume scratch: PVC default/web-scratch was not created for pod "
            "default/web (pod is not owner)"
        )
        await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "web-scratch", "default")
        (claim,) = await cluster.until(lambda: cluster.api.find(PERSISTENT_VOLUME_CLAIMS))
        assert meta.is_controlled_by(claim, made)
