"""The documents say what clients look for in them, in forms their parsers take."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from wherry.kube.api.catalogue import STATIC
from wherry.kube.api.resources import PODS, RESOURCES, SERVICES

OPENAPI = STATIC.openapi


def everything(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within a JSON value."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from everything(each)
    elif isinstance(value, list):
        for each in value:
            yield from everything(each)


@pytest.fixture(scope="module", params=[*STATIC.discovery.group_versions, "swagger"])
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "swagger":
        return OPENAPI.v2_document()
    return OPENAPI.v3_document(request.param)


def schemas(document: dict[str, Any]) -> dict[str, Any]:
    if "definitions" in document:
        return document["definitions"]
    return document["components"]["schemas"]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method, operation


def test_every_reference_leads_somewhere(document: dict[str, Any]):
    prefix = "#/definitions/" if "definitions" in document else "#/components/schemas/"
    references = {o["$ref"] for o in everything(document) if isinstance(o.get("$ref"), str)}
    assert references and {r.removeprefix(prefix) for r in references} <= schemas(document).keys()


def test_types_are_single_and_never_null(document: dict[str, Any]):
    for schema in schemas(document).values():
        for part in everything(schema):
            kind = part.get("type", "object")
            assert isinstance(kind, str | dict) and kind != "null"


def test_references_in_version_3_stand_alone(document: dict[str, Any]):
    if "openapi" in document:
        for part in everything(schemas(document)):
            assert "$ref" not in part or len(part) == 1 or isinstance(part["$ref"], dict)


def test_operations_have_ids_of_their_own(document: dict[str, Any]):
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert ids and len(ids) == len(set(ids))


def test_every_patch_tells_kubectl_what_it_can(document: dict[str, Any]):
    patches = [o for _, method, o in operations(document) if method == "patch"]
    for operation in patches:
        if operation["x-kubernetes-action"] == "connect":
            continue
        names = {p["name"] for p in operation["parameters"] if p["in"] == "query"}
        assert {"dryRun", "fieldManager", "fieldValidation", "force"} <= names
        media = operation.get("consumes") or operation["requestBody"]["content"]
        assert "application/strategic-merge-patch+json" in media
        assert "application/apply-patch+yaml" in media


def test_path_parameters_are_declared(document: dict[str, Any]):
    for path, item in document["paths"].items():
        declared = {p["name"] for p in item["parameters"] if p["in"] == "path"}
        assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_descriptions_are_there(document: dict[str, Any]):
    assert all("description" in o for _, _, o in operations(document))
    described = [s for s in schemas(document).values() if s.get("description")]
    assert len(described) > 0.9 * len(schemas(document))


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda r: r.plural)
def test_every_resource_is_found_by_path_and_by_kind(resource: Any):
    document = OPENAPI.v3_document(resource.api_version)
    where = "/namespaces/{namespace}" if resource.namespaced else ""
    collection = document["paths"][f"{resource.base_path}{where}/{resource.plural}"]
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    if "list" in resource.verbs:
        assert collection["get"]["x-kubernetes-group-version-kind"] == gvk
        assert collection["get"]["x-kubernetes-action"] == "list"
    if "create" in resource.verbs:
        assert collection["post"]["x-kubernetes-action"] == "post"
    found = [
        name
        for name, schema in document["components"]["schemas"].items()
        if gvk in schema.get("x-kubernetes-group-version-kind", [])
    ]
    assert found == [resource.schema]


def test_quantities_and_ports_have_the_forms_of_their_version():
    quantity = "io.k8s.apimachinery.pkg.api.resource.Quantity"
    port = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
    v3 = schemas(OPENAPI.v3_document("v1"))
    assert [part["type"] for part in v3[quantity]["oneOf"]] == ["string", "number"]
    assert v3[port]["format"] == "int-or-string" and "type" not in v3[port]
    v2 = schemas(OPENAPI.v2_document())
    assert v2[quantity]["type"] == "string"
    assert (v2[port]["type"], v2[port]["format"]) == ("string", "int-or-string")


def test_fields_with_prose_and_a_reference_use_all_of():
    spec = schemas(OPENAPI.v3_document("v1"))[PODS.schema]["properties"]["spec"]
    assert spec["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]
    assert spec["description"]


def test_merge_keys_are_passed_on():
    ports = schemas(OPENAPI.v3_document("v1"))["io.k8s.api.core.v1.ServiceSpec"]["properties"][
        "ports"
    ]
    assert ports["x-kubernetes-list-map-keys"] == ["port", "protocol"]
    assert ports["x-kubernetes-patch-merge-key"] == "port"


def test_the_index_names_every_document_with_a_hash():
    paths = OPENAPI.v3_paths()["paths"]
    assert paths.keys() >= {"api/v1", "apis/apps/v1"}
    assert paths["apis/apps/v1"]["serverRelativeURL"] == (
        f"/openapi/v3/apis/apps/v1?hash={OPENAPI.v3_hash('apps/v1')}"
    )
    assert len({entry["serverRelativeURL"] for entry in paths.values()}) == len(paths)


def test_streams_are_connected_to():
    document = OPENAPI.v3_document("v1")
    item = document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]
    assert item["get"]["x-kubernetes-action"] == "connect"
    assert item["get"]["x-kubernetes-group-version-kind"]["kind"] == "PodExecOptions"
    assert {p["name"] for p in item["post"]["parameters"]} >= {"command", "container", "tty"}


def test_a_document_holds_only_what_it_needs():
    lease = schemas(OPENAPI.v3_document("coordination.k8s.io/v1"))
    assert PODS.schema not in lease and SERVICES.schema not in lease
    assert {
        r.schema for r in STATIC.discovery.resources_of("coordination.k8s.io/v1")
    } <= lease.keys()


def test_json_and_compressed_json_are_the_same_document():
    document = OPENAPI.v3_document("apps/v1")
    assert json.loads(gzip.decompress(OPENAPI.v3_gzip("apps/v1"))) == document
    assert json.loads(OPENAPI.v2_json()) == json.loads(gzip.decompress(OPENAPI.v2_gzip))
