"""CustomResourceDefinitions of v1beta1, from and to what is stored."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.kube.api.conversion import VERSIONS
from wherry.kube.api.conversion.definitions import from_stored, to_stored
from wherry.kube.api.schema import decode

Object = dict[str, Any]

SCHEMA = {"openAPIV3Schema": {"type": "object"}}
OTHER = {"openAPIV3Schema": {"type": "object", "description": "other"}}
COLUMN = {"name": "a", "type": "string", "jsonPath": ".a"}


def v1(*versions: Object, **spec: Any) -> Object:
    return {"spec": {"group": "g", "versions": list(versions), **spec}}


def version(name: str, **more: Any) -> Object:
    return {"name": name, "served": True, "storage": name == "v1", **more}


@pytest.mark.parametrize(
    "stored",
    [
        v1(version("v1", schema=SCHEMA)),
        v1(version("v1", schema=SCHEMA, additionalPrinterColumns=[COLUMN])),
        v1(version("v1", schema=SCHEMA), version("v2", schema=SCHEMA)),
        v1(version("v1", schema=SCHEMA), version("v2", schema=OTHER)),
        v1(
            version("v1", schema=SCHEMA, subresources={"status": {}}),
            version("v2", schema=SCHEMA, additionalPrinterColumns=[COLUMN]),
        ),
        v1(
            version("v1", schema=SCHEMA),
            conversion={
                "strategy": "Webhook",
                "webhook": {"clientConfig": {"url": "u"}, "conversionReviewVersions": ["v1"]},
            },
        ),
    ],
)
def test_what_is_stored_comes_back_as_it_was(stored: Object) -> None:
    back = to_stored(from_stored(stored))
    assert back["spec"].pop("preserveUnknownFields") is False
    assert back == stored


def test_what_versions_have_in_common_stands_beside_them() -> None:
    spec = from_stored(v1(version("v1", schema=SCHEMA), version("v2", schema=SCHEMA)))["spec"]
    assert spec["version"] == "v1"
    assert spec["validation"] == SCHEMA
    assert all("schema" not in each for each in spec["versions"])


def test_one_version_needs_no_list_and_no_schema() -> None:
    old = next(v for v in VERSIONS if v.resource.kind == "CustomResourceDefinition")
    o = decode(old.resource, {"spec": {"group": "g", "version": "v1", "names": {}}}).value
    old.default(o)
    assert o["spec"]["preserveUnknownFields"] is True
    assert o["spec"]["scope"] == "Namespaced"
    stored = old.to_stored(o)
    assert stored["apiVersion"] == "apiextensions.k8s.io/v1"
    assert stored["spec"]["versions"] == [{"name": "v1", "served": True, "storage": True}]
    assert "version" not in stored["spec"]


def test_parts_of_an_object_are_converted_as_they_are() -> None:
    assert to_stored({"metadata": {"name": "a"}}) == {"metadata": {"name": "a"}}
    assert to_stored({"spec": {"group": "g"}}) == {"spec": {"group": "g"}}
