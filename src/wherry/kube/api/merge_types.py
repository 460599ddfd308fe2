"""How the fields of a definition merge, as server-side apply sees them.

Five shapes are enough: a leaf is owned as a whole; a struct and a map by their fields; a keyed list
by its items' keys; a set by its values. The definitions say which (``x-kubernetes-list-type``,
``-list-map-keys``, ``-map-type``); a list without a word is a leaf.
Upstream: sigs.k8s.io/structured-merge-diff, schema.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

import orjson

from wherry.kube.api.definitions import definition

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_LEAVES = frozenset(
    {
        _META + "FieldsV1",
        _META + "MicroTime",
        _META + "Time",
        "io.k8s.apimachinery.pkg.api.resource.Quantity",
        "io.k8s.apimachinery.pkg.runtime.RawExtension",
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
    }
)
_KEY_DEFAULTS = {
    "io.k8s.api.core.v1.ContainerPort": {"protocol": "TCP"},
    "io.k8s.api.core.v1.ServicePort": {"protocol": "TCP"},
}
"""Keys that may be left out of an item: upstream's defaults, which the data does not have."""


class Leaf:
    """A value that has one owner: scalars, and lists and maps that are atomic."""


class Struct:
    """A map with declared fields."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def fields(self) -> dict[str, MergeType]:
        # Made on first use, because a definition may hold itself.
        parts = definition(self.name).get("properties", {})
        return {key: _merge_type(part) for key, part in parts.items()}

    def field(self, key: str) -> MergeType:
        return self.fields.get(key, LEAF)


class Map:
    """A map with keys of the user's choice."""

    def __init__(self, item: MergeType) -> None:
        self.item = item

    def field(self, key: str) -> MergeType:
        return self.item


class KeyedList:
    """A list whose items are told apart by some of their fields."""

    def __init__(self, keys: tuple[str, ...], defaults: dict[str, Any], item: MergeType) -> None:
        self.keys = tuple(sorted(keys))
        self.defaults = {key: defaults.get(key) for key in self.keys}
        self.item = item

    def step(self, item: Any) -> str:
        """The step of a path that leads to ``item``: ``k:{"name":"web"}``."""
        identity = self.defaults.copy()
        if isinstance(item, dict):
            for key in self.keys:
                if key in item:
                    identity[key] = item[key]
        return "k:" + orjson.dumps(identity).decode()


class Set:
    """A list of values in which none stands twice."""

    item: MergeType

    def __init__(self) -> None:
        self.item = LEAF

    def step(self, item: Any) -> str:
        return f"v:{orjson.dumps(item, option=orjson.OPT_SORT_KEYS).decode()}"


MergeType = Leaf | Struct | Map | KeyedList | Set

LEAF = Leaf()


@cache
def merge_type(name: str) -> MergeType:
    """How the definition called ``name`` merges."""
    schema = definition(name)
    if name in _LEAVES or "properties" not in schema:
        return LEAF
    if schema.get("x-kubernetes-map-type") == "atomic":
        return LEAF
    return Struct(name)


class _Known(Struct):
    """A struct whose fields are given; ``rest`` is how fields merge that are not declared."""

    def __init__(self, fields: dict[str, MergeType], rest: MergeType) -> None:
        super().__init__("")
        self.fields = fields
        self._rest = rest

    def field(self, key: str) -> MergeType:
        return self.fields.get(key, self._rest)


class _Deduced(Map):
    """What no schema describes: maps merge by their keys, all else is a leaf."""

    def __init__(self) -> None:
        super().__init__(self)


_DEDUCED = _Deduced()


def merge_type_of(schema: dict[str, Any], *, root: bool = False) -> MergeType:
    """How values of a custom resource's schema merge. ``root``: it describes an object with
    metadata.

    Raises nothing: the schema is structural and was checked.
    """
    relation = schema.get("x-kubernetes-map-type") or schema.get("x-kubernetes-list-type")
    properties, more = schema.get("properties"), schema.get("additionalProperties")
    if root or schema.get("x-kubernetes-embedded-resource"):
        fields = {name: merge_type_of(part) for name, part in (properties or {}).items()}
        fields |= {"apiVersion": LEAF, "kind": LEAF, "metadata": merge_type(_META + "ObjectMeta")}
        rest = _DEDUCED if schema.get("x-kubernetes-preserve-unknown-fields") else LEAF
        return _Known(fields, rest)
    if relation == "atomic":
        return LEAF
    if isinstance(more, dict):
        return Map(merge_type_of(more))
    if properties:
        rest = _DEDUCED if schema.get("x-kubernetes-preserve-unknown-fields") else LEAF
        return _Known({name: merge_type_of(part) for name, part in properties.items()}, rest)
    if relation == "set":
        return Set()
    if relation == "map":
        items = schema["items"]
        parts = items.get("properties") or {}
        keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
        defaults = {k: parts[k]["default"] for k in keys if "default" in parts.get(k, {})}
        return KeyedList(keys, defaults, merge_type_of(items))
    if more is True or schema.get("x-kubernetes-preserve-unknown-fields"):
        return _DEDUCED
    return LEAF


def _merge_type(schema: dict[str, Any]) -> MergeType:
    relation = schema.get("x-kubernetes-map-type") or schema.get("x-kubernetes-list-type")
    if relation == "atomic":
        return LEAF
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Struct(name) if relation == "granular" else merge_type(name)
    if "additionalProperties" in schema:
        return Map(_merge_type(schema["additionalProperties"]))
    if relation == "set":
        return Set()
    if relation == "map":
        item = schema["items"]
        defaults = _KEY_DEFAULTS.get(item.get("$ref", "").rpartition("/")[2], {})
        keys = tuple(schema["x-kubernetes-list-map-keys"])
        return KeyedList(keys, defaults, _merge_type(item))
    return LEAF
