"""Where Services are reached: by their endpoints."""

from __future__ import annotations

import pytest
from apiserver_harness import API

from wherry.kube.apiserver.extensions.places import Place, Unresolved, resolve
from wherry.kube.apiserver.server import APIServer


async def make(api: API, name: str, **spec: object) -> None:
    await api("POST", "services", {"metadata": {"name": name}, "spec": spec})


def at(server: APIServer, name: str, port: int = 443) -> Place:
    return resolve(server._cache, "default", name, port)


async def test_the_ready_endpoints_are_asked(api: API, server: APIServer):
    await make(api, "hook", ports=[{"name": "a", "port": 443}, {"name": "b", "port": 80}])
    await api(
        "POST",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        {
            "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4",
            "ports": [{"name": "a", "port": 8443}, {"name": "b", "port": 8080}],
            "endpoints": [
                {"addresses": ["192.0.2.7"], "conditions": {"ready": True}},
                {"addresses": ["192.0.2.8"], "conditions": {"ready": False}},
            ],
        },
    )
    assert at(server, "hook") == ("192.0.2.7", 8443)
    assert at(server, "hook", 80) == ("192.0.2.7", 8080)


async def test_names_outside_are_asked_by_name(api: API, server: APIServer):
    await make(api, "other", type="ExternalName", externalName="example.com")
    assert at(server, "other") == ("example.com", 443)


async def test_what_cannot_be_reached_has_a_reason(api: API, server: APIServer):
    with pytest.raises(Unresolved, match='service "none" not found'):
        at(server, "none")
    await make(api, "empty", ports=[{"port": 443}])
    with pytest.raises(Unresolved, match='no endpoints available for service "empty"'):
        at(server, "empty")
    with pytest.raises(Unresolved, match='no service port 80 found for service "empty"'):
        at(server, "empty", 80)
