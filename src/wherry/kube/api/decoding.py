"""Definitions compiled to functions that check and clean a JSON value.

Every write passes here, so a definition is turned once into a table: field name → the exact Python
type that needs no further look, and the function for everything else. A pod of 3 KB takes some
tens of microseconds. Where the value stands is carried along as a linked path, looked at only when
there is something to complain about.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from wherry.kube.api import scalars
from wherry.kube.api.definitions import definition
from wherry.kube.api.scalars import Malformed, Unreadable, word_for


class Step(NamedTuple):
    """One step down into a value: a field of a struct, an item of a list, a key of a map.

    ``struct`` is the Go name of the struct that the field belongs to, empty for items and keys.
    """

    above: Step | None
    at: str | int
    struct: str


Decoder = Callable[[Any, "Step | None", list[str]], Any]


class Mistyped(ValueError):
    """A value that its field cannot hold; ``str()`` is Go's sentence for it."""


class _Type(NamedTuple):
    """How to take one type: ``plain`` values need nothing, all others go through ``decode``.

    ``zero`` makes what a null becomes where something must stand (items of lists, values of maps);
    ``go`` is the Go type's name.
    """

    plain: type
    decode: Decoder
    zero: Callable[[], Any]
    go: str


class _Never:
    """The type of no JSON value."""


_MOST_COMPLAINTS = 100


def _text(path: Step | None) -> str:
    """The path as strict decoding writes it: ``spec.containers[0].image``."""
    steps: list[str] = []
    while path is not None:
        steps.append(f"[{path.at}]" if isinstance(path.at, int) else f".{path.at}")
        path = path.above
    return "".join(reversed(steps)).removeprefix(".")


def _mistyped(found: str, path: Step | None, go: str) -> Mistyped:
    """Go's sentence for a value of the wrong type: only fields of structs are in its path."""
    fields: list[str] = []
    struct = ""
    while path is not None:
        if path.struct:
            struct = struct or path.struct
            fields.append(str(path.at))
        path = path.above
    if not fields:
        return Mistyped(f"json: cannot unmarshal {found} into Go value of type {go}")
    where = f"{struct}.{'.'.join(reversed(fields))}"
    return Mistyped(f"json: cannot unmarshal {found} into Go struct field {where} of type {go}")


def _complain(unknown: list[str], path: Step | None, key: str) -> None:
    if len(unknown) < _MOST_COMPLAINTS:
        sentence = f'unknown field "{_text(Step(path, key, ""))}"'
        if sentence not in unknown:
            unknown.append(sentence)


def _scalar(read: Callable[[Any], Any], go: str) -> Decoder:
    def decode(value: Any, path: Step | None, unknown: list[str]) -> Any:
        try:
            return read(value)
        except Unreadable as error:
            raise _mistyped(error.found, path, error.wanted or go) from None
        except Malformed as error:
            raise Mistyped(str(error)) from None

    return decode


def _raw(value: Any, path: Step | None, unknown: list[str]) -> Any:
    return value


def _list(item: _Type, go: str, *, omit_empty: bool) -> Decoder:
    plain, decode_item, zero, _ = item

    def decode(value: Any, path: Step | None, unknown: list[str]) -> Any:
        if type(value) is not list:
            raise _mistyped(word_for(value), path, go)
        out = []
        for i, each in enumerate(value):
            if type(each) is plain:
                out.append(each)
            elif each is None:
                out.append(zero())
            else:
                out.append(decode_item(each, Step(path, i, ""), unknown))
        return None if omit_empty and not out else out

    return decode


def _map(item: _Type, go: str, *, omit_empty: bool) -> Decoder:
    plain, decode_item, zero, _ = item

    def decode(value: Any, path: Step | None, unknown: list[str]) -> Any:
        if type(value) is not dict:
            raise _mistyped(word_for(value), path, go)
        out = {}
        for key, each in value.items():
            if type(each) is plain:
                out[key] = each
            elif each is None:
                out[key] = zero()
            else:
                out[key] = decode_item(each, Step(path, key, ""), unknown)
        return None if omit_empty and not out else out

    return decode


def _struct(name: str, fields: dict[str, tuple[type, Decoder]]) -> Decoder:
    go = _go_name(name)
    struct = name.rpartition(".")[2]

    def decode(value: Any, path: Step | None, unknown: list[str]) -> Any:
        if type(value) is not dict:
            raise _mistyped(word_for(value), path, go)
        out = {}
        for key, each in value.items():
            known = fields.get(key)
            if known is None:
                _complain(unknown, path, key)
                continue
            plain, decode_field = known
            if type(each) is plain:
                out[key] = each
            elif each is not None:
                decoded = decode_field(each, Step(path, key, struct), unknown)
                if decoded is not None:
                    out[key] = decoded
        return out

    return decode


_PREFIX = "#/$defs/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."

_RAW = frozenset(
    {
        _META + "FieldsV1",
        _META + "Patch",
        "io.k8s.apimachinery.pkg.runtime.RawExtension",
        _EXTENSIONS + "JSON",
    }
)

