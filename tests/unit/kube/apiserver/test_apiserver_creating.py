from __future__ import annotations

import asyncio

import pytest
from apiserver_harness import API, config_map, deployment, pod

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.server import APIServer
from wherry.kube.store.sqlite import SQLiteStore


async def test_a_created_object_is_complete_and_can_be_read(api: API) -> None:
    made = await api("POST", "configmaps", config_map(a="1"))
    metadata = made["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["uid"] and metadata["creationTimestamp"] and metadata["resourceVersion"]
    assert await api("GET", "configmaps/c") == made


async def test_what_is_read_right_after_a_write_is_that_write(api: API) -> None:
    async def write_and_read(n: int) -> None:
        made = await api("POST", "configmaps", config_map(f"c{n}", a=str(n)))
        assert await api("GET", f"configmaps/c{n}") == made
        changed = await api.merge(f"configmaps/c{n}", {"data": {"a": "x"}})
        assert await api("GET", f"configmaps/c{n}") == changed

    await asyncio.gather(*(write_and_read(n) for n in range(50)))


async def test_a_taken_name_is_refused(api: API) -> None:
    await api("POST", "configmaps", config_map())
    with pytest.raises(StatusError, match=r'^configmaps "c" already exists$') as failure:
        await api("POST", "configmaps", config_map())
    assert (failure.value.code, failure.value.reason) == (409, "AlreadyExists")


async def test_a_generated_name_is_the_base_and_five_letters(api: API) -> None:
    o = config_map()
    o["metadata"] = {"generateName": "job-"}
    names = {(await api("POST", "configmaps", o))["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("job-") and len(name) == 9 for name in names)


async def test_what_only_the_server_may_set_is_set_by_the_server(api: API) -> None:
    o = config_map()
    o["metadata"] |= {
        "uid": "mine",
        "creationTimestamp": "2001-01-01T00:00:00Z",
        "deletionTimestamp": "2001-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 5,
        "generation": 7,
        "selfLink": "/x",
    }
    metadata = (await api("POST", "configmaps", o))["metadata"]
    assert metadata["uid"] != "mine" and not metadata["creationTimestamp"].startswith("2001")
    assert not {"deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"} & metadata.keys()
    assert "generation" not in metadata


async def test_the_callers_object_is_left_alone(api: API) -> None:
    o = pod()
    before = repr(o)
    await api("POST", "pods", o)
    assert repr(o) == before


async def test_a_resource_version_has_no_place_in_what_is_created(api: API) -> None:
    o = config_map()
    o["metadata"]["resourceVersion"] = "5"
    with pytest.raises(StatusError, match="resourceVersion should not be set on objects to be"):
        await api("POST", "configmaps", o)


async def test_the_namespace_of_body_and_path_must_agree(api: API) -> None:
    o = config_map()
    o["metadata"]["namespace"] = "kube-system"
    with pytest.raises(StatusError, match="does not match the namespace sent on the request"):
        await api("POST", "configmaps", o)


async def test_another_kind_is_refused(api: API) -> None:
    with pytest.raises(StatusError, match='Pod in version "v1" cannot be handled as a ConfigMap'):
        await api("POST", "configmaps", pod())


async def test_kind_and_version_may_be_left_out(api: API) -> None:
    made = await api("POST", "configmaps", {"metadata": {"name": "c"}})
    assert (made["kind"], made["apiVersion"]) == ("ConfigMap", "v1")


async def test_faults_are_told_with_their_paths(api: API) -> None:
    o = deployment()
    o["spec"]["replicas"] = -1
    with pytest.raises(StatusError) as failure:
        await api("POST", "deployments", o)
    assert failure.value.code == 422
    assert failure.value.message == (
        'Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: '
        "must be greater than or equal to 0"
    )


async def test_a_mistyped_field_is_told_in_upstreams_words(api: API) -> None:
    o = deployment()
    o["spec"]["replicas"] = "three"
    with pytest.raises(StatusError) as failure:
        await api("POST", "deployments", o)
    assert failure.value.code == 400
    assert failure.value.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal '
        "string into Go struct field DeploymentSpec.spec.replicas of type int32"
    )


async def test_an_unknown_field_is_refused_by_strict_validation(api: API) -> None:
    o = pod()
    o["spec"]["foo"] = 1
    with pytest.raises(StatusError) as failure:
        await api("POST", "pods", o, fieldValidation="Strict")
    assert failure.value.message == (
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: '
        'unknown field "spec.foo"'
    )
    assert "foo" not in (await api("POST", "pods", o, fieldValidation="Ignore"))["spec"]


async def test_a_dry_run_leaves_nothing(api: API) -> None:
    made = await api("POST", "configmaps", config_map(), dryRun="All")
    assert made["metadata"]["uid"] and "resourceVersion" not in made["metadata"]
    with pytest.raises(StatusError, match="not found"):
        await api("GET", "configmaps/c")
    await api("POST", "configmaps", config_map())
    with pytest.raises(StatusError, match="already exists"):
        await api("POST", "configmaps", config_map(), dryRun="All")


async def test_nothing_is_created_across_all_namespaces(api: API) -> None:
    for method, path in (
        ("POST", "/api/v1/configmaps"),
        ("DELETE", "/api/v1/configmaps"),
        ("POST", "/api/v1/namespaces/default/configmaps/c"),
    ):
        with pytest.raises(StatusError) as failure:
            await api(method, path, config_map())
        assert failure.value.code == 405


async def test_what_a_full_disk_refuses_is_an_error_and_reads_go_on(
    api: API, store: SQLiteStore
) -> None:
    await api("POST", "configmaps", config_map())
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StatusError, match="cannot be written: database or disk is full") as failure:
        await api("POST", "configmaps", config_map("big", a="x" * 500_000))
    assert failure.value.code == 500
    assert (await api("GET", "configmaps/c"))["metadata"]["name"] == "c"


async def test_all_objects_are_there_after_a_restart(
    api: API, server: APIServer, store: SQLiteStore, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    made = await api("POST", "pods", pod())
    await server.close()
    again = APIServer(server._config, store)
    await again.open()
    found = await again.transport("system:kube-scheduler").request(
        "GET", "/api/v1/namespaces/default/pods/web"
    )
    assert found == made
    await again.close()
