from __future__ import annotations

from cluster import Cluster, deployment

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
)
from wherry.kube.client.transport import Object

GC = "garbage-collector-controller"


def owned(name: str, *owners: Object, block: bool = False, namespace: str = "default") -> Object:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "ownerReferences": [
                {
                    "apiVersion": owner["apiVersion"],
                    "kind": owner["kind"],
                    "name": owner["metadata"]["name"],
                    "uid": owner["metadata"]["uid"],
                    **({"blockOwnerDeletion": True} if block else {}),
                }
                for owner in owners
            ],
        }
    }


async def make(cluster: Cluster, name: str, *owners: Object, **how) -> Object:
    return await cluster.client.create(CONFIG_MAPS, owned(name, *owners, **how))


def gone(cluster: Cluster, *names: str):
    return lambda: not any(cluster.api.get(CONFIG_MAPS, name, "default") for name in names)


async def test_dependents_go_with_their_last_owner():
    async with Cluster(GC) as cluster:
        a, b = await make(cluster, "a"), await make(cluster, "b")
        await make(cluster, "of-a", a)
        await make(cluster, "of-both", a, b)
        await make(cluster, "of-of-a", cluster.api.get(CONFIG_MAPS, "of-a", "default"))
        await cluster.settle()
        assert not gone(cluster, "of-a")()
        await cluster.client.delete(CONFIG_MAPS, "a", "default", propagation="Background")
        await cluster.until(gone(cluster, "of-a", "of-of-a"))
        await cluster.settle()
        kept = cluster.api.get(CONFIG_MAPS, "of-both", "default")
        assert [r["name"] for r in kept["metadata"]["ownerReferences"]] == ["b"]
        await cluster.client.delete(CONFIG_MAPS, "b", "default")
        await cluster.until(gone(cluster, "of-both"))


async def test_an_owner_that_never_was_takes_its_dependents_along():
    async with Cluster(GC) as cluster:
        ghost = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "ghost", "uid": "never"},
        }
        await make(cluster, "child", ghost)
        await cluster.until(gone(cluster, "child"))


async def test_an_owner_of_the_same_name_but_another_uid_is_no_owner():
    async with Cluster(GC) as cluster:
        first = await make(cluster, "a")
        await cluster.client.delete(CONFIG_MAPS, "a", "default")
        await make(cluster, "a")
        await make(cluster, "child", first)
        await cluster.until(gone(cluster, "child"))
        assert cluster.api.get(CONFIG_MAPS, "a", "default") is not None


async def test_what_was_left_behind_while_nobody_watched_is_found():
    async with Cluster(GC) as cluster:
        a = await make(cluster, "a")
        await make(cluster, "child", a)
        await cluster.stop()
        await cluster.client.delete(CONFIG_MAPS, "a", "default")
        cluster.start()
        await cluster.until(gone(cluster, "child"))


async def test_foreground_waits_for_those_that_block():
    async with Cluster(GC) as cluster:
        a = await make(cluster, "a")
        held = owned("held", a, block=True)
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await cluster.client.create(CONFIG_MAPS, held)
        await make(cluster, "free", a)
        await cluster.client.delete(CONFIG_MAPS, "a", "default", propagation="Foreground")
        await cluster.until(gone(cluster, "free"))
        await cluster.settle()
        waiting = cluster.api.get(CONFIG_MAPS, "a", "default")
        assert waiting["metadata"]["finalizers"] == ["foregroundDeletion"]
        assert meta.is_deleting(cluster.api.get(CONFIG_MAPS, "held", "default"))
        release = {"metadata": {"finalizers": None}}
        await cluster.client.patch(CONFIG_MAPS, "held", release, "default")
        await cluster.until(gone(cluster, "held", "a"))


async def test_foreground_goes_down_all_generations():
    async with Cluster(GC) as cluster:
        a = await make(cluster, "a")
        b = await make(cluster, "b", a, block=True)
        await make(cluster, "c", b, block=True)
        order = []
        cluster.api.after = lambda *_: order.append(
            tuple(n for n in "abc" if cluster.api.get(CONFIG_MAPS, n, "default"))
        )
        await cluster.client.delete(CONFIG_MAPS, "a", "default", propagation="Foreground")
        await cluster.until(gone(cluster, "a", "b", "c"))
        assert ("a",) in order and ("a", "b") in order