_STRING = _Type(str, _scalar(scalars.string, "string"), str, "string")
_SCALARS: dict[tuple[str, str], _Type] = {
    ("string", ""): _STRING,
    ("boolean", ""): _Type(bool, _scalar(scalars.boolean, "bool"), bool, "bool"),
    ("integer", "int32"): _Type(_Never, _scalar(scalars.int32, "int32"), int, "int32"),
    ("integer", "int64"): _Type(_Never, _scalar(scalars.int64, "int64"), int, "int64"),
    ("number", "double"): _Type(_Never, _scalar(scalars.double, "float64"), int, "float64"),
    ("string", "byte"): _Type(_Never, _scalar(scalars.base64, "[]uint8"), str, "[]uint8"),
}
_NAMED_SCALARS: dict[str, _Type] = {
    _META + "Time": _Type(_Never, _scalar(scalars.time, "v1.Time"), lambda: None, "v1.Time"),
    _META + "MicroTime": _Type(
        _Never, _scalar(scalars.micro_time, "v1.MicroTime"), lambda: None, "v1.MicroTime"
    ),
    "io.k8s.apimachinery.pkg.api.resource.Quantity": _Type(
        _Never, _scalar(scalars.canonical_quantity, "resource.Quantity"), lambda: "0",
        "resource.Quantity",
    ),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _Type(
        str, _scalar(scalars.int_or_string, "intstr.IntOrString"), int, "intstr.IntOrString"
    ),
}  # fmt: skip

_GO_TYPES = {
    ("Container", "imagePullPolicy"): "v1.PullPolicy",
    ("Container", "terminationMessagePolicy"): "v1.TerminationMessagePolicy",
    ("ContainerPort", "protocol"): "v1.Protocol",
    ("PodSpec", "restartPolicy"): "v1.RestartPolicy",
    ("PodSpec", "dnsPolicy"): "v1.DNSPolicy",
    ("ServicePort", "protocol"): "v1.Protocol",
    ("ServiceSpec", "type"): "v1.ServiceType",
    ("ServiceSpec", "sessionAffinity"): "v1.ServiceAffinity",
    ("DeploymentStrategy", "type"): "v1.DeploymentStrategyType",
    ("Secret", "type"): "v1.SecretType",
    ("ResourceRequirements", "limits"): "v1.ResourceList",
    ("ResourceRequirements", "requests"): "v1.ResourceList",
    ("NodeStatus", "capacity"): "v1.ResourceList",
    ("NodeStatus", "allocatable"): "v1.ResourceList",
    ("ObjectMeta", "uid"): "types.UID",
    ("OwnerReference", "uid"): "types.UID",
}
"""Go's names of types that the definitions know only as string or map; for error texts alone."""


def _go_name(definition: str) -> str:
    """``io.k8s.api.core.v1.PodSpec`` is ``v1.PodSpec`` in Go."""
    return ".".join(definition.split(".")[-2:])


@cache
def decoder(name: str) -> Decoder:
    """The decoder of the definition called ``name``."""
    return _named(name).decode


@cache
def _named(name: str) -> _Type:
    if name in _NAMED_SCALARS:
        return _NAMED_SCALARS[name]
    if name in _RAW:
        return _Type(_Never, _raw, dict, _go_name(name))
    if name.startswith(_EXTENSIONS + "JSONSchemaPropsOr"):
        return _Type(_Never, _schema_or(name), dict, _go_name(name))
    # Definitions may hold themselves, so the fields are compiled on first use, not here.
    return _Type(_Never, _late_struct(name), dict, _go_name(name))


def _late_struct(name: str) -> Decoder:
    """A struct whose fields are compiled when the first value comes."""
    compiled: Decoder | None = None

    def decode(value: Any, path: Step | None, unknown: list[str]) -> Any:
        nonlocal compiled
        if compiled is None:
            compiled = _struct(name, _fields(name))
        return compiled(value, path, unknown)

    return decode


def _fields(name: str) -> dict[str, tuple[type, Decoder]]:
    schema = definition(name)
    required = schema.get("required", ())
    struct = name.rpartition(".")[2]
    fields = {}
    for key, part in schema.get("properties", {}).items():
        # An empty list of managed fields is the wish to forget them, so it is let through.
        taken = _typed(part, omit_empty=key not in required and key != "managedFields")
        go = _GO_TYPES.get((struct, key))
        if go and taken.plain is str:
            taken = _Type(str, _scalar(scalars.string, go), str, go)
        elif go and "additionalProperties" in part:
            item = _typed(part["additionalProperties"], omit_empty=False)
            taken = _Type(_Never, _map(item, go, omit_empty=key not in required), dict, go)
        fields[key] = (taken.plain, taken.decode)
    return fields


def _typed(schema: dict[str, Any], *, omit_empty: bool) -> _Type:
    """How to take a part of a definition. ``omit_empty``: an empty list or map counts as absent."""
    if "$ref" in schema:
        return _named(schema["$ref"].removeprefix(_PREFIX))
    kind = schema["type"]
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "array":
        item = _typed(schema["items"], omit_empty=False)
        go = f"[]{item.go}"
        return _Type(_Never, _list(item, go, omit_empty=omit_empty), list, go)
    if kind == "object":
        item = _typed(schema["additionalProperties"], omit_empty=False)
        go = f"map[string]{item.go}"
        return _Type(_Never, _map(item, go, omit_empty=omit_empty), dict, go)
    return _SCALARS[kind, schema.get("format", "")]


def _schema_or(name: str) -> Decoder:
    """JSONSchemaProps, or what its name says: a bool, a list of it, or a list of texts."""
    props = _named(_EXTENSIONS + "JSONSchemaProps")
    strings = _list(_STRING, "[]string", omit_empty=False)
    schemas = _list(props, f"[]{props.go}", omit_empty=False)
    alternative = name.rpartition("Or")[2]

    def decode(value: Any, path: Step | None, unknown: list[str]) -> Any:
        if alternative == "Bool" and type(value) is bool:
            return value
        if alternative == "Array" and type(value) is list:
            return schemas(value, path, unknown)
        if alternative == "StringArray" and type(value) is list:
            return strings(value, path, unknown)
        if type(value) is dict:
            return props.decode(value, path, unknown)
        raise Mistyped(
            "boolean or JSON schema expected" if alternative == "Bool" else "unknown json"
        )

    return decode
