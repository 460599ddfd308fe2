from __future__ import annotations

import asyncio

from cluster import Cluster, change, deployment, ready, template

from wherry.kube.api import meta
from wherry.kube.api.resources import DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS

WORKLOADS = ("deployment-controller", "replicaset-controller")


def complete(cluster: Cluster, name: str = "web"):
    def check():
        d = cluster.api.get(DEPLOYMENTS, name, "default")
        status, wanted = d.get("status") or {}, d["spec"]["replicas"]
        return (
            status.get("observedGeneration") == d["metadata"]["generation"]
            and status.get("updatedReplicas", 0) == wanted
            and status.get("replicas", 0) == wanted
            and status.get("availableReplicas", 0) == wanted
        )

    return check


def condition(cluster: Cluster, type: str, name: str = "web"):
    status = cluster.api.get(DEPLOYMENTS, name, "default").get("status") or {}
    return next((c for c in status.get("conditions") or () if c["type"] == type), None)


def sets(cluster: Cluster) -> dict[str, int]:
    """Sizes of the replica sets by image."""
    return {
        rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs["spec"]["replicas"]
        for rs in cluster.api.find(REPLICA_SETS)
    }


def messages(cluster: Cluster) -> list[str]:
    return [event["message"] for event in cluster.api.find(EVENTS)]


async def test_a_deployment_becomes_pods_and_says_so():
    async with Cluster(*WORKLOADS) as cluster:
        await cluster.client.create(DEPLOYMENTS, deployment())
        await cluster.until(complete(cluster))
        await cluster.settle()
        d = cluster.api.get(DEPLOYMENTS, "web", "default")
        (rs,) = cluster.api.find(REPLICA_SETS)
        assert d["metadata"]["annotations"] == {"deployment.kubernetes.io/revision": "1"}
        assert d["status"]["readyReplicas"] == 3
        assert "unavailableReplicas" not in d["status"]
        progressing = condition(cluster, "Progressing")
        assert progressing["reason"] == "NewReplicaSetAvailable"
        name = rs["metadata"]["name"]
        assert progressing["message"] == f'ReplicaSet "{name}" has successfully progressed.'
        available = condition(cluster, "Available")
        assert (available["status"], available["reason"]) == ("True", "MinimumReplicasAvailable")
        hash = rs["metadata"]["labels"]["pod-template-hash"]
        assert name == f"web-{hash}"
        assert rs["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": hash}
        assert rs["metadata"]["annotations"] == {
            "deployment.kubernetes.io/desired-replicas": "3",
            "deployment.kubernetes.io/max-replicas": "4",
            "deployment.kubernetes.io/revision": "1",
        }
        for pod in cluster.pods():
            assert pod["metadata"]["name"].startswith(f"{name}-")
            assert meta.controller_of(pod)["uid"] == rs["metadata"]["uid"]
        said = messages(cluster)
        assert f"Scaled up replica set {name} from 0 to 3" in said
        assert sum(text.startswith(f"Created pod: {name}-") for text in said) == 3
        assert rs["status"] == {
            "replicas": 3,
            "fullyLabeledReplicas": 3,
            "readyReplicas": 3,
            "availableReplicas": 3,
            "observedGeneration": 1,
            "terminatingReplicas": 0,
        }


async def test_a_settled_deployment_causes_no_requests():
    async with Cluster(*WORKLOADS) as cluster:
        await cluster.client.create(DEPLOYMENTS, deployment())
        await cluster.until(complete(cluster))
        await cluster.settle()
        before = len(cluster.api.requests)
        await asyncio.sleep(0.2)
        assert len(cluster.api.requests) == before


