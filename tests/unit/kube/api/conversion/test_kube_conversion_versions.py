"""What holds of every old version: nothing is lost on the way to the stored one and back."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from wherry.kube.api.catalogue import STATIC
from wherry.kube.api.conversion import VERSIONS, OldVersion
from wherry.kube.api.definitions import definition, definitions
from wherry.kube.api.schema import decode

_LEAVES = {
    "io.k8s.api.core.v1.PodTemplateSpec": {"metadata": {"labels": {"a": "b"}}},
    "io.k8s.api.batch.v1.JobSpec": {"parallelism": 2},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "2",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": {"f:spec": {}},
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "2024-01-02T03:04:05.000006Z",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "2024-01-02T03:04:05Z",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": {"any": "thing"},
}


class _Maker:
    """Makes values of a definition, each time others."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def of(self, name: str, depth: int = 0) -> Any:
        if name in _LEAVES:
            return copy.deepcopy(_LEAVES[name])
        if name.endswith("IntOrString"):
            return self._random.choice([80, "http"])
        return self._value(definition(name), depth)

    def _value(self, schema: dict[str, Any], depth: int) -> Any:
        if "$ref" in schema:
            return self.of(schema["$ref"].rpartition("/")[2], depth + 1)
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) else kind
        match kind:
            case "object":
                if "additionalProperties" in schema:
                    key = self._random.choice(["kubernetes.io/hostname", "x"])
                    return {key: self._value(schema["additionalProperties"], depth + 1)}
                needed = schema.get("required", ())
                return {
                    field: self._value(part, depth + 1)
                    for field, part in schema.get("properties", {}).items()
                    if field in needed or self._random.random() < (0.9 if depth < 5 else 0.3)
                }
            case "array":
                return [self._value(schema["items"], depth + 1)]
            case "integer":
                return self._random.randint(1, 99)
            case "boolean":
                return True
            case "number":
                return 1.5
            case "string" if schema.get("format") == "byte":
                return "eA=="
        return self._random.choice(["a", "b", "c"])


def _made(version: Any, seed: int) -> dict[str, Any]:
    """A decoded object of a kind."""
    resource = version.resource
    o = _Maker(seed).of(resource.schema)
    o |= {"kind": resource.kind, "apiVersion": resource.api_version}
    o["metadata"] = {"name": "n", "namespace": "d", "annotations": {"mine": "kept"}}
    return decode(resource, o).value


_OWN = ("HorizontalPodAutoscaler", "CustomResourceDefinition")  # these have tests of their own
_EXACT = [v for v in VERSIONS if v.resource.kind not in _OWN]


def _id(version: OldVersion) -> str:
    return f"{version.resource.api_version} {version.resource.kind}"


@pytest.mark.parametrize("version", _EXACT, ids=_id)
@pytest.mark.parametrize("seed", range(8))
def test_an_old_object_comes_back_as_it_was(version: OldVersion, seed: int) -> None:
    o = _made(version, seed)
    before = copy.deepcopy(o)
    stored = version.to_stored(o)
    assert o == before, "it is not changed in place"
    assert stored["apiVersion"] == version.stored.resource.api_version
    back = version.from_stored(stored)
    for endpoint in back.get("endpoints") or ():  # the node's name is shown as a label, too
        if endpoint.get("nodeName"):
            endpoint.get("topology", {}).pop("kubernetes.io/hostname", None)
    for endpoint in before.get("endpoints") or ():
        if endpoint.get("nodeName"):
            endpoint.get("topology", {}).pop("kubernetes.io/hostname", None)
    assert _bare(back) == _bare(before)


@pytest.mark.parametrize("version", _EXACT, ids=_id)
@pytest.mark.parametrize("seed", range(8))
def test_a_stored_object_comes_back_as_it_was(version: OldVersion, seed: int) -> None:
    stored = _made(version.stored, seed)
    _consistent(stored)
    before = copy.deepcopy(stored)
    old = version.from_stored(stored)
    assert stored == before, "it is not changed in place"
    assert old["apiVersion"] == version.resource.api_version
    assert _bare(version.to_stored(old)) == _bare(before)


def _consistent(o: dict[str, Any]) -> None:
    """A service's port has a name or a number, an endpoint's labels are not fields."""
    spec = o.get("spec") or {}
    backends = [spec.get("defaultBackend")]
    backends += [
        path.get("backend")
        for rule in spec.get("rules") or ()
        if isinstance(rule, dict)
        for path in (rule.get("http") or {}).get("paths") or ()
    ]
    for backend in backends:
        service = (backend or {}).get("service")
        if service is not None:
            service["port"] = {"number": 80}
    for endpoint in o.get("endpoints") or ():
        endpoint.get("deprecatedTopology", {}).pop("kubernetes.io/hostname", None)


def _bare(o: Any) -> Any:
    """Without what is empty."""
    if isinstance(o, dict):
        return {k: b for k, v in o.items() if (b := _bare(v)) not in ({}, [], None)}
    return [_bare(each) for each in o] if isinstance(o, list) else o


@pytest.mark.parametrize("version", VERSIONS, ids=_id)
def test_a_bare_object_can_be_converted_and_defaulted(version: OldVersion) -> None:
    resource = version.resource
    o = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {"name": "n"}}
    version.from_stored(version.to_stored(o))
    version.default(o)
    stored = version.to_stored(o)
    version.stored.default(stored)
    version.as_asked(version.stored.validate(stored), stored)


@pytest.mark.parametrize("version", VERSIONS, ids=_id)
def test_a_version_is_described(version: OldVersion) -> None:
    resource = version.resource
    for name in (resource.schema, resource.schema + "List"):
        identity = definition(name)["x-kubernetes-group-version-kind"]
        kind = name.rpartition(".")[2]
        assert {
            "group": resource.group, "version": resource.version, "kind": kind
        } in identity  # fmt: skip
    assert definition(resource.schema)["properties"].keys() >= {"kind", "apiVersion", "metadata"}


def test_every_definition_named_is_there() -> None:
    seen: set[str] = set()
    wanted = [v.resource.schema + suffix for v in VERSIONS for suffix in ("", "List")]
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        wanted += _references(definition(name))
    old = {name for name in seen if name not in definitions()}
    assert len(old) > 300


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for each in schema for name in _references(each)]
    if not isinstance(schema, dict):
        return []
    here = [schema["$ref"].rpartition("/")[2]] if isinstance(schema.get("$ref"), str) else []
    return here + [name for each in schema.values() for name in _references(each)]


def test_stable_versions_stay_preferred() -> None:
    groups = STATIC.discovery.groups
    for group, versions in groups.items():
        if group != "extensions":
            assert "beta" not in versions[0], group
    assert groups["autoscaling"][0] == "v2"
    assert groups["apps"] == ("v1", "v1beta2", "v1beta1")
    order = list(groups)
    assert order.index("apps") < order.index("extensions")
    assert order.index("networking.k8s.io") < order.index("extensions")


def test_deprecations_are_in_upstreams_words() -> None:
    found = {_id(version): version.deprecation for version in VERSIONS}
    assert found["extensions/v1beta1 Ingress"] == (
        "extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; "
        "use networking.k8s.io/v1 Ingress"
    )
    assert found["autoscaling/v1 HorizontalPodAutoscaler"] == ""
    assert found["events.k8s.io/v1 Event"] == ""
    assert found["events.k8s.io/v1beta1 Event"].endswith("use events.k8s.io/v1 Event")
