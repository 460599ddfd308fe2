from __future__ import annotations

from typing import Any

import pytest
from apiserver_harness import API, pod

from wherry.kube.api.errors import StatusError


async def limit(api: API, *limits: dict[str, Any]) -> None:
    await api("POST", "limitranges", {"metadata": {"name": "l"}, "spec": {"limits": list(limits)}})


def asking(limits: dict[str, str] | None = None, requests: dict[str, str] | None = None) -> Any:
    resources = {"limits": limits or {}, "requests": requests or {}}
    return pod(containers=[{"name": "c", "image": "i", "resources": resources}])


async def refusal(api: API, body: Any, path: str = "pods") -> str:
    with pytest.raises(StatusError) as failure:
        await api("POST", path, body)
    assert failure.value.code == 403
    return failure.value.message


async def test_containers_get_defaults_and_the_pod_says_so(api: API) -> None:
    await limit(
        api,
        {"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}},
        {"type": "Pod", "max": {"cpu": "4"}},
    )
    body = asking(limits={"memory": "2Gi"})
    body["spec"]["initContainers"] = [{"name": "i", "image": "i"}]
    made = await api("POST", "pods", body)
    assert made["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "1", "memory": "2Gi"},
        "requests": {"cpu": "1", "memory": "2Gi"},
    }
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c; "
        "cpu, memory request for init container i; cpu, memory limit for init container i"
    )


async def test_what_is_above_the_maximum_is_refused(api: API) -> None:
    await limit(api, {"type": "Container", "max": {"cpu": "1"}})
    assert await refusal(api, asking({"cpu": "2"}, {"cpu": "1"})) == (
        'pods "web" is forbidden: maximum cpu usage per Container is 1, but limit is 2'
    )


async def test_what_is_below_the_minimum_is_refused(api: API) -> None:
    await limit(api, {"type": "Container", "min": {"cpu": "100m", "memory": "1Mi"}})
    body = asking(requests={"cpu": "50m", "memory": "1Ki"})
    assert await refusal(api, body) == (
        'pods "web" is forbidden: [minimum cpu usage per Container is 100m, but request is 50m, '
        "minimum memory usage per Container is 1Mi, but request is 1Ki]"
    )


async def test_limits_and_requests_stay_near_each_other(api: API) -> None:
    await limit(api, {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}})
    assert await refusal(api, asking({"cpu": "1"}, {"cpu": "300m"})) == (
        'pods "web" is forbidden: cpu max limit to request ratio per Container is 2, but provided '
        "ratio is 3.333333"
    )
    await api("POST", "pods", asking({"cpu": "1"}, {"cpu": "500m"}))
    assert "but no request is specified or request is 0" in await refusal(api, pod())


async def test_a_pod_counts_as_a_whole(api: API) -> None:
    await limit(api, {"type": "Pod", "max": {"memory": "1Gi"}})
    body = asking({"memory": "800Mi"})
    body["spec"]["containers"].append({**body["spec"]["containers"][0], "name": "d"})
    assert await refusal(api, body) == (
        'pods "web" is forbidden: maximum memory usage per Pod is 1Gi, but limit is 1600Mi'
    )
    assert "No limit is specified" in await refusal(api, pod())


async def test_claims_have_bounds(api: API) -> None:
    await limit(
        api, {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}
    )

    def claim(size: str) -> Any:
        resources = {"requests": {"storage": size}}
        spec = {"accessModes": ["ReadWriteOnce"], "resources": resources}
        return {"metadata": {"name": "data"}, "spec": spec}

    assert await refusal(api, claim("3Gi"), "persistentvolumeclaims") == (
        'persistentvolumeclaims "data" is forbidden: maximum storage usage per '
        "PersistentVolumeClaim is 2Gi, but request is 3Gi"
    )
    assert "minimum storage usage" in await refusal(api, claim("1Mi"), "persistentvolumeclaims")
    await api("POST", "persistentvolumeclaims", claim("2Gi"))


async def test_a_container_without_a_name_is_refused_by_its_kind(api: API) -> None:
    await limit(api, {"type": "Container", "default": {"cpu": "1"}})
    with pytest.raises(StatusError, match=r"containers\[0\].name: Required value"):
        await api("POST", "pods", pod(containers=[{"image": "i"}]))