async def test_scaling_is_no_new_revision():
    async with Cluster(*WORKLOADS) as cluster:
        await cluster.client.create(DEPLOYMENTS, deployment())
        await cluster.until(complete(cluster))
        await change(cluster, DEPLOYMENTS, "web", replicas=5)
        await cluster.until(complete(cluster))
        await cluster.until(lambda: len(cluster.pods()) == 5)
        await change(cluster, DEPLOYMENTS, "web", replicas=1)
        await cluster.until(complete(cluster))
        (rs,) = cluster.api.find(REPLICA_SETS)
        name = rs["metadata"]["name"]
        await cluster.settle()
        assert f"Scaled up replica set {name} from 3 to 5" in messages(cluster)
        assert f"Scaled down replica set {name} from 5 to 1" in messages(cluster)
        assert len(cluster.pods()) == 1


async def test_a_rolling_update_keeps_its_promises_at_every_moment():
    async with Cluster(*WORKLOADS) as cluster:
        await cluster.client.create(DEPLOYMENTS, deployment(replicas=10))
        await cluster.until(complete(cluster))
        surge = []
        short = []

        def look(method: str, path: str, body: object) -> None:
            pods = cluster.pods()
            surge.append(len(pods))
            short.append(sum(map(ready, pods)))

        cluster.api.after = look
        await change(cluster, DEPLOYMENTS, "web", template=template(image="hello:2"))
        await cluster.until(complete(cluster))
        assert max(surge) <= 13  # 25 % of 10, rounded up
        assert min(short) >= 8  # 25 % of 10, rounded down
        assert sets(cluster) == {"hello:1": 0, "hello:2": 10}
        d = cluster.api.get(DEPLOYMENTS, "web", "default")
        assert d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"


async def test_a_revision_that_never_gets_ready_stops_and_is_reported():
    async with Cluster(*WORKLOADS) as cluster:
        cluster.hold = lambda pod: pod["spec"]["containers"][0]["image"] == "broken"
        await cluster.client.create(DEPLOYMENTS, deployment(replicas=4, progressDeadlineSeconds=1))
        await cluster.until(complete(cluster))
        await change(cluster, DEPLOYMENTS, "web", template=template(image="broken"))
        await cluster.until(lambda: sets(cluster) == {"hello:1": 3, "broken": 2})
        await cluster.until(lambda: condition(cluster, "Progressing")["status"] == "False")
        progressing = condition(cluster, "Progressing")
        assert progressing["reason"] == "ProgressDeadlineExceeded"
        assert progressing["message"].endswith("has timed out progressing.")
        assert condition(cluster, "Available")["status"] == "True"


async def test_a_rollback_reuses_the_old_replica_set_under_a_new_revision():
    async with Cluster(*WORKLOADS) as cluster:
        await cluster.client.create(DEPLOYMENTS, deployment())
        await cluster.until(complete(cluster))
        await change(cluster, DEPLOYMENTS, "web", template=template(image="hello:2"))
        await cluster.until(complete(cluster))
        await change(cluster, DEPLOYMENTS, "web", template=template(image="hello:1"))
        await cluster.until(complete(cluster))
        await cluster.settle()
        assert sets(cluster) == {"hello:1": 3, "hello:2": 0}
        revisions = {
            rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs["metadata"]["annotations"]
            for rs in cluster.api.find(REPLICA_SETS)
        }
        assert revisions["hello:1"]["deployment.kubernetes.io/revision"] == "3"
        assert revisions["hello:1"]["deployment.kubernetes.io/revision-history"] == "1"
        assert revisions["hello:2"]["deployment.kubernetes.io/revision"] == "2"


async def test_recreate_makes_no_new_pod_before_the_last_old_one_is_gone():
    async with Cluster(*WORKLOADS) as cluster:
        mixed = []

        def look(method: str, path: str, body: object) -> None:
            images = {p["spec"]["containers"][0]["image"] for p in cluster.api.find(PODS)}
            mixed.append(len(images) > 1)

        cluster.api.after = look
        strategy = {"type": "Recreate"}
        await cluster.client.create(DEPLOYMENTS, deployment(strategy=strategy))
        await cluster.until(complete(cluster))
        await change(cluster, DEPLOYMENTS, "web", template=template(image="hello:2"))
        await cluster.until(complete(cluster))
        assert sets(cluster) == {"hello:1": 0, "hello:2": 3}
        assert not any(mixed)


