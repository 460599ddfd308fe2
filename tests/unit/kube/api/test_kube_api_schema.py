"""What decoding accepts, drops, and says of what it refuses."""

from typing import Any

import pytest

from wherry.kube.api import schema
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import DEPLOYMENTS, LEASES, NODES, PODS, RESOURCES, SECRETS, SERVICES


def pod(**container: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "hello:1", **container}]},
    }


def refusal(resource: Any, value: Any) -> str:
    with pytest.raises(StatusError) as caught:
        schema.decode(resource, value)
    assert caught.value.code == 400 and caught.value.reason == "BadRequest"
    return caught.value.message


def test_the_newest_data_is_used():
    major, minor, _ = map(int, schema.newest_version().split("."))
    assert (major, minor) >= (1, 37)


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda r: r.plural)
def test_every_resource_has_its_definition(resource: Any):
    assert "properties" in schema.definition(resource.schema)
    assert schema.decode(resource, {}).value == {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
    }


def test_a_right_object_comes_out_as_it_went_in_and_untouched():
    value = pod(ports=[{"containerPort": 80, "protocol": "TCP"}], securityContext={})
    decoded = schema.decode(PODS, value)
    assert decoded.value == value and decoded.unknown == []
    assert decoded.value["spec"] is not value["spec"]


def test_unknown_fields_are_dropped_and_told_with_their_paths():
    value = pod(foo=1, env=[{"name": "A", "valeu": "x"}])
    value["metadata"]["lables"] = {}
    value["bar"] = None
    decoded = schema.decode(PODS, value)
    assert decoded.unknown == [
        'unknown field "metadata.lables"',
        'unknown field "spec.containers[0].foo"',
        'unknown field "spec.containers[0].env[0].valeu"',
        'unknown field "bar"',
    ]
    assert decoded.value["spec"]["containers"][0] == {
        "name": "web",
        "image": "hello:1",
        "env": [{"name": "A"}],
    }


def test_nulls_and_empty_optional_lists_and_maps_are_absent():
    value = pod(args=[], env=None, resources={"limits": {}})
    value["metadata"] |= {"creationTimestamp": None, "labels": {}, "annotations": {"a": None}}
    decoded = schema.decode(PODS, value).value
    assert decoded["metadata"] == {"name": "web", "annotations": {"a": ""}}
    assert decoded["spec"]["containers"] == [{"name": "web", "image": "hello:1", "resources": {}}]


def test_a_null_in_a_list_is_the_zero_of_its_type():
    value = pod(command=[None, "x"])
    assert schema.decode(PODS, value).value["spec"]["containers"][0]["command"] == ["", "x"]


GO = "json: cannot unmarshal"


@pytest.mark.parametrize(
    ("container", "error"),
    [
        (
            {"ports": [{"containerPort": "80"}]},
            f"{GO} string into Go struct field ContainerPort.spec.containers.ports.containerPort "
            "of type int32",
        ),
        (
            {"ports": [{"containerPort": 2**31}]},
            f"{GO} number 2147483648 into Go struct field "
            "ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            {"ports": [{"containerPort": 1.5}]},
            f"{GO} number 1.5 into Go struct field "
            "ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            {"env": [{"name": "A", "value": 1}]},
            f"{GO} number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            {"env": {"A": "1"}},
            f"{GO} object into Go struct field Container.spec.containers.env of type []v1.EnvVar",
        ),
        (
            {"command": "sh"},
            f"{GO} string into Go struct field Container.spec.containers.command of type []string",
        ),
        (
            {"command": [True]},
            f"{GO} bool into Go struct field Container.spec.containers.command of type string",
        ),
        (
            {"tty": "yes"},
            f"{GO} string into Go struct field Container.spec.containers.tty of type bool",
        ),
        (
            {"imagePullPolicy": []},
            f"{GO} array into Go struct field Container.spec.containers.imagePullPolicy of type "
            "v1.PullPolicy",
        ),
        (
            {"resources": {"limits": {"cpu": "lots"}}},
            "quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            {"resources": {"limits": {"cpu": "1K"}}},
            "unable to parse quantity's suffix",
        ),
        (
            {"resources": {"limits": 3}},
            f"{GO} number into Go struct field ResourceRequirements.spec.containers.resources."
            "limits of type v1.ResourceList",
        ),
        (
            {"livenessProbe": {"httpGet": {"port": True}}},
            f"{GO} bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.httpGet."
            "port of type int32",
        ),
    ],
)
def test_wrong_types_are_refused_in_gos_words(container: dict[str, Any], error: str):
    assert refusal(PODS, pod(**container)) == (
        f'Pod in version "v1" cannot be handled as a Pod: {error}'
    )