async def test_a_circle_does_not_wait_for_itself():
    async with Cluster(GC) as cluster:
        a = await make(cluster, "a")
        b = await make(cluster, "b", a, block=True)
        references = owned("a", b, block=True)["metadata"]["ownerReferences"]
        circle = {"metadata": {"ownerReferences": references}}
        await cluster.client.patch(CONFIG_MAPS, "a", circle, "default")
        await cluster.settle()
        await cluster.client.delete(CONFIG_MAPS, "a", "default", propagation="Foreground")
        await cluster.until(gone(cluster, "a", "b"))


async def test_orphans_stay_and_are_nobodys():
    async with Cluster(GC) as cluster:
        a = await make(cluster, "a")
        await make(cluster, "child", a)
        await cluster.settle()
        await cluster.client.delete(CONFIG_MAPS, "a", "default", propagation="Orphan")
        await cluster.until(gone(cluster, "a"))
        await cluster.settle()
        child = cluster.api.get(CONFIG_MAPS, "child", "default")
        assert not meta.owner_references(child)


async def test_an_owner_in_another_namespace_is_none_and_is_reported():
    async with Cluster(GC) as cluster:
        a = await make(cluster, "a", namespace="other")
        await make(cluster, "child", a)
        await cluster.until(gone(cluster, "child"))
        await cluster.until(
            lambda: [e for e in cluster.api.find(EVENTS) if "OwnerRef" in e["reason"]]
        )


async def test_a_cluster_scoped_object_is_never_deleted_for_a_namespaced_owner():
    async with Cluster(GC) as cluster:
        a = await make(cluster, "a")
        await cluster.client.create(NODES, owned("n1", a, namespace=""))
        await cluster.client.delete(CONFIG_MAPS, "a", "default")
        await cluster.settle()
        assert cluster.api.get(NODES, "n1") is not None


async def test_a_cluster_scoped_owner_may_own_anywhere():
    async with Cluster(GC) as cluster:
        node = await cluster.client.create(NODES, {"metadata": {"name": "n1"}})
        await cluster.client.create(SECRETS, owned("s", node))
        await cluster.settle()
        assert cluster.api.get(SECRETS, "s", "default") is not None
        await cluster.client.delete(NODES, "n1")
        await cluster.until(lambda: cluster.api.get(SECRETS, "s", "default") is None)


async def test_kinds_nobody_follows_are_left_alone():
    async with Cluster(GC) as cluster:
        unknown = {"apiVersion": "x.io/v1", "kind": "X", "metadata": {"name": "x", "uid": "u"}}
        await make(cluster, "child", unknown)
        await cluster.settle()
        assert not gone(cluster, "child")()


async def test_refusals_are_tried_again():
    async with Cluster(GC) as cluster:
        a = await make(cluster, "a")
        await make(cluster, "child", a)
        await cluster.settle()
        refused = 0

        def refuse(method: str, path: str, body: object) -> None:
            nonlocal refused
            if method == "DELETE" and path.endswith("/child") and refused < 3:
                refused += 1
                raise StatusError(500, "InternalError", "not now")

        cluster.api.before = refuse
        await cluster.client.delete(CONFIG_MAPS, "a", "default")
        await cluster.until(gone(cluster, "child"))
        assert refused == 3


async def test_a_deployment_goes_with_all_its_pods():
    async with Cluster("deployment-controller", "replicaset-controller", GC) as cluster:
        await cluster.client.create(DEPLOYMENTS, deployment())
        await cluster.until(lambda: len(cluster.pods()) == 3)
        await cluster.settle()
        await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation="Background")
        await cluster.until(lambda: not cluster.api.find(REPLICA_SETS))
        await cluster.until(lambda: not cluster.api.find(PODS))


async def test_a_deployment_deleted_in_the_foreground_is_last():
    async with Cluster("deployment-controller", "replicaset-controller", GC) as cluster:
        await cluster.client.create(DEPLOYMENTS, deployment())
        await cluster.until(lambda: len(cluster.pods()) == 3)
        await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation="Foreground")

        def look(*_: object) -> None:
            if cluster.api.find(PODS):
                assert cluster.api.find(REPLICA_SETS)
            if cluster.api.find(REPLICA_SETS):
                assert cluster.api.find(DEPLOYMENTS)

        cluster.api.after = look
        await cluster.until(lambda: not cluster.api.find(DEPLOYMENTS))
        assert not cluster.api.find(PODS)
