"""Versions of custom resources that differ in their name and schema."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from apiserver_harness import API

from wherry.kube.api.errors import StatusError

Object = dict[str, Any]

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def version(name: str, *fields: str, **more: Any) -> Object:
    properties = {field: {"type": "string"} for field in fields}
    schema = {"type": "object", "properties": properties}
    given = {"served": True, "storage": False, **more}
    return {"name": name, "schema": {"openAPIV3Schema": schema}, **given}


async def define(api: API, *versions: Object) -> None:
    spec = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "as", "singular": "a", "kind": "A"},
        "versions": list(versions),
    }
    await api("POST", CRDS, {"metadata": {"name": "as.example.com"}, "spec": spec})
    for each in versions:
        while each["served"]:
            try:
                await api("GET", path(each["name"]))
                break
            except StatusError:
                await asyncio.sleep(0.01)


def path(version: str, name: str = "") -> str:
    return f"/apis/example.com/{version}/namespaces/default/as" + (f"/{name}" if name else "")


async def test_each_version_judges_by_its_own_schema(api: API):
    await define(api, version("v1", "x", storage=True), version("v2", "x", "y"))
    made = await api("POST", path("v2"), {"metadata": {"name": "a"}, "x": "1", "y": "2"})
    assert (made["apiVersion"], made["y"]) == ("example.com/v2", "2")
    listed = await api("GET", path("v1"))
    assert [o["apiVersion"] for o in listed["items"]] == ["example.com/v1"]
    with pytest.raises(StatusError, match="must be of type string"):
        await api.merge(path("v2", "a"), {"y": 1})


async def test_versions_share_revision_and_identity(api: API):
    await define(api, version("v1", "x", storage=True), version("v2", "x"))
    one = await api("POST", path("v1"), {"metadata": {"name": "a"}, "x": "1"})
    two = await api("GET", path("v2", "a"))
    assert two["metadata"]["uid"] == one["metadata"]["uid"]
    await api("PUT", path("v2", "a"), {**two, "x": "2"})
    with pytest.raises(StatusError) as conflict:
        await api("PUT", path("v1", "a"), one)
    assert conflict.value.code == 409
    assert (await api("GET", path("v1", "a")))["x"] == "2"


async def test_a_deprecated_version_says_so(api: API):
    await define(api, version("v1", "x", storage=True), version("v0", "x", deprecated=True))
    made = await api("POST", path("v0"), {"metadata": {"name": "a"}, "x": "1"})
    assert made["apiVersion"] == "example.com/v0"


async def test_objects_go_with_a_definition_whose_stored_version_is_not_served(api: API):
    await define(api, version("v1", "x", storage=True, served=False), version("v2", "x"))
    await api("POST", path("v2"), {"metadata": {"name": "a"}, "x": "1"})
    await api("DELETE", f"{CRDS}/as.example.com")
    async with asyncio.timeout(60):
        while True:
            try:
                await api("GET", f"{CRDS}/as.example.com")
            except StatusError as error:
                assert error.code == 404
                return
            await asyncio.sleep(0.01)