def test_the_version_without_its_group_is_named():
    value = {"spec": {"replicas": "3"}}
    assert refusal(DEPLOYMENTS, value) == (
        'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal '
        "string into Go struct field DeploymentSpec.spec.replicas of type int32"
    )


def test_label_values_must_be_strings():
    value = {"metadata": {"labels": {"a": 1}}}
    assert refusal(PODS, value).endswith(
        "number into Go struct field ObjectMeta.metadata.labels of type string"
    )


def test_another_kind_or_version_is_refused():
    assert refusal(PODS, {"apiVersion": "v2"}) == (
        "the API version in the data (v2) does not match the expected API version (v1)"
    )
    assert refusal(PODS, {"kind": "Service"}) == (
        'Service in version "v1" cannot be handled as a Pod: converting (v1.Service) to '
        "(core.Pod): unknown conversion"
    )
    assert refusal(DEPLOYMENTS, {"kind": "Frob"}).startswith(
        'Frob in version "v1" cannot be handled as a Deployment: no kind "Frob" is registered for '
        'version "apps/v1" in scheme'
    )
    assert "cannot unmarshal number into Go struct field .kind of type string" in refusal(
        PODS, {"kind": 3}
    )


def test_what_is_no_object_is_unrecognized():
    assert refusal(PODS, ["x"]).startswith(
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; "
        "json parse error: json: cannot unmarshal array into Go value of type struct {"
    )


def test_quantities_come_out_canonical():
    value = pod(resources={"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": 1}})
    assert schema.decode(PODS, value).value["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "1"},
    }


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00.999Z", "2026-01-01T00:00:00Z"),
    ],
)
def test_times_are_kept_in_whole_seconds_of_utc(given: str, kept: str):
    value = {"metadata": {"creationTimestamp": given}}
    assert schema.decode(PODS, value).value["metadata"]["creationTimestamp"] == kept


LAYOUT = "2006-01-02T15:04:05Z07:00"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("soon", f'parsing time "soon" as "{LAYOUT}": cannot parse "soon" as "2006"'),
        (
            "2026-01-01",
            f'parsing time "2026-01-01" as "{LAYOUT}": cannot parse "" as "T"',
        ),
        ("2026-13-01T00:00:00Z", 'parsing time "2026-13-01T00:00:00Z": month out of range'),
        ("2026-02-30T00:00:00Z", 'parsing time "2026-02-30T00:00:00Z": day out of range'),
        ("2026-01-01T00:00:00Zx", 'parsing time "2026-01-01T00:00:00Zx": extra text: "x"'),
        (
            "2026-01-01T00:00:00",
            f'parsing time "2026-01-01T00:00:00" as "{LAYOUT}": cannot parse "" as "Z07:00"',
        ),
        ("2026-01-01 00:00:00Z", f'as "{LAYOUT}": cannot parse " 00:00:00Z" as "T"'),
    ],
)
def test_wrong_times_are_refused_in_gos_words(given: str, error: str):
    message = refusal(PODS, {"metadata": {"creationTimestamp": given}})
    assert message.endswith(error)


def test_a_micro_time_has_exactly_six_digits():
    value = {"spec": {"renewTime": "2026-01-01T01:00:00.000001+01:00"}}
    assert schema.decode(LEASES, value).value["spec"]["renewTime"] == "2026-01-01T00:00:00.000001Z"
    message = refusal(LEASES, {"spec": {"renewTime": "2026-01-01T00:00:00Z"}})
    assert message.endswith('as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000"')


