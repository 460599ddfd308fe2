from __future__ import annotations

import asyncio
from typing import Any

import pytest
from apiserver_harness import API, config, config_map, pod, service

from wherry.kube.api.errors import StatusError
from wherry.kube.api.quota.reservations import ANNOTATION
from wherry.kube.apiserver.server import SELF, APIServer

QUOTAS = "resourcequotas"


async def quota(api: API, name: str, hard: dict[str, str], **spec: Any) -> None:
    await api("POST", QUOTAS, {"metadata": {"name": name}, "spec": {"hard": hard, **spec}})
    status = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    await api.merge(f"{QUOTAS}/{name}/status", {"status": status})


async def used(api: API, name: str) -> dict[str, str]:
    found: dict[str, str] = (await api("GET", f"{QUOTAS}/{name}"))["status"]["used"]
    return found


async def refusal(api: API, body: Any, path: str = "pods", **query: str) -> str:
    with pytest.raises(StatusError) as failure:
        await api("POST", path, body, **query)
    assert failure.value.code == 403
    return failure.value.message


def asking(name: str, **requests: str) -> Any:
    resources = {"requests": requests}
    return pod(name, containers=[{"name": "c", "image": "i", "resources": resources}])


async def test_what_is_over_the_quota_is_refused(api: API) -> None:
    await quota(api, "q", {"pods": "2", "requests.cpu": "1"})
    await api("POST", "pods", asking("a", cpu="300m"))
    await api("POST", "pods", asking("b", cpu="300m"))
    assert await used(api, "q") == {"pods": "2", "requests.cpu": "600m"}
    assert await refusal(api, asking("c", cpu="300m")) == (
        'pods "c" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'
    )
    assert await refusal(api, asking("c", cpu="500m")) == (
        'pods "c" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=500m, '
        "used: pods=2,requests.cpu=600m, limited: pods=2,requests.cpu=1"
    )


async def test_a_quota_of_limits_wants_them(api: API) -> None:
    await quota(api, "q", {"limits.cpu": "1"})
    assert await refusal(api, pod()) == (
        'pods "web" is forbidden: failed quota: q: must specify limits.cpu for: c'
    )


async def test_a_quota_nobody_has_counted_lets_nothing_in(api: API) -> None:
    await quota(api, "q", {"pods": "2"})
    await api.merge(f"{QUOTAS}/q/status", {"status": {"used": {"pods": None}}})
    assert "status unknown for quota: q, resources: pods" in await refusal(api, pod())


async def test_every_quota_is_charged_or_none(api: API) -> None:
    await quota(api, "a", {"pods": "5"})
    await quota(api, "b", {"pods": "0"})
    assert "exceeded quota: b" in await refusal(api, pod())
    assert await used(api, "a") == {"pods": "0"}


async def test_a_scoped_quota_is_about_its_pods_only(api: API) -> None:
    await quota(api, "q", {"pods": "0"}, scopes=["BestEffort"])
    await api("POST", "pods", asking("a", cpu="1"))
    assert "exceeded quota: q" in await refusal(api, pod("b"))


async def test_objects_are_counted(api: API) -> None:
    await quota(api, "q", {"count/configmaps": "1", "count/deployments.apps": "0"})
    await api("POST", "configmaps", config_map("a"))
    assert "requested: count/configmaps=1" in await refusal(api, config_map("b"), "configmaps")


async def test_services_and_their_changes_are_charged(api: API) -> None:
    await quota(api, "q", {"services": "1", "services.nodeports": "0"})
    await api("POST", "services", service())
    with pytest.raises(StatusError, match=r"requested: services.nodeports=1"):
        await api.merge("services/web", {"spec": {"type": "NodePort"}})
    assert await used(api, "q") == {"services": "1", "services.nodeports": "0"}


async def test_a_dry_run_is_judged_and_not_charged(api: API) -> None:
    await quota(api, "q", {"pods": "1"})
    await api("POST", "pods", pod(), dryRun="All")
    assert await used(api, "q") == {"pods": "0"}
    await api("POST", "pods", pod())
    assert "exceeded quota" in await refusal(api, pod("b"), dryRun="All")


async def test_a_write_that_fails_gives_back_what_it_was_charged(api: API) -> None:
    await quota(api, "q", {"pods": "5"})
    await api("POST", "pods", pod())
    with pytest.raises(StatusError, match="already exists"):
        await api("POST", "pods", pod())
    assert await used(api, "q") == {"pods": "1"}


async def test_many_at_once_never_exceed_it(api: API) -> None:
    await quota(api, "q", {"pods": "7"})
    await quota(api, "r", {"count/pods": "9"})
    outcomes = await asyncio.gather(
        *(api("POST", "pods", pod(f"p{i}")) for i in range(40)), return_exceptions=True
    )
    assert sum(isinstance(o, dict) for o in outcomes) == 7
    assert await used(api, "q") == {"pods": "7"}
    assert await used(api, "r") == {"count/pods": "7"}


async def test_reservations_are_dropped_when_what_they_are_for_is_there(api: API) -> None:
    await quota(api, "q", {"pods": "5"})
    await api("POST", "pods", pod("a"))
    await api("POST", "pods", pod("b"))
    noted = (await api("GET", f"{QUOTAS}/q"))["metadata"]["annotations"][ANNOTATION]
    uid = (await api("GET", "pods/b"))["metadata"]["uid"]
    assert uid in noted
    assert (await api("GET", "pods/a"))["metadata"]["uid"] not in noted


async def test_what_is_limited_needs_a_quota(store: Any, tmp_path: Any) -> None:
    from wherry.kube.apiserver.admission import AdmissionOptions

    matches = {"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}
    limited = [
        {"resource": "pods", "matchContains": ["x.io/gpu"]},
        {"resource": "pods", "matchScopes": [matches]},
    ]
    options = AdmissionOptions(configuration={"ResourceQuota": {"limitedResources": limited}})
    server = APIServer(config(tmp_path, admission=options), store)
    await server.open()
    api = API(server.transport(SELF))
    await api("POST", "serviceaccounts", {"metadata": {"name": "default"}})
    try:
        await api("POST", "pods", pod())
        device = {"x.io/gpu": "1"}
        body = pod("g")
        body["spec"]["containers"][0]["resources"] = {"limits": device, "requests": device}
        assert "insufficient quota to consume: requests.x.io/gpu" in await refusal(api, body)
        critical = pod("c", priorityClassName="system-node-critical")
        assert await refusal(api, critical) == (
            'pods "c" is forbidden: insufficient quota to match these scopes: '
            "[{PriorityClass In [system-node-critical]}]"
        )
    finally:
        await server.close()
