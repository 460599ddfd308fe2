from __future__ import annotations

import pytest
from apiserver_harness import API, config_map, deployment, pod

from wherry.kube.api.errors import StatusError

JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


async def test_a_merge_patch_merges_and_removes(api: API) -> None:
    await api("POST", "configmaps", config_map(a="1", b="2"))
    changed = await api.merge("configmaps/c", {"data": {"a": None, "z": "3"}})
    assert changed["data"] == {"b": "2", "z": "3"}


async def test_a_json_patch_is_all_or_nothing(api: API) -> None:
    await api("POST", "configmaps", config_map(a="1"))
    good = [{"op": "replace", "path": "/data/a", "value": "2"}]
    assert (await api("PATCH", "configmaps/c", good, content_type=JSON_PATCH))["data"] == {"a": "2"}
    bad = [*good, {"op": "test", "path": "/data/a", "value": "9"}]
    with pytest.raises(StatusError) as failure:
        await api("PATCH", "configmaps/c", bad, content_type=JSON_PATCH)
    assert failure.value.code == 422


async def test_a_strategic_patch_knows_containers_by_name(api: API) -> None:
    await api("POST", "deployments", deployment())
    containers = [{"name": "d", "image": "two"}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    changed = await api("PATCH", "deployments/web", patch, content_type=STRATEGIC)
    names = [c["name"] for c in changed["spec"]["template"]["spec"]["containers"]]
    assert sorted(names) == ["c", "d"]


async def test_an_unknown_patch_is_refused_with_the_known_ones(api: API) -> None:
    await api("POST", "configmaps", config_map())
    with pytest.raises(StatusError, match="accepted media types include: ") as failure:
        await api("PATCH", "configmaps/c", {}, content_type="application/json")
    assert failure.value.code == 415


async def test_a_patch_may_demand_a_version(api: API) -> None:
    made = await api("POST", "configmaps", config_map(a="1"))
    version = made["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "data": {"a": "2"}}
    await api.merge("configmaps/c", patch)
    with pytest.raises(StatusError, match="the object has been modified") as failure:
        await api.merge("configmaps/c", patch)
    assert failure.value.code == 409


async def test_a_patch_cannot_rename(api: API) -> None:
    await api("POST", "configmaps", config_map())
    with pytest.raises(StatusError, match="does not match the name on the URL"):
        await api.merge("configmaps/c", {"metadata": {"name": "d"}})


async def test_what_is_not_there_cannot_be_patched(api: API) -> None:
    with pytest.raises(StatusError, match='configmaps "c" not found'):
        await api.merge("configmaps/c", {})


async def test_a_patch_of_the_status_leaves_the_spec(api: API) -> None:
    await api("POST", "pods", pod())
    changed = await api.merge(
        "pods/web/status", {"status": {"phase": "Running"}, "spec": {"nodeName": "n"}}
    )
    assert changed["status"]["phase"] == "Running" and "nodeName" not in changed["spec"]


async def test_strictness_reaches_into_patches(api: API) -> None:
    await api("POST", "pods", pod())
    with pytest.raises(StatusError, match=r'strict decoding error: unknown field "spec.foo"'):
        await api.merge("pods/web", {"spec": {"foo": 1}}, fieldValidation="Strict")


async def test_a_patch_that_makes_it_invalid_changes_nothing(api: API) -> None:
    made = await api("POST", "deployments", deployment())
    with pytest.raises(StatusError, match="must be greater than or equal to 0"):
        await api.merge("deployments/web", {"spec": {"replicas": -1}})
    assert await api("GET", "deployments/web") == made


async def test_server_side_apply_creates_takes_and_conflicts(api: API) -> None:
    async def apply(manager: str, replicas: int, **query: str):  # type: ignore[no-untyped-def]
        o = deployment(replicas=replicas)
        return await api(
            "PATCH", "deployments/web", o, content_type=APPLY, fieldManager=manager, **query
        )

    made = await apply("a", 1)
    assert made["metadata"]["managedFields"][0]["manager"] == "a"
    assert (await apply("a", 1))["metadata"]["resourceVersion"] == made["metadata"][
        "resourceVersion"
    ]
    with pytest.raises(StatusError, match="Apply failed with 1 conflict") as failure:
        await apply("b", 2)
    assert failure.value.code == 409
    assert (await apply("b", 2, force="true"))["spec"]["replicas"] == 2


async def test_apply_needs_a_manager(api: API) -> None:
    with pytest.raises(StatusError, match="fieldManager: Required value: is required for apply"):
        await api("PATCH", "configmaps/c", config_map(), content_type=APPLY)


async def test_writes_note_their_manager(api: API) -> None:
    await api("POST", "configmaps", config_map(a="1"), fieldManager="maker")
    changed = await api.merge("configmaps/c", {"data": {"b": "2"}}, fieldManager="changer")
    managers = {entry["manager"] for entry in changed["metadata"]["managedFields"]}
    assert managers == {"maker", "changer"}
