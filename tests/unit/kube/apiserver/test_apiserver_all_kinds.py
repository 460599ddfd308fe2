"""Every kind there is: created, read, listed, shown, patched, applied, deleted."""

from __future__ import annotations

import asyncio
import json

import pytest
from apiserver_harness import API

from sample_objects import BODIES, CONTAINERS, WRITABLE, Object, minimal
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.server import SELF, APIServer

_JUDGED = ("APIService", "CustomResourceDefinition", "FlowSchema", "ValidatingAdmissionPolicy")
"""The kinds whose status the server itself writes, when it comes to that."""


async def judged(api: API, path: str) -> Object:
    """The object, once the server has written its status."""
    async with asyncio.timeout(60):
        while True:
            found = await api("GET", path)
            if {"conditions", "observedGeneration"} & found.get("status", {}).keys():
                return found
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("resource", WRITABLE, ids=lambda r: f"{r.group}/{r.version}/{r.plural}")
async def test_every_kind_goes_through_its_life(
    api: API, server: APIServer, resource: Resource
) -> None:
    o = minimal(resource)
    name = o["metadata"]["name"]
    namespace = "default" if resource.namespaced else None
    collection, path = resource.path(namespace), resource.path(namespace, name)

    created = await api("POST", collection, o)
    assert (created["apiVersion"], created["kind"]) == (resource.api_version, resource.kind)
    if resource.kind in _JUDGED:
        assert (await judged(api, path))["spec"] == created["spec"]
    else:
        assert await api("GET", path) == created

    listed = await api("GET", collection)
    assert listed["kind"] == f"{resource.kind}List"
    assert name in [item["metadata"]["name"] for item in listed["items"]]

    patched = await api.merge(path, {"metadata": {"labels": {"a": "b"}}})
    assert patched["metadata"]["labels"]["a"] == "b"
    assert await api("PUT", path, patched) == patched

    applied = await api(
        "PATCH",
        path,
        {**o, "metadata": {"name": name, "annotations": {"c": "d"}}},
        content_type="application/apply-patch+yaml",
        fieldManager="t",
        force="true",
    )
    assert applied["metadata"]["annotations"]["c"] == "d"
    assert "t" in [entry["manager"] for entry in applied["metadata"]["managedFields"]]

    table = await api_table(server, resource, path)
    assert len(table["rows"][0]["cells"]) == len(table["columnDefinitions"])

    await api("DELETE", path, gracePeriodSeconds="0")


async def api_table(server: APIServer, resource: Resource, path: str) -> Object:
    from datetime import UTC, datetime

    from wherry.kube.api.kinds import KINDS
    from wherry.kube.api.tables import table

    kind = KINDS[resource.group, resource.version, resource.plural]
    o = await server.transport(SELF).request("GET", path)
    shown = table(kind, [o], now=datetime.now(UTC))
    return dict(json.loads(json.dumps(shown)))


async def test_the_old_way_to_bind_a_pod(api: API) -> None:
    await api("POST", "pods", {"metadata": {"name": "p"}, "spec": {"containers": CONTAINERS}})
    await api("POST", "bindings", {"metadata": {"name": "p"}, "target": {"name": "n"}})
    assert (await api("GET", "pods/p"))["spec"]["nodeName"] == "n"


async def test_a_certificate_request_tells_who_asked_and_is_decided_by_its_own_door(
    api: API,
) -> None:
    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    o = {"metadata": {"name": "it"}, **BODIES["CertificateSigningRequest"]}
    o["spec"] = {**o["spec"], "username": "forged", "groups": ["system:masters"]}
    made = await api("POST", path, o)
    assert made["spec"]["username"] == SELF.name
    decision = [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]
    wanted = {**made, "status": {"conditions": decision}}
    ignored = await api("PUT", f"{path}/it/status", wanted)
    assert "conditions" not in ignored["status"]
    approved = await api(
        "PUT", f"{path}/it/approval", {**ignored, "status": {"conditions": decision}}
    )
    (condition,) = approved["status"]["conditions"]
    assert condition["type"] == "Approved" and condition["lastTransitionTime"]
