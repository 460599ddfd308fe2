from __future__ import annotations

from cluster import Cluster, deployment

from wherry.kube.api.resources import (
    CONFIG_MAPS,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
)

CONTROLLERS = (
    "namespace-controller",
    "deployment-controller",
    "replicaset-controller",
    "garbage-collector-controller",
)


def state(cluster: Cluster, type: str) -> tuple[str, str, str]:
    status = cluster.api.get(NAMESPACES, "demo")["status"]
    found = next((c for c in status.get("conditions") or () if c["type"] == type), None)
    return (found["status"], found["reason"], found["message"]) if found else ("", "", "")


async def test_a_namespace_goes_with_everything_in_it():
    async with Cluster(*CONTROLLERS) as cluster:
        client = cluster.client
        await client.create(NAMESPACES, {"metadata": {"name": "demo"}})
        body = deployment()
        body["metadata"]["namespace"] = "demo"
        from wherry.kube.api.resources import DEPLOYMENTS

        await client.create(DEPLOYMENTS, body)
        await client.create(SECRETS, {"metadata": {"name": "s", "namespace": "demo"}})
        await client.create(SECRETS, {"metadata": {"name": "s", "namespace": "other"}})
        await cluster.until(lambda: len(cluster.pods("demo")) == 3)
        await client.delete(NAMESPACES, "demo")
        await cluster.until(lambda: cluster.api.get(NAMESPACES, "demo") is None)
        left = [key for key in cluster.api.objects if key[1] == "demo"]
        assert left == []
        assert cluster.api.get(SECRETS, "s", "other") is not None


async def test_an_empty_namespace_goes_at_once():
    async with Cluster("namespace-controller") as cluster:
        await cluster.client.create(NAMESPACES, {"metadata": {"name": "demo"}})
        await cluster.client.delete(NAMESPACES, "demo")
        await cluster.until(lambda: cluster.api.get(NAMESPACES, "demo") is None)


async def test_pods_go_first_and_what_remains_is_reported():
    async with Cluster("namespace-controller", kubelet=False) as cluster:
        client = cluster.client
        await client.create(NAMESPACES, {"metadata": {"name": "demo"}})
        await client.create(
            PODS,
            {"metadata": {"name": "p", "namespace": "demo"}, "spec": {"nodeName": "n1"}},
        )
        await client.create(
            CONFIG_MAPS,
            {"metadata": {"name": "c", "namespace": "demo", "finalizers": ["example.com/hold"]}},
        )
        await client.delete(NAMESPACES, "demo")
        await cluster.until(lambda: state(cluster, "NamespaceContentRemaining")[0] == "True")
        await cluster.settle()
        assert state(cluster, "NamespaceContentRemaining")[1:] == (
            "SomeResourcesRemain",
            "Some resources are remaining: configmaps. has 1 resource instances, "
            "pods. has 1 resource instances",
        )
        assert state(cluster, "NamespaceDeletionContentFailure")[:2] == ("False", "ContentDeleted")
        config_map = cluster.api.get(CONFIG_MAPS, "c", "demo")
        assert "deletionTimestamp" not in config_map["metadata"]
        await client.delete(PODS, "p", "demo", grace=0)
        await cluster.until(
            lambda: "deletionTimestamp" in cluster.api.get(CONFIG_MAPS, "c", "demo")["metadata"]
        )
        await cluster.until(lambda: state(cluster, "NamespaceFinalizersRemaining")[0] == "True")
        assert state(cluster, "NamespaceFinalizersRemaining")[1:] == (
            "SomeFinalizersRemain",
            "Some content in the namespace has finalizers remaining: "
            "example.com/hold in 1 resource instances",
        )
        release = {"metadata": {"finalizers": None}}
        await client.patch(CONFIG_MAPS, "c", release, "demo")
        await cluster.until(lambda: cluster.api.get(NAMESPACES, "demo") is None)


async def test_a_deletion_that_fails_is_reported_and_tried_again():
    async with Cluster("namespace-controller") as cluster:
        from wherry.kube.api.errors import StatusError

        client = cluster.client
        await client.create(NAMESPACES, {"metadata": {"name": "demo"}})
        await client.create(SECRETS, {"metadata": {"name": "s", "namespace": "demo"}})
        broken = True

        def refuse(method: str, path: str, body: object) -> None:
            if broken and method == "DELETE" and path.endswith("/secrets"):
                raise StatusError(500, "InternalError", "disk on fire")

        cluster.api.before = refuse
        await client.delete(NAMESPACES, "demo")
        await cluster.until(lambda: state(cluster, "NamespaceDeletionContentFailure")[0] == "True")
        assert state(cluster, "NamespaceDeletionContentFailure")[2] == (
            "Failed to delete all resource types, 1 remaining: secrets.: disk on fire"
        )
        broken = False
        await cluster.until(lambda: cluster.api.get(NAMESPACES, "demo") is None)


async def test_every_namespace_has_a_default_account_and_the_root_authority():
    names = ("serviceaccount-controller", "root-ca-certificate-publisher-controller")
    async with Cluster(*names, root_ca="PEM") as cluster:
        client = cluster.client
        await client.create(NAMESPACES, {"metadata": {"name": "demo"}})
        await cluster.until(lambda: cluster.api.get(SERVICE_ACCOUNTS, "default", "demo"))
        await cluster.until(lambda: cluster.api.get(CONFIG_MAPS, "kube-root-ca.crt", "demo"))
        await client.delete(SERVICE_ACCOUNTS, "default", "demo")
        await cluster.until(lambda: cluster.api.get(SERVICE_ACCOUNTS, "default", "demo"))
        patch = {"data": {"ca.crt": "forged", "more": "x"}}
        await client.patch(CONFIG_MAPS, "kube-root-ca.crt", patch, "demo")
        await cluster.until(
            lambda: (
                cluster.api.get(CONFIG_MAPS, "kube-root-ca.crt", "demo")["data"]
                == {"ca.crt": "PEM"}
            )
        )
        await client.delete(CONFIG_MAPS, "kube-root-ca.crt", "demo")
        await cluster.until(lambda: cluster.api.get(CONFIG_MAPS, "kube-root-ca.crt", "demo"))


async def test_a_namespace_that_goes_gets_no_new_account():
    async with Cluster("serviceaccount-controller") as cluster:
        client = cluster.client
        await client.create(NAMESPACES, {"metadata": {"name": "demo"}})
        await cluster.until(lambda: cluster.api.get(SERVICE_ACCOUNTS, "default", "demo"))
        await client.delete(NAMESPACES, "demo")
        await client.delete(SERVICE_ACCOUNTS, "default", "demo")
        await cluster.settle()
        assert cluster.api.get(SERVICE_ACCOUNTS, "default", "demo") is None
