"""Whatever passes the schema ends in an answer, never in a traceback."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from wherry.kube.api.conversion import VERSIONS, OldVersion
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import KINDS, Kind
from wherry.kube.api.schema import decode, definition
from wherry.kube.api.warnings import ON_WRITE

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TIME = "2026-01-01T00:00:00Z"
WORDS = (
    *("", "a", "-a", "web", "Bad Name", 'é\n"', "a/b", "a/b/c", "../x", "/abs", "..x", "1", "-1"),
    *("In", "NotIn", "Exists", "Gt", "Always", "Never", "OnFailure", "TCP", "http", "None"),
    *("nginx:latest", "10.0.0.1", "::1", "10.0.0.0/24", "IPv4", "FQDN", "25%", "1000%", "500m"),
    *("ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "Local", "Localhost", "Recreate"),
    *("metadata.labels['a']", "limits.cpu", "kubernetes.io/tls", "windows", "RequireDualStack"),
)
SCALARS: dict[str, tuple[Any, ...]] = {
    "Time": (TIME,),
    "MicroTime": ("2026-01-01T00:00:00.000001Z",),
    "Quantity": ("1", "500m", "1Gi", 2, 0.5, "-1", "0", "3n"),
    "IntOrString": (0, 1, 80, 99999, -1, "http", "25%", ""),
}


class Author:
    """Writes objects that the schema allows and nobody would."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def value(self, schema: dict[str, Any], depth: int) -> Any:
        choose = self.random.choice
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/")
            kind = name.rpartition(".")[2]
            if kind in SCALARS:
                return choose(SCALARS[kind])
            if kind.startswith("JSONSchemaPropsOr"):
                return self.struct(definition(name.partition("Or")[0]), depth + 1)
            return self.struct(definition(name), depth + 1)
        kind = schema["type"][0] if isinstance(schema["type"], list) else schema["type"]
        match kind:
            case "string":
                return choose(("", "aGk=") if schema.get("format") == "byte" else WORDS)
            case "integer":
                return choose((-1, 0, 1, 2, 80, 65536, 2**31 - 1))
            case "number":
                return choose((-1.5, 0, 1, 2.5))
            case "boolean":
                return choose((True, False))
            case "array":
                count = choose((0, 1, 1, 2, 3))
                return [self.value(schema["items"], depth + 1) for _ in range(count)]
        values = schema.get("additionalProperties")
        count = choose((0, 1, 2)) if values else 0
        return {choose(WORDS): self.value(values, depth + 1) for _ in range(count)}

    def struct(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        chance = self.random.choice((0.1, 0.3, 0.6)) if depth < 8 else 0.05
        return {
            key: self.value(part, depth)
            for key, part in schema.get("properties", {}).items()
            if self.random.random() < chance
        }

    def write(self, kind: Kind) -> dict[str, Any]:
        schema = definition(kind.resource.schema)
        o = self.struct(schema, 0)
        for part in ("metadata", "spec", "status"):
            if part in schema["properties"] and part not in o and self.random.random() < 0.8:
                o[part] = self.value(schema["properties"][part], 1)
        o |= {"apiVersion": kind.resource.api_version, "kind": kind.resource.kind}
        o = decode(kind.resource, o).value
        o.setdefault("metadata", {})["creationTimestamp"] = TIME
        return o


@pytest.mark.parametrize("kind", KINDS.values(), ids=repr)
def test_every_step_answers(kind: Kind) -> None:
    author = Author(seed=1)
    look = ON_WRITE.get(kind.resource.schema, lambda new, old: [])
    for _ in range(100):
        old, new = author.write(kind), author.write(kind)
        kind.default(old)
        once = copy.deepcopy(old)
        kind.default(old)
        assert old == once, "defaults applied twice are defaults applied once"
        kind.prepare_create(old)
        faults = kind.validate(old)
        assert all(isinstance(fault, FieldError) and str(fault) for fault in faults)
        assert all(isinstance(text, str) for text in look(old, None) + look(new, old))
        assert len(kind.row(old, NOW)) == len(kind.columns)
        values = kind.selectable_fields(old)
        assert set(values) == kind.selectable
        assert all(isinstance(value, str) for value in values.values())
        kind.default(new)
        for prepare, judge in (
            (kind.prepare_update, kind.validate_update),
            (kind.prepare_status_update, kind.validate_status_update),
        ):
            changed, before = copy.deepcopy(new), copy.deepcopy(old)
            prepare(changed, old)
            assert all(map(str, judge(changed, old)))
            assert old == before, "what is shared is never changed"
        if "scale" in kind.resource.subresources:
            kind.apply_scale(new, kind.scale(old))


@pytest.mark.parametrize("version", VERSIONS, ids=repr)
def test_every_old_version_answers(version: OldVersion) -> None:
    author, kind = Author(seed=2), version.stored
    look = ON_WRITE.get(kind.resource.schema, lambda new, old: [])
    for _ in range(100):
        old = author.write(version)
        annotations = old["metadata"].get("annotations") or {}
        for name in _READ_ANNOTATIONS:
            if author.random.random() < 0.3:
                annotations[name] = author.random.choice(_NOTES)
        old["metadata"]["annotations"] = annotations
        before = copy.deepcopy(old)
        version.to_stored(old)
        assert old == before, "a conversion changes nothing in place"
        version.default(old)
        stored = copy.deepcopy(version.to_stored(old))
        kind.default(stored)
        kind.prepare_create(stored)
        assert all(map(str, version.as_asked(kind.validate(stored), stored)))
        assert all(map(str, look(stored, None)))
        before = copy.deepcopy(stored)
        shown = version.from_stored(stored)
        assert stored == before
        assert decode(version.resource, shown).unknown == []
        assert len(version.row(shown, NOW)) == len(version.columns)
        assert version.selectable <= set(version.selectable_fields(stored))
        if "scale" in kind.resource.subresources:
            version.scale(stored)


_READ_ANNOTATIONS = (
    *(f"autoscaling.alpha.kubernetes.io/{n}" for n in ("metrics", "current-metrics", "behavior")),
    "autoscaling.alpha.kubernetes.io/conditions",
    "deprecated.deployment.rollback.to",
    "deprecated.daemonset.template.generation",
)
_NOTES = ("", "1", "--5", "²", "9" * 40, "null", "[1]", "[{}]", '{"a":1}', '[{"type":"Pods"}]', "[")
