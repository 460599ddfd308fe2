"""What definitions make: kinds, names, statuses; and what is wrong with one."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.kube.api.custom import paths
from wherry.kube.api.custom.checks import check_definition
from wherry.kube.api.custom.definition import kinds_of, status_of
from wherry.kube.api.meta import clone

Object = dict[str, Any]

NAMES = {"plural": "as", "singular": "a", "kind": "A", "listKind": "AList"}


def crd(**spec: Any) -> Object:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    return {
        "metadata": {"name": "as.example.com", "uid": "u", "generation": 1},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": dict(NAMES),
            "versions": [version],
            "conversion": {"strategy": "None"},
            **spec,
        },
    }


def established(o: Object) -> Object:
    return {**o, "status": status_of(o, [])}


def two(**more: Any) -> Object:
    o = crd(**more)
    o["spec"]["versions"].append(
        {**clone(o["spec"]["versions"][0]), "name": "v2", "storage": False}
    )
    return o


class TestKinds:
    def test_nothing_is_served_before_names_are_accepted(self):
        assert kinds_of(crd()) == []
        assert [k.resource.plural for k in kinds_of(established(crd()))] == ["as"]

    def test_the_stored_version_comes_first_and_others_point_to_it(self):
        one, other = kinds_of(established(two()))
        assert one.resource.stored_as is None
        assert other.resource.stored_as == one.resource
        assert other.resource.api_version == "example.com/v2"

    def test_a_webhook_is_known_to_all_versions(self):
        webhook = {"clientConfig": {"url": "https://x"}, "conversionReviewVersions": ["v1"]}
        o = two(conversion={"strategy": "Webhook", "webhook": webhook})
        assert [k.conversion_webhook for k in kinds_of(established(o))] == [webhook, webhook]
        assert {k.conversion_webhook for k in kinds_of(established(two()))} == {None}

    def test_definitions_of_v1beta1_keep_unknown_fields(self):
        o = {"apiVersion": "example.com/v1", "kind": "A", "metadata": {}, "spec": {"x": 1}}
        (strict,) = kinds_of(established(crd()))
        (loose,) = kinds_of(established(crd(preserveUnknownFields=True)))
        assert "spec" not in strict.decode(o).value
        assert loose.decode(o).value["spec"] == {"x": 1}


class TestStatus:
    def test_names_that_are_taken_are_not_accepted(self):
        other = established(crd())
        other["metadata"] = {"name": "others.example.com"}
        mine = crd(names={**NAMES, "plural": "bs", "singular": "b", "shortNames": ["as"]})
        status = status_of(mine, [other])
        conditions = {c["type"]: c for c in status["conditions"]}
        assert conditions["NamesAccepted"]["status"] == "False"
        assert conditions["Established"]["status"] == "False"

    def test_storage_versions_are_remembered(self):
        o = {**two(), "status": {"storedVersions": ["v0"]}}
        assert status_of(o, [])["storedVersions"] == ["v0", "v1"]


class TestChecks:
    def said(self, o: Object, old: Object | None = None) -> list[str]:
        return [str(fault) for fault in check_definition(o, old)]

    def test_a_good_one_has_no_faults(self):
        assert self.said(crd()) == []
        assert self.said(two()) == []

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"group": "nodots"}, "should be a domain with at least one dot"),
            ({"scope": "Both"}, 'spec.scope: Unsupported value: "Both"'),
            ({"preserveUnknownFields": True}, "spec.preserveUnknownFields: Invalid value: true"),
            ({"conversion": {"strategy": "Webhook"}}, "required when strategy is set to Webhook"),
            (
                {"conversion": {"strategy": "None", "webhook": {}}},
                "",
            ),
            ({"versions": []}, "must have exactly one version marked as storage version"),
        ],
    )
    def test_faults_are_told(self, change: Object, said: str):
        found = self.said(crd(**change))
        assert any(said in fault for fault in found) if said else not found, found

    @pytest.mark.parametrize(
        ("schema", "said"),
        [
            ({"type": "object", "properties": {"a": {}}}, "must not be empty for specified object"),
            ({"type": "string"}, "must be object at the root"),
            ({"type": "object", "nullable": True}, "nullable cannot be true at the root"),
            ({"type": "object", "properties": {"a": {"type": "array"}}}, "items: Required value"),
            (
                {
                    "type": "object",
                    "properties": {"a": {"type": "string", "default": 1}},
                },
                "must be of type string",
            ),
            (
                {"type": "object", "x-kubernetes-validations": [{"rule": "self.b"}]},
                "undefined field 'b'",
            ),
            (
                {"type": "object", "properties": {"a": {"type": "string", "uniqueItems": True}}},
                "uniqueItems cannot be set to true",
            ),
        ],
    )
    def test_schemas_that_are_not_structural(self, schema: Object, said: str):
        o = crd()
        o["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema
        assert any(said in fault for fault in self.said(o)), self.said(o)

    def test_what_kept_unknown_fields_may_go_on(self):
        old = crd(preserveUnknownFields=True)
        del old["spec"]["versions"][0]["schema"]
        assert self.said(old, old) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".a.b", [1]),
        (".l[0]", ["x"]),
        (".l[-1]", ["y"]),
        (".l[*]", ["x", "y"]),
        (".c[?(@.t=='R')].s", ["T"]),
        ("..s", ["T", "F"]),
        (".none", []),
        (".a['b']", [1]),
    ],
)
def test_paths_find(path: str, value: Any):
    o = {
        "a": {"b": 1},
        "l": ["x", "y"],
        "c": [{"t": "R", "s": "T"}, {"t": "Q", "s": "F"}],
    }
    assert paths.find(path, o) == value


def test_a_condition_without_a_type_harms_nobody():
    o = established(crd())
    o["status"]["conditions"].append({"message": "patched"})
    assert [k.resource.plural for k in kinds_of(o)] == ["as"]
    assert {"message": "patched"} in status_of(o, [])["conditions"]


def test_names_that_were_blanked_are_those_of_the_definition():
    o = established(crd())
    o["status"]["acceptedNames"] = {"plural": "", "kind": ""}
    assert [(k.resource.plural, k.resource.kind) for k in kinds_of(o)] == [("as", "A")]


def _schema(**properties: Any) -> Object:
    o = established(crd())
    whole = {"type": "object", "properties": properties}
    o["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = whole
    (kind,) = kinds_of(o)
    found: Object = kind.schemas(2)[kind.resource.schema]["properties"]
    return found


def test_openapi_2_says_nothing_that_is_not_so():
    inner = {"type": "object", "properties": {"x": {"type": "string"}}}
    assert "type" not in _schema(a={**inner, "nullable": True})["a"]
    open_ended = _schema(a={**inner, "x-kubernetes-preserve-unknown-fields": True})["a"]
    assert open_ended == {"x-kubernetes-preserve-unknown-fields": True}
    assert _schema(a={"type": "string", "pattern": "x", "default": "y"})["a"] == {
        "type": "string",
        "pattern": "x",
    }


@pytest.mark.parametrize("form", [2, 3])
def test_what_every_object_has_is_explained(form: int):
    (kind,) = kinds_of(established(crd()))
    for schema in kind.schemas(form).values():
        said = {name: part["description"] for name, part in schema["properties"].items()}
        assert said["apiVersion"].startswith("APIVersion defines")
        assert said["kind"].startswith("Kind is a string")
        assert said["metadata"].startswith("Standard ")


def test_an_open_ended_object_has_no_properties_in_openapi_2():
    o = established(crd())
    whole = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    o["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = whole
    (kind,) = kinds_of(o)
    assert "properties" not in kind.schemas(2)[kind.resource.schema]
    assert "properties" in kind.schemas(3)[kind.resource.schema]


def test_objects_older_than_the_definition_may_lack_its_defaults():
    o = established(crd())
    o["metadata"]["resourceVersion"] = "7"
    assert kinds_of(o)[0].defaults_since == 0
    part = {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}
    o["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = part
    assert kinds_of(o)[0].defaults_since == 7