async def test_a_paused_deployment_scales_but_does_not_roll():
    async with Cluster(*WORKLOADS) as cluster:
        await cluster.client.create(DEPLOYMENTS, deployment())
        await cluster.until(complete(cluster))
        changed = template(image="hello:2")
        await change(cluster, DEPLOYMENTS, "web", paused=True, template=changed, replicas=4)
        await cluster.until(lambda: len(cluster.pods()) == 4)
        await cluster.settle()
        assert sets(cluster) == {"hello:1": 4}
        assert condition(cluster, "Progressing")["reason"] == "DeploymentPaused"
        await change(cluster, DEPLOYMENTS, "web", paused=False)
        await cluster.until(complete(cluster))
        assert sets(cluster) == {"hello:1": 0, "hello:2": 4}
        await cluster.settle()
        assert condition(cluster, "Progressing")["reason"] == "NewReplicaSetAvailable"


async def test_history_beyond_the_limit_is_removed():
    async with Cluster(*WORKLOADS) as cluster:
        await cluster.client.create(DEPLOYMENTS, deployment(replicas=1, revisionHistoryLimit=1))
        await cluster.until(complete(cluster))
        for number in (2, 3, 4):
            await change(cluster, DEPLOYMENTS, "web", template=template(image=f"hello:{number}"))
            await cluster.until(complete(cluster))
        await cluster.until(lambda: set(sets(cluster)) == {"hello:3", "hello:4"})


async def test_a_hash_that_is_taken_is_counted_as_collision():
    async with Cluster(*WORKLOADS) as cluster:
        from wherry.kube.controllers.deployment.revisions import make

        await cluster.stop()
        d = await cluster.client.create(DEPLOYMENTS, deployment())
        squatter = make(d, 0, 0, {})
        del squatter["metadata"]["ownerReferences"]
        squatter["metadata"]["labels"] = {}
        await cluster.client.create(REPLICA_SETS, squatter)
        cluster.start()
        await cluster.until(complete(cluster))
        d = cluster.api.get(DEPLOYMENTS, "web", "default")
        assert d["status"]["collisionCount"] == 1
        assert len(cluster.api.find(REPLICA_SETS)) == 2


async def test_an_orphaned_replica_set_is_adopted_with_its_pods():
    async with Cluster(*WORKLOADS) as cluster:
        await cluster.client.create(DEPLOYMENTS, deployment())
        await cluster.until(complete(cluster))
        names = {meta.name(p) for p in cluster.pods()}
        (rs,) = cluster.api.find(REPLICA_SETS)
        await cluster.client.delete(DEPLOYMENTS, "web", "default")
        without = {"metadata": {"ownerReferences": None}}
        await cluster.client.patch(REPLICA_SETS, meta.name(rs), without, "default")
        await cluster.settle()
        await cluster.client.create(DEPLOYMENTS, deployment())
        await cluster.until(complete(cluster))
        (rs,) = cluster.api.find(REPLICA_SETS)
        assert meta.controller_of(rs)["name"] == "web"
        assert {meta.name(p) for p in cluster.pods()} == names


async def test_a_refused_pod_shows_as_a_condition():
    async with Cluster(*WORKLOADS) as cluster:
        from wherry.kube.api.errors import forbidden

        def refuse(method: str, path: str, body: object) -> None:
            if method == "POST" and path.endswith("/pods"):
                raise forbidden("pods", "web-x", "exceeded quota: few")

        cluster.api.before = refuse
        await cluster.client.create(DEPLOYMENTS, deployment())
        await cluster.until(lambda: condition(cluster, "ReplicaFailure"))
        failure = condition(cluster, "ReplicaFailure")
        assert failure["reason"] == "FailedCreate"
        assert "exceeded quota" in failure["message"]
        cluster.api.before = None
        await cluster.until(complete(cluster))
        await cluster.until(lambda: condition(cluster, "ReplicaFailure") is None)
