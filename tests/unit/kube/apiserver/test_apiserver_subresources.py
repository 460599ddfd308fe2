from __future__ import annotations

import pytest
from apiserver_harness import API, config_map, deployment, pod

from wherry.kube.api.errors import StatusError


async def test_a_scale_shows_and_sets_the_replicas(api: API) -> None:
    await api("POST", "deployments", deployment(replicas=2))
    scale = await api("GET", "deployments/web/scale")
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["spec"]["replicas"] == 2 and scale["status"]["selector"] == "app=web"
    scaled = await api("PUT", "deployments/web/scale", {**scale, "spec": {"replicas": 4}})
    assert scaled["spec"]["replicas"] == 4
    patched = await api.merge("deployments/web/scale", {"spec": {"replicas": 6}})
    assert patched["spec"]["replicas"] == 6
    now = await api("GET", "deployments/web")
    assert now["spec"]["replicas"] == 6 and now["metadata"]["generation"] == 3


async def test_a_stale_scale_is_refused(api: API) -> None:
    await api("POST", "deployments", deployment())
    scale = await api("GET", "deployments/web/scale")
    await api.merge("deployments/web", {"spec": {"replicas": 3}})
    with pytest.raises(StatusError, match="the object has been modified"):
        await api("PUT", "deployments/web/scale", scale)


async def test_a_negative_scale_is_refused(api: API) -> None:
    await api("POST", "deployments", deployment())
    with pytest.raises(StatusError, match=r"spec.replicas: Invalid value: -1: must be greater"):
        await api.merge("deployments/web/scale", {"spec": {"replicas": -1}})


async def test_a_binding_puts_a_pod_on_its_node_once(api: API) -> None:
    await api("POST", "pods", pod())
    binding = {"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}}
    status = await api("POST", "pods/web/binding", binding)
    assert status["status"] == "Success"
    bound = await api("GET", "pods/web")
    assert bound["spec"]["nodeName"] == "n1"
    (condition,) = (c for c in bound["status"]["conditions"] if c["type"] == "PodScheduled")
    assert condition["status"] == "True"
    with pytest.raises(StatusError) as failure:
        await api("POST", "pods/web/binding", {"target": {"name": "n2"}})
    assert failure.value.code == 409
    assert failure.value.message == (
        'Operation cannot be fulfilled on pods/binding "web": '
        'pod web is already assigned to node "n1"'
    )


async def test_a_binding_names_a_node(api: API) -> None:
    await api("POST", "pods", pod())
    with pytest.raises(StatusError, match=r"target.name: Required value"):
        await api("POST", "pods/web/binding", {"target": {}})
    with pytest.raises(StatusError, match=r"target.kind: Unsupported value"):
        await api("POST", "pods/web/binding", {"target": {"kind": "Pod", "name": "n"}})


async def test_a_binding_is_for_the_pod_it_was_made_for(api: API) -> None:
    await api("POST", "pods", pod())
    with pytest.raises(StatusError, match="UID in precondition: other"):
        await api(
            "POST", "pods/web/binding", {"metadata": {"uid": "other"}, "target": {"name": "n"}}
        )


async def test_a_pod_that_is_going_is_not_bound(api: API) -> None:
    o = pod()
    o["metadata"]["finalizers"] = ["example.com/hold"]
    await api("POST", "pods", o)
    await api("DELETE", "pods/web")
    with pytest.raises(StatusError, match="is being deleted, cannot be assigned to a host"):
        await api("POST", "pods/web/binding", {"target": {"name": "n"}})


async def test_an_eviction_deletes_gracefully(api: API) -> None:
    await api("POST", "pods", pod(nodeName="n"))
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "web"},
        "deleteOptions": {"gracePeriodSeconds": 7},
    }
    await api("POST", "pods/web/eviction", eviction, dryRun="All")
    assert "deletionTimestamp" not in (await api("GET", "pods/web"))["metadata"]
    await api("POST", "pods/web/eviction", eviction)
    assert (await api("GET", "pods/web"))["metadata"]["deletionGracePeriodSeconds"] == 7


async def test_a_subresource_has_its_verbs_and_no_others(api: API) -> None:
    await api("POST", "pods", pod())
    for method, path in (("DELETE", "pods/web/status"), ("GET", "pods/web/binding")):
        with pytest.raises(StatusError) as failure:
            await api(method, path)
        assert failure.value.code == 405
    await api("POST", "configmaps", config_map())
    with pytest.raises(StatusError, match="could not find the requested resource"):
        await api("GET", "configmaps/c/status")
