"""Custom resources as kubectl and operators meet them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from apiserver_process import Server

CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "crontabs.stable.example.com"},
    "spec": {
        "group": "stable.example.com",
        "scope": "Namespaced",
        "names": {
            "plural": "crontabs",
            "singular": "crontab",
            "kind": "CronTab",
            "shortNames": ["ct"],
            "categories": ["all"],
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "description": "What is wanted.",
                                "required": ["cronSpec"],
                                "properties": {
                                    "cronSpec": {
                                        "type": "string",
                                        "description": "When it runs.",
                                        "maxLength": 20,
                                    },
                                    "image": {"type": "string"},
                                    "replicas": {
                                        "type": "integer",
                                        "minimum": 1,
                                        "maximum": 10,
                                        "default": 1,
                                    },
                                    "mode": {"type": "string", "enum": ["a", "b"]},
                                    "port": {"x-kubernetes-int-or-string": True},
                                    "tier": {
                                        "type": "string",
                                        "x-kubernetes-validations": [
                                            {
                                                "rule": "self == oldSelf",
                                                "message": "tier is immutable",
                                            }
                                        ],
                                    },
                                    "parts": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["name"],
                                        "items": {
                                            "type": "object",
                                            "required": ["name"],
                                            "properties": {
                                                "name": {"type": "string"},
                                                "size": {"type": "integer"},
                                            },
                                        },
                                    },
                                },
                                "x-kubernetes-validations": [
                                    {
                                        "rule": "!has(self.mode) || self.mode != 'b' || "
                                        "self.replicas <= 5",
                                        "messageExpression": "'mode b takes 5 at most, not %d'"
                                        ".format([self.replicas])",
                                        "fieldPath": ".replicas",
                                    }
                                ],
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    "replicas": {"type": "integer"},
                                    "selector": {"type": "string"},
                                },
                            },
                        },
                    }
                },
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector",
                    },
                },
                "selectableFields": [{"jsonPath": ".spec.mode"}],
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
            }
        ],
    },
}


def tab(name: str = "one", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stable.example.com/v1",
        "kind": "CronTab",
        "metadata": {"name": name},
        "spec": {"cronSpec": "* * * * *", **spec},
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("custom")).start()
    apply(server, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    apply(server, CRD)
    established(server)
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log


def apply(server: Server, o: dict[str, Any], *arguments: str, ok: bool = True) -> Any:
    return server.kubectl("apply", "-f", "-", *arguments, stdin=json.dumps(o), ok=ok)


def established(server: Server) -> None:
    server.kubectl("wait", "--for=condition=Established", "crd/crontabs.stable.example.com")


def test_an_object_is_stored_with_its_defaults_and_shown_in_its_columns(server: Server):
    apply(server, tab("shown"))
    found = server.get("crontab", "shown")
    assert found["spec"] == {"cronSpec": "* * * * *", "replicas": 1}
    assert found["metadata"]["generation"] == 1
    table = server.kubectl("get", "ct", "shown").out.splitlines()
    assert table[0].split() == ["NAME", "SPEC", "REPLICAS", "AGE"]
    assert "crontab.stable.example.com/shown" in server.kubectl("get", "all", "-o", "name").out


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"replicas": 0}, "spec.replicas in body should be greater than or equal to 1"),
        (
            {"replicas": "x"},
            'spec.replicas in body must be of type integer: "string"',
        ),
        ({"mode": "c"}, 'spec.mode: Unsupported value: "c": supported values: "a", "b"'),
        ({"cronSpec": "x" * 30}, "spec.cronSpec: Too long: may not be more than 20 bytes"),
        (
            {"parts": [{"name": "a"}, {"name": "a"}]},
            'spec.parts[1]: Duplicate value: {"name":"a"}',
        ),
        ({"mode": "b", "replicas": 7}, "mode b takes 5 at most, not 7"),
        ({"port": True}, "spec.port in body must be of type integer,string"),
    ],
)
def test_what_breaks_the_schema_is_refused(server: Server, spec: dict[str, Any], why: str):
    refused = apply(server, tab("wrong", **spec), ok=False)
    assert refused.code == 1
    assert why in refused.err


def test_unknown_fields_are_told_of_and_dropped(server: Server):
    refused = apply(server, tab("unknown", frob=1), ok=False)
    assert 'unknown field "spec.frob"' in refused.err
    done = apply(server, tab("unknown", frob=1), "--validate=warn")
    assert 'unknown field "spec.frob"' in done.err
    assert "frob" not in server.get("ct", "unknown")["spec"]


def test_a_rule_may_forbid_a_change(server: Server):
    apply(server, tab("tiered", tier="gold"))
    refused = apply(server, tab("tiered", tier="silver"), ok=False)
    assert "tier is immutable" in refused.err
    apply(server, tab("tiered", tier="gold", image="x"))
    assert server.get("ct", "tiered")["metadata"]["generation"] == 2


def test_status_and_scale_are_subresources(server: Server):
    apply(server, tab("scaled", replicas=2))
    server.kubectl("scale", "ct/scaled", "--replicas=3")
    assert server.get("ct", "scaled")["spec"]["replicas"] == 3
    server.kubectl(
        "patch", "ct", "scaled", "--subresource=status", "--type=merge", "-p",
        '{"status":{"replicas":3,"selector":"a=b"},"spec":{"replicas":9}}',
    )  # fmt: skip
    found = server.get("ct", "scaled")
    assert found["status"] == {"replicas": 3, "selector": "a=b"}
    assert found["spec"]["replicas"] == 3
    path = "/apis/stable.example.com/v1/namespaces/default/crontabs/scaled/scale"
    scale = json.loads(server.kubectl("get", "--raw", path).out)
    assert scale["status"] == {"replicas": 3, "selector": "a=b"}


def test_patches_and_server_side_apply_work_as_for_built_in_kinds(server: Server):
    apply(server, tab("applied", parts=[{"name": "a", "size": 1}]), "--server-side")
    other = tab("applied")
    other["spec"] = {"parts": [{"name": "b", "size": 2}]}
    apply(server, other, "--server-side", "--field-manager=other", ok=False)
    del other["spec"]
    other["spec"] = {"cronSpec": "* * * * *", "parts": [{"name": "b", "size": 2}]}
    apply(server, other, "--server-side", "--field-manager=other")
    parts = server.get("ct", "applied")["spec"]["parts"]
    assert parts == [{"name": "a", "size": 1}, {"name": "b", "size": 2}]
    conflict = apply(
        server, tab("applied", parts=[{"name": "b", "size": 3}]), "--server-side", ok=False
    )
    assert 'conflict with "other"' in conflict.err
    server.kubectl("patch", "ct", "applied", "--type=json", "-p",
                   '[{"op":"replace","path":"/spec/cronSpec","value":"@daily"}]')  # fmt: skip
    strategic = server.kubectl("patch", "ct", "applied", "--type=strategic", "-p", "{}", ok=False)
    assert strategic.code == 1
    server.kubectl("label", "ct", "applied", "a=b")
    assert server.get("ct", "-l", "a=b")["items"][0]["spec"]["cronSpec"] == "@daily"


def test_fields_may_be_selected_by(server: Server):
    apply(server, tab("mode-a", mode="a"))
    apply(server, tab("mode-b", mode="b"))
    found = server.get("ct", "--field-selector=spec.mode=b")["items"]
    assert [o["metadata"]["name"] for o in found] == ["mode-b"]
    refused = server.kubectl("get", "ct", "--field-selector=spec.image=b", ok=False)
    assert "field label not supported" in refused.err


def test_it_explains_and_describes_itself(server: Server):
    assert "APIVersion defines" in server.kubectl("explain", "crontab").out
    said = server.kubectl("explain", "crontab.spec").out
    assert "What is wanted." in said
    assert "cronSpec\t<string> -required-" in said
    listed = server.kubectl("api-resources", "--api-group=stable.example.com").out
    assert listed.splitlines()[1].split() == [
        "crontabs", "ct", "stable.example.com/v1", "true", "CronTab",
    ]  # fmt: skip
    apply(server, tab("described"))
    assert "Cron Spec:  * * * * *" in server.kubectl("describe", "ct", "described").out


def test_definitions_survive_a_restart_with_their_objects(server: Server):
    apply(server, tab("lasting"))
    assert server.stop() == 0
    server.start()
    assert server.get("ct", "lasting")["spec"]["replicas"] == 1


def test_a_definition_that_goes_takes_its_objects_along(server: Server):
    apply(server, tab("held") | {"metadata": {"name": "held", "finalizers": ["a.b/c"]}})
    server.kubectl("delete", "crd", "crontabs.stable.example.com", "--wait=false")
    crd = server.get("crd", "crontabs.stable.example.com")
    assert crd["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    refused = apply(server, tab("late"), ok=False)
    assert "create not allowed while custom resource definition is terminating" in refused.err
    server.kubectl("patch", "ct", "held", "--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
    server.kubectl("wait", "--for=delete", "crd/crontabs.stable.example.com")
    assert server.kubectl("get", "ct", ok=False).code == 1
    apply(server, CRD)
    established(server)
    assert server.get("ct")["items"] == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda crd: crd["metadata"].update(name="x.example.com"),
            'metadata.name: Invalid value: "x.example.com": must be '
            'spec.names.plural+"."+spec.group',
        ),
        (
            lambda crd: crd["spec"]["versions"][0].pop("schema"),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        ),
        (
            lambda crd: schema(crd)["spec"].pop("type"),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must "
            "not be empty for specified object fields",
        ),
        (
            lambda crd: schema(crd)["spec"]["x-kubernetes-validations"][0].update(
                rule="self.nope == 1", messageExpression=""
            ),
            "undefined field 'nope'",
        ),
    ],
)
def test_a_definition_that_makes_no_sense_is_refused(server: Server, change: Any, why: str):
    crd = json.loads(json.dumps(CRD))
    crd["metadata"]["name"] = "others.stable.example.com"
    crd["spec"]["names"] = {"plural": "others", "kind": "Other"}
    change(crd)
    refused = apply(server, crd, ok=False)
    assert why in refused.err


def schema(crd: dict[str, Any]) -> dict[str, Any]:
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]


def test_names_that_are_taken_are_not_accepted(server: Server):
    crd = json.loads(json.dumps(CRD))
    crd["metadata"]["name"] = "others.stable.example.com"
    crd["spec"]["names"] = {"plural": "others", "kind": "CronTab"}
    apply(server, crd)
    server.kubectl(
        "wait", "--for=condition=NamesAccepted=False", "crd/others.stable.example.com",
    )  # fmt: skip
    server.kubectl("delete", "crd", "others.stable.example.com")


def test_an_object_is_had_in_every_version_that_is_served(server: Server):
    crd = json.loads(json.dumps(CRD))
    crd["metadata"]["name"] = "twins.stable.example.com"
    crd["spec"]["names"] = {"plural": "twins", "kind": "Twin"}
    old = json.loads(json.dumps(crd["spec"]["versions"][0]))
    old.update(name="v1beta1", storage=False, deprecated=True)
    crd["spec"]["versions"].append(old)
    apply(server, crd)
    server.kubectl("wait", "--for=condition=Established", "crd/twins.stable.example.com")
    twin = {**tab("t", image="a"), "kind": "Twin", "apiVersion": "stable.example.com/v1beta1"}
    done = apply(server, twin)
    assert "Warning: stable.example.com/v1beta1 Twin is deprecated" in done.err
    assert server.get("twins.v1.stable.example.com", "t")["apiVersion"] == "stable.example.com/v1"
    found = server.get("twins.v1beta1.stable.example.com", "t")
    assert found["apiVersion"] == "stable.example.com/v1beta1"
    assert found["spec"]["replicas"] == 1
    twin["spec"]["image"] = "b"
    apply(server, twin)
    apply(server, twin, "--server-side", "--force-conflicts")
    listed = server.get("twins.v1beta1.stable.example.com")["items"]
    assert [o["spec"]["image"] for o in listed] == ["b"]
    # The other becomes the stored one; what is there is seen in it.
    for version in crd["spec"]["versions"]:
        version["storage"] = not version["storage"]
    apply(server, crd)
    assert server.get("twins.v1.stable.example.com", "t")["spec"]["image"] == "b"
    server.kubectl("annotate", "twins.v1.stable.example.com", "t", "a=b")
    status = server.get("crd", "twins.stable.example.com")["status"]
    assert status["storedVersions"] == ["v1", "v1beta1"]
    assert server.stop() == 0
    server.start()
    assert server.get("twins.v1.stable.example.com", "t")["metadata"]["annotations"]["a"] == "b"
    server.kubectl("delete", "crd", "twins.stable.example.com")
