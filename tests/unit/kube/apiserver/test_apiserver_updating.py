from __future__ import annotations

import asyncio
import copy

import pytest
from apiserver_harness import API, config_map, deployment, service

from wherry.kube.api.errors import StatusError

STALE = (
    'Operation cannot be fulfilled on configmaps "c": the object has been modified; please apply '
    "your changes to the latest version and try again"
)


async def test_an_update_replaces_all_but_what_is_the_servers(api: API) -> None:
    made = await api("POST", "configmaps", config_map(a="1", b="2"))
    changed = await api("PUT", "configmaps/c", config_map(a="3"))
    assert changed["data"] == {"a": "3"}
    for field in ("uid", "creationTimestamp"):
        assert changed["metadata"][field] == made["metadata"][field]
    assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


async def test_a_stale_update_is_refused(api: API) -> None:
    made = copy.deepcopy(await api("POST", "configmaps", config_map(a="1")))
    await api.merge("configmaps/c", {"data": {"a": "2"}})
    made["data"] = {"a": "3"}
    with pytest.raises(StatusError) as failure:
        await api("PUT", "configmaps/c", made)
    assert (failure.value.code, failure.value.message) == (409, STALE)


async def test_an_update_that_changes_nothing_keeps_the_revision(api: API) -> None:
    made = await api("POST", "deployments", deployment())
    again = await api("PUT", "deployments/web", made)
    assert again == made
    patched = await api.merge("deployments/web", {"spec": {"replicas": 1}})
    assert patched["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_the_generation_counts_changes_of_the_spec_alone(api: API) -> None:
    await api("POST", "deployments", deployment())
    labelled = await api.merge("deployments/web", {"metadata": {"labels": {"a": "b"}}})
    assert labelled["metadata"]["generation"] == 1
    scaled = await api.merge("deployments/web", {"spec": {"replicas": 5}})
    assert scaled["metadata"]["generation"] == 2


async def test_status_and_spec_have_their_own_doors(api: API) -> None:
    made = await api("POST", "deployments", deployment())
    wanted = copy.deepcopy(made)
    wanted["status"] = {"replicas": 1, "observedGeneration": 1}
    wanted["spec"]["replicas"] = 9
    by_main = await api("PUT", "deployments/web", wanted)
    assert by_main["spec"]["replicas"] == 9 and "replicas" not in by_main["status"]
    wanted["metadata"].pop("resourceVersion")
    wanted["spec"]["replicas"] = 7
    by_status = await api("PUT", "deployments/web/status", wanted)
    assert by_status["spec"]["replicas"] == 9 and by_status["status"]["replicas"] == 1


async def test_names_in_body_and_path_must_agree(api: API) -> None:
    await api("POST", "configmaps", config_map())
    with pytest.raises(StatusError) as failure:
        await api("PUT", "configmaps/c", config_map("d"))
    assert failure.value.message == (
        "the name of the object (d) does not match the name on the URL (c)"
    )


async def test_another_uid_is_another_object(api: API) -> None:
    await api("POST", "configmaps", config_map())
    o = config_map()
    o["metadata"]["uid"] = "other"
    with pytest.raises(StatusError, match="Precondition failed: UID in precondition: other"):
        await api("PUT", "configmaps/c", o)


async def test_put_creates_only_where_upstream_lets_it(api: API) -> None:
    with pytest.raises(StatusError, match='configmaps "c" not found'):
        await api("PUT", "configmaps/c", config_map())
    made = await api("PUT", "services/web", service())
    assert made["spec"]["clusterIP"]


async def test_concurrent_writers_lose_nothing(api: API) -> None:
    await api("POST", "configmaps", config_map())

    async def add(n: int) -> None:
        await api.merge("configmaps/c", {"data": {f"k{n}": "v"}})

    await asyncio.gather(*(add(n) for n in range(60)))
    assert len((await api("GET", "configmaps/c"))["data"]) == 60


async def test_of_concurrent_updates_of_one_version_one_wins(api: API) -> None:
    made = await api("POST", "configmaps", config_map())

    async def replace(n: int) -> bool:
        o = copy.deepcopy(made)
        o["data"] = {"n": str(n)}
        try:
            await api("PUT", "configmaps/c", o)
        except StatusError as error:
            assert error.message == STALE
            return False
        return True

    assert sum(await asyncio.gather(*(replace(n) for n in range(20)))) == 1


async def test_an_immutable_field_stays(api: API) -> None:
    await api("POST", "deployments", deployment())
    o = deployment()
    o["spec"]["selector"]["matchLabels"] = {"app": "other"}
    o["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    with pytest.raises(StatusError, match=r"spec.selector: Invalid value: .*field is immutable"):
        await api("PUT", "deployments/web", o)


async def test_a_dry_update_changes_nothing(api: API) -> None:
    made = await api("POST", "configmaps", config_map(a="1"))
    shown = await api("PUT", "configmaps/c", config_map(a="2"), dryRun="All")
    assert shown["data"] == {"a": "2"}
    assert await api("GET", "configmaps/c") == made


async def test_shared_objects_are_never_changed_by_later_writes(api: API) -> None:
    made = await api("POST", "deployments", deployment())
    before = copy.deepcopy(made)
    await api.merge(
        "deployments/web", {"spec": {"replicas": 5}, "metadata": {"labels": {"a": "b"}}}
    )
    await api("PUT", "deployments/web/status", {**made, "metadata": {"name": "web"}, "status": {}})
    assert made == before
