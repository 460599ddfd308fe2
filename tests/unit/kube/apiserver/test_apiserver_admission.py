from __future__ import annotations

import asyncio

import pytest
from apiserver_harness import API, full, pod

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.authn import known
from wherry.kube.apiserver.server import APIServer

NODE = known("system:node:n1", ("system:nodes",))


@pytest.fixture
def node(server: APIServer) -> API:
    return API(server.transport(NODE))


async def test_nothing_is_created_where_there_is_no_namespace(api: API) -> None:
    with pytest.raises(StatusError, match=r'^namespaces "nowhere" not found$') as failure:
        await api("POST", "/api/v1/namespaces/nowhere/pods", pod())
    assert failure.value.code == 404


async def test_a_pod_runs_as_the_default_account(api: API) -> None:
    made = await api("POST", "pods", pod())
    assert made["spec"]["serviceAccountName"] == made["spec"]["serviceAccount"] == "default"


async def test_an_account_that_is_not_there_is_named(api: API) -> None:
    with pytest.raises(StatusError) as failure:
        await api("POST", "pods", pod(serviceAccountName="robot"))
    assert failure.value.message == (
        'pods "web" is forbidden: error looking up service account default/robot: '
        'serviceaccount "robot" not found'
    )


async def test_a_pod_waits_a_moment_for_the_account_of_a_new_namespace(api: API) -> None:
    await api("POST", "namespaces", {"metadata": {"name": "new"}})
    creating = asyncio.ensure_future(api("POST", "/api/v1/namespaces/new/pods", pod()))
    await asyncio.sleep(0.01)
    assert not creating.done()
    await api("POST", "/api/v1/namespaces/new/serviceaccounts", {"metadata": {"name": "default"}})
    assert (await creating)["metadata"]["namespace"] == "new"


async def test_pull_secrets_come_from_the_account(api: API) -> None:
    account = {"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "registry"}]}
    await api("POST", "serviceaccounts", account)
    made = await api("POST", "pods", pod(serviceAccountName="robot"))
    assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]


async def test_a_pod_tolerates_a_lost_node_for_five_minutes(api: API) -> None:
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}
    made = await api("POST", "pods", pod(tolerations=[own]))
    assert made["spec"]["tolerations"] == [
        own,
        {
            "key": "node.kubernetes.io/unreachable",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        },
    ]


async def test_a_priority_comes_from_its_class(api: API) -> None:
    assert (await api("POST", "pods", pod("a")))["spec"]["priority"] == 0
    critical = pod("b", priorityClassName="system-node-critical")
    assert (await api("POST", "pods", critical))["spec"]["priority"] == 2_000_001_000
    with pytest.raises(StatusError, match="no PriorityClass with name gold was found"):
        await api("POST", "pods", pod("c", priorityClassName="gold"))
    with pytest.raises(StatusError, match="must not be provided in pod spec"):
        await api("POST", "pods", pod("d", priority=7))


async def test_a_node_changes_only_itself(api: API, node: API) -> None:
    await node("POST", "nodes", {"metadata": {"name": "n1"}})
    await api("POST", "nodes", {"metadata": {"name": "n2"}})
    await node.merge("nodes/n1/status", {"status": {"capacity": {"cpu": "2"}}})
    with pytest.raises(StatusError, match='node "n1" is not allowed to modify node "n2"'):
        await node.merge("nodes/n2/status", {"status": {"capacity": {"cpu": "2"}}})
    with pytest.raises(StatusError, match='node "n1" is not allowed to modify taints'):
        taint = {"key": "a", "effect": "NoSchedule"}
        await node.merge("nodes/n1", {"spec": {"taints": [taint]}})


async def test_a_node_changes_only_its_pods(api: API, node: API) -> None:
    await api("POST", "pods", pod("mine", nodeName="n1"))
    await api("POST", "pods", pod("other", nodeName="n2"))
    status = {"status": {"phase": "Running"}}
    await node.merge("pods/mine/status", status)
    with pytest.raises(
        StatusError, match=r"can only update pod status for pods with spec.nodeName"
    ):
        await node.merge("pods/other/status", status)
    with pytest.raises(StatusError, match=r"can only delete pods with spec.nodeName set to itself"):
        await node("DELETE", "pods/other")
    with pytest.raises(StatusError, match="can only create mirror pods"):
        await node("POST", "pods", pod("new", nodeName="n1"))


async def test_a_node_holds_only_its_lease(node: API) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
    await node("POST", path.format("kube-node-lease"), {"metadata": {"name": "n1"}})
    with pytest.raises(StatusError, match="same name as the requesting node"):
        await node("POST", path.format("kube-node-lease"), {"metadata": {"name": "n2"}})
    with pytest.raises(StatusError, match="can only access leases in the"):
        await node("POST", path.format("default"), {"metadata": {"name": "n1"}})


async def test_who_is_nobody_may_do_nothing_with_objects(server: APIServer) -> None:
    nobody = server.transport("bob")
    with pytest.raises(StatusError) as failure:
        await nobody.request("GET", full("pods"))
    assert failure.value.code == 403
    assert failure.value.message == (
        'pods is forbidden: User "bob" cannot list resource "pods" in API group "" '
        'in the namespace "default"'
    )
    with pytest.raises(StatusError) as failure:
        await nobody.request("DELETE", "/apis/apps/v1/namespaces/default/deployments/web")
    assert failure.value.message == (
        'deployments.apps "web" is forbidden: User "bob" cannot delete resource "deployments" '
        'in API group "apps" in the namespace "default"'
    )
    with pytest.raises(StatusError, match=r'cannot list resource "nodes" .* at the cluster scope'):
        await nobody.request("GET", "/api/v1/nodes")


async def test_components_may_do_their_work(server: APIServer, api: API) -> None:
    await api("POST", "pods", pod())
    scheduler = API(server.transport("system:kube-scheduler"))
    await scheduler("POST", "pods/web/binding", {"target": {"name": "n1"}})
    with pytest.raises(StatusError, match="cannot create resource"):
        await scheduler("POST", "pods", pod("x"))
    proxy = API(server.transport("system:kube-proxy"))
    await proxy("GET", "/api/v1/services")
    with pytest.raises(StatusError, match="cannot list resource"):
        await proxy("GET", "/api/v1/secrets")
    controllers = API(server.transport("system:serviceaccount:kube-system:replicaset-controller"))
    await controllers("POST", "pods", pod("y"))
    await controllers("DELETE", "pods/y")
    with pytest.raises(StatusError, match="cannot list resource"):
        await controllers("GET", "/api/v1/secrets")