@pytest.mark.parametrize(
    ("given", "kept"), [("aGVsbG8=", "aGVsbG8="), ("aGVs\nbG8=\n", "aGVsbG8="), ("", "")]
)
def test_bytes_are_base64(given: str, kept: str):
    assert schema.decode(SECRETS, {"data": {"a": given}}).value["data"] == {"a": kept}


@pytest.mark.parametrize(
    ("given", "position"), [("a", 0), ("aGVsb", 4), ("aG!s", 2), ("aGVsbG8=x", 8), ("a===", 1)]
)
def test_wrong_base64_is_refused_where_it_goes_wrong(given: str, position: int):
    message = refusal(SECRETS, {"data": {"a": given}})
    assert message.endswith(f"illegal base64 data at input byte {position}")


def test_bytes_must_be_text():
    assert refusal(SECRETS, {"data": {"a": 1}}).endswith("Secret.data of type []uint8")


def test_ports_are_numbers_or_names():
    value = {"spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8}]}}
    assert schema.decode(SERVICES, value).value["spec"] == value["spec"]


def test_managed_fields_are_taken_as_they_are():
    entry = {"manager": "me", "fieldsV1": {"f:spec": {"f:x": {}, ".": {}}}}
    value = {"metadata": {"managedFields": [entry]}}
    assert schema.decode(NODES, value).value["metadata"]["managedFields"] == [entry]


def test_an_empty_list_of_managed_fields_is_let_through_as_the_wish_to_clear_them():
    value = {"metadata": {"managedFields": [], "finalizers": []}}
    assert schema.decode(NODES, value).value["metadata"] == {"managedFields": []}


def test_kinds_without_a_resource_decode_by_their_definition():
    decoded = schema.decode_kind(
        "io.k8s.api.autoscaling.v1.Scale", "autoscaling/v1", "Scale", {"spec": {"replicas": 2}}
    )
    assert decoded.value == {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "spec": {"replicas": 2},
    }


def test_schemas_that_hold_themselves_decode():
    props = {
        "properties": {"a": {"type": "string", "default": {"x": None}, "unknown": 1}},
        "additionalProperties": False,
        "items": [{"type": "string"}],
        "dependencies": {"a": ["b"]},
    }
    name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceValidation"
    decoded = schema.decode_kind(name, "v1", "V", {"openAPIV3Schema": props})
    assert decoded.value["openAPIV3Schema"]["properties"]["a"]["default"] == {"x": None}
    assert decoded.value["openAPIV3Schema"]["items"] == [{"type": "string"}]
    assert decoded.unknown[0] == 'unknown field "openAPIV3Schema.properties.a.unknown"'


def test_deep_nesting_is_refused_not_a_crash():
    props: dict[str, Any] = {}
    for _ in range(2000):
        props = {"not": props}
    name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceValidation"
    with pytest.raises(StatusError, match="exceeded max depth"):
        schema.decode_kind(name, "v1", "V", {"openAPIV3Schema": props})


def test_complaints_are_bounded():
    value = pod(**{f"x{i}": 1 for i in range(500)})
    assert len(schema.decode(PODS, value).unknown) == 100


def test_what_a_patch_broke_is_the_patchs_fault():
    text = '{"spec":{"replicas":"x"}}'
    with pytest.raises(StatusError) as caught:
        schema.decode(DEPLOYMENTS, {"spec": {"replicas": "x"}}, patch=text)
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert caught.value.message == (
        r""" "" is invalid: patch: Invalid value: "{\"spec\":{\"replicas\":\"x\"}}": """
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of "
        "type int32"
    )


def test_strict_validation_refuses_in_upstreams_words():
    complaints = ['unknown field "spec.foo"', 'duplicate field "spec.replicas"']
    error = schema.strict_failure(DEPLOYMENTS, complaints)
    assert error.code == 400 and error.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
        'unknown field "spec.foo", duplicate field "spec.replicas"'
    )
    error = schema.strict_failure(DEPLOYMENTS, complaints[:1], patch="{}")
    assert error.code == 422 and error.message == (
        ' "" is invalid: patch: Invalid value: "{}": strict decoding error: '
        'unknown field "spec.foo"'
    )
