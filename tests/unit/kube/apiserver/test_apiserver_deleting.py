from __future__ import annotations

import copy
from typing import Any

import pytest
from apiserver_harness import API, Object, config_map, deployment, pod

from wherry.kube.api.errors import StatusError


async def gone(api: API, path: str) -> bool:
    try:
        await api("GET", path)
    except StatusError as error:
        assert error.code == 404
        return True
    return False


async def scheduled(api: API, **spec: Any) -> Object:
    return await api("POST", "pods", pod(nodeName="n", **spec))


async def test_what_nothing_holds_goes_at_once(api: API) -> None:
    made = await api("POST", "configmaps", config_map())
    status = await api("DELETE", "configmaps/c")
    assert status["status"] == "Success"
    assert status["details"] == {"name": "c", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert await gone(api, "configmaps/c")
    with pytest.raises(StatusError, match='configmaps "c" not found'):
        await api("DELETE", "configmaps/c")


async def test_a_pod_on_a_node_is_first_asked_to_end(api: API) -> None:
    await scheduled(api, terminationGracePeriodSeconds=20)
    going = await api("DELETE", "pods/web")
    assert going["metadata"]["deletionGracePeriodSeconds"] == 20
    assert going["metadata"]["deletionTimestamp"] > going["metadata"]["creationTimestamp"]
    assert going["metadata"]["generation"] == 2
    assert not await gone(api, "pods/web")
    await api("DELETE", "pods/web", {"gracePeriodSeconds": 0})
    assert await gone(api, "pods/web")


async def test_a_pod_on_no_node_goes_at_once(api: API) -> None:
    await api("POST", "pods", pod())
    await api("DELETE", "pods/web")
    assert await gone(api, "pods/web")


async def test_a_grace_can_only_become_shorter(api: API) -> None:
    await scheduled(api)
    first = await api("DELETE", "pods/web")
    assert await api("DELETE", "pods/web", {"gracePeriodSeconds": 50}) == first
    shorter = await api("DELETE", "pods/web", {"gracePeriodSeconds": 5})
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    assert shorter["metadata"]["deletionTimestamp"] < first["metadata"]["deletionTimestamp"]


async def test_a_finalizer_holds_until_it_is_taken_away(api: API) -> None:
    o = config_map()
    o["metadata"]["finalizers"] = ["example.com/hold"]
    await api("POST", "configmaps", o)
    held = await api("DELETE", "configmaps/c")
    assert held["metadata"]["deletionGracePeriodSeconds"] == 0
    assert await api("DELETE", "configmaps/c") == held
    await api.merge("configmaps/c", {"data": {"a": "1"}})
    assert not await gone(api, "configmaps/c")
    await api.merge("configmaps/c", {"metadata": {"finalizers": None}})
    assert await gone(api, "configmaps/c")


async def test_what_is_going_gets_no_new_finalizers(api: API) -> None:
    o = config_map()
    o["metadata"]["finalizers"] = ["example.com/hold"]
    await api("POST", "configmaps", o)
    await api("DELETE", "configmaps/c")
    with pytest.raises(StatusError, match="no new finalizers can be added"):
        await api.merge(
            "configmaps/c", {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
        )


async def test_a_pod_with_grace_and_finalizer_waits_for_both(api: API) -> None:
    o = pod(nodeName="n")
    o["metadata"]["finalizers"] = ["example.com/hold"]
    await api("POST", "pods", o)
    await api("DELETE", "pods/web")
    await api("DELETE", "pods/web", {"gracePeriodSeconds": 0})
    assert not await gone(api, "pods/web")
    await api.merge("pods/web", {"metadata": {"finalizers": None}})
    assert await gone(api, "pods/web")


@pytest.mark.parametrize(
    ("policy", "finalizer"),
    [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")],
)
async def test_a_propagation_policy_is_a_finalizer_for_the_collector(
    api: API, policy: str, finalizer: str
) -> None:
    await api("POST", "deployments", deployment())
    going = await api("DELETE", "deployments/web", {"propagationPolicy": policy})
    assert going["metadata"]["finalizers"] == [finalizer]
    assert going["metadata"]["deletionTimestamp"]


async def test_in_the_background_the_owner_goes_first(api: API) -> None:
    await api("POST", "deployments", deployment())
    await api("DELETE", "deployments/web", {"propagationPolicy": "Background"})
    assert await gone(api, "deployments/web")


async def test_controllers_of_the_old_kind_orphan_by_default(api: API) -> None:
    o = deployment()
    o |= {"apiVersion": "v1", "kind": "ReplicationController"}
    o["spec"]["selector"] = {"app": "web"}
    await api("POST", "replicationcontrollers", o)
    going = await api("DELETE", "replicationcontrollers/web")
    assert going["metadata"]["finalizers"] == ["orphan"]


async def test_preconditions_protect_what_came_after(api: API) -> None:
    made = await api("POST", "configmaps", config_map())
    with pytest.raises(StatusError, match=r"the UID in the precondition \(x\) does not match"):
        await api("DELETE", "configmaps/c", {"preconditions": {"uid": "x"}})
    version = made["metadata"]["resourceVersion"]
    await api.merge("configmaps/c", {"data": {"a": "1"}})
    with pytest.raises(StatusError, match="the ResourceVersion in the precondition") as failure:
        await api("DELETE", "configmaps/c", {"preconditions": {"resourceVersion": version}})
    assert failure.value.code == 409
    await api("DELETE", "configmaps/c", {"preconditions": {"uid": made["metadata"]["uid"]}})
    assert await gone(api, "configmaps/c")


async def test_a_dry_delete_deletes_nothing(api: API) -> None:
    await api("POST", "configmaps", config_map())
    await api("DELETE", "configmaps/c", {"dryRun": ["All"]})
    assert not await gone(api, "configmaps/c")


async def test_a_collection_is_deleted_by_its_selection(api: API) -> None:
    for n in range(100):
        o = config_map(f"c{n}")
        o["metadata"]["labels"] = {"even": str(n % 2 == 0).lower()}
        await api("POST", "configmaps", o)
    deleted = await api("DELETE", "configmaps", labelSelector="even=true")
    assert len(deleted["items"]) == 50
    left = await api("GET", "configmaps")
    assert {o["metadata"]["labels"]["even"] for o in left["items"]} == {"false"}


async def test_a_page_of_a_collection_is_deleted(api: API) -> None:
    for n in range(5):
        await api("POST", "configmaps", config_map(f"c{n}"))
    deleted = await api("DELETE", "configmaps", limit="2")
    assert [o["metadata"]["name"] for o in deleted["items"]] == ["c0", "c1"]
    assert deleted["metadata"]["remainingItemCount"] == 3
    rest = {"continue": deleted["metadata"]["continue"]}
    assert len((await api("DELETE", "configmaps", **rest))["items"]) == 3
    assert not (await api("GET", "configmaps"))["items"]


async def test_a_namespace_goes_when_its_finalizers_have(api: API) -> None:
    made = await api("POST", "namespaces", {"metadata": {"name": "demo"}})
    assert made["spec"]["finalizers"] == ["kubernetes"]
    going = await api("DELETE", "namespaces/demo")
    assert going["status"]["phase"] == "Terminating" and going["metadata"]["deletionTimestamp"]
    with pytest.raises(StatusError, match="ensuring all content is removed") as failure:
        await api("DELETE", "namespaces/demo")
    assert failure.value.code == 409
    with pytest.raises(StatusError, match="because it is being terminated") as failure:
        await api("POST", "/api/v1/namespaces/demo/configmaps", config_map())
    assert failure.value.code == 403
    assert failure.value.details is not None
    assert failure.value.details["causes"][0]["reason"] == "NamespaceTerminating"
    empty = copy.deepcopy(going)
    empty["spec"] = {}
    await api("PUT", "namespaces/demo/finalize", empty)
    assert await gone(api, "namespaces/demo")


async def test_finalizers_of_a_namespace_change_by_their_own_door_alone(api: API) -> None:
    made = await api("POST", "namespaces", {"metadata": {"name": "demo"}})
    await api("PUT", "namespaces/demo", {**made, "spec": {}})
    assert (await api("GET", "namespaces/demo"))["spec"]["finalizers"] == ["kubernetes"]


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
async def test_some_namespaces_stay(api: API, name: str) -> None:
    with pytest.raises(StatusError) as failure:
        await api("DELETE", f"namespaces/{name}")
    assert failure.value.message == (
        f'namespaces "{name}" is forbidden: this namespace may not be deleted'
    )
