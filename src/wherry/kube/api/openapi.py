"""The OpenAPI documents: what every kind looks like, with its prose, and what can be done with it.

A document is made when it is first asked for and kept compressed: together they are large, and most
servers are never asked for most of them. The definitions are read with their descriptions for that
moment alone.
Upstream: k8s.io/kube-openapi; its documents are what ``kubectl explain`` and the validation of
``kubectl apply`` are written for.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from functools import cached_property, lru_cache
from hashlib import sha512
from typing import Any, NamedTuple

import orjson

import wherry
from wherry.kube.api.definitions import data_path, newest_version
from wherry.kube.api.discovery import Discovery
from wherry.kube.api.kinds import Kind
from wherry.kube.api.openapi_paths import META, PARAMETERS, Operation, operations
from wherry.kube.api.resources import Resource

Document = dict[str, Any]

_REVISION = 2
"""Counts changes in how documents are made: clients keep them by a hash this goes into."""

_PREFIXES = {2: "#/definitions/", 3: "#/components/schemas/"}
_DATA_PREFIX = "#/$defs/"
_ALWAYS = tuple(
    META + name for name in ("APIResourceList", "DeleteOptions", "Patch", "Status", "WatchEvent")
)
_MEDIA_TYPES = ("application/json", "application/yaml")
_STREAM_TYPE = "application/json;stream=watch"

_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_DESCRIBED = {
    _QUANTITY: (
        "Quantity is a fixed-point number with a suffix: n, u, m, k, M, G, T, P, E for powers of "
        "1000, Ki, Mi, Gi, Ti, Pi, Ei for powers of 1024, or an exponent like e6. It is kept with "
        "the largest suffix that leaves no fraction."
    ),
    _INT_OR_STRING: "IntOrString is a number of 32 bits or a text.",
}


Schemas = dict[str, Document]
"""Definitions by name, as OpenAPI of one version has them."""


class OpenAPI:
    """The documents of all that is served.

    Documents of the same kinds are shared by all objects of this class: when custom resources come
    and go, only theirs are made anew.

    Args:
        discovery: of the same resources.
        kinds: all that is served; those with schemas of their own bring these.
    """

    def __init__(self, discovery: Discovery, kinds: Iterable[Kind]) -> None:
        self._discovery = discovery
        self._own: dict[str, list[Kind]] = {}
        for kind in kinds:
            if kind.schema_tag:
                self._own.setdefault(kind.resource.api_version, []).append(kind)

    def _part(self, group_version: str) -> Part:
        own = self._own.get(group_version, ())
        return Part(
            tuple(self._discovery.resources_of(group_version)),
            tuple(sorted((kind.resource.plural, kind.schema_tag) for kind in own)),
        )

    def _schemas(self, group_version: str, form: int) -> Schemas:
        own = self._own.get(group_version, ())
        return {name: schema for kind in own for name, schema in kind.schemas(form).items()}

    def v3_paths(self) -> Document:
        """``/openapi/v3``: where the document of each group version is, with a hash of it."""
        return {
            "paths": {
                _v3_path(each): {
                    "serverRelativeURL": f"/openapi/v3/{_v3_path(each)}?hash={self.v3_hash(each)}"
                }
                for each in self._discovery.group_versions
            }
        }

    def v3_hash(self, group_version: str) -> str:
        """A mark that changes when the document would. It is had without making the document."""
        return _hash(self._part(group_version))

    def v3_gzip(self, group_version: str) -> bytes:
        """The same, compressed by gzip: as it is kept, ready for clients that take it so."""
        part = self._part(group_version)
        found = _v3_made.get(part)
        if found is None:
            document = self.v3_document(group_version)
            found = gzip.compress(orjson.dumps(document), 6)
            if len(_v3_made) >= _MOST_DOCUMENTS:
                del _v3_made[next(iter(_v3_made))]
            _v3_made[part] = found
        return found

    def v2_json(self) -> bytes:
        """The OpenAPI 2 (Swagger) document of everything as JSON."""
        return gzip.decompress(self.v2_gzip)

    @cached_property
    def v2_gzip(self) -> bytes:
        """The same, compressed by gzip."""
        return gzip.compress(orjson.dumps(self.v2_document()), 6)

    def v3_document(self, group_version: str) -> Document:
        """The OpenAPI 3 document of ``v1`` or ``apps/v1``."""
        paths: dict[str, Document] = {}
        resources = self._discovery.resources_of(group_version)
        found = list(operations(resources))
        for operation in found:
            item = paths.setdefault(operation.path, {})
            item[operation.method] = _v3_operation(operation)
            item["parameters"] = [_v3_parameter(p) for p in _path_parameters(operation.path)]
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": f"v{newest_version()}"},
            "paths": paths,
            "components": {
                "schemas": _schemas(found, (), 3, self._schemas(group_version, 3)),
                "securitySchemes": {"BearerToken": _SECURITY},
            },
        }

    def v2_document(self) -> Document:
        """The OpenAPI 2 document of everything."""
        paths: dict[str, Document] = {}
        served = self._discovery.group_versions
        resources = [each for gv in served for each in self._discovery.resources_of(gv)]
        found = list(operations(resources))
        for operation in found:
            item = paths.setdefault(operation.path, {})
            item[operation.method] = _v2_operation(operation)
            item["parameters"] = [_v2_parameter(p) for p in _path_parameters(operation.path)]
        own = {name: each for gv in self._own for name, each in self._schemas(gv, 2).items()}
        return {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": f"v{newest_version()}"},
            "paths": paths,
            "definitions": _schemas(found, resources, 2, own),
            "securityDefinitions": {"BearerToken": _SECURITY},
            "security": [{"BearerToken": []}],
        }


class Part(NamedTuple):
    """What the document of one group version is made of."""

    resources: tuple[Resource, ...]
    own: tuple[tuple[str, str], ...]


_MOST_DOCUMENTS = 256
_v3_made: dict[Part, bytes] = {}


def _v3_path(group_version: str) -> str:
    return f"apis/{group_version}" if "/" in group_version else f"api/{group_version}"


@lru_cache(_MOST_DOCUMENTS)
def _hash(part: Part) -> str:
    parts = (_REVISION, wherry.__version__, newest_version(), part)
    return sha512(repr(parts).encode()).hexdigest().upper()


_SECURITY = {
    "type": "apiKey",
    "description": "Bearer Token authentication",
    "name": "authorization",
    "in": "header",
}


# --- operations ----------------------------------------------------------------------------------


def _common(operation: Operation) -> Document:
    group, version, kind = operation.kind
    first = operation.path.split("/")
    tag = f"{first[2]}_{first[3]}" if first[1] == "apis" else f"core_{first[2]}"
    return {
        "description": operation.description,
        "operationId": operation.id,
        "tags": [tag.replace(".k8s.io", "").replace(".", "_").replace("-", "_")],
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    }


_REASONS = {200: "OK", 201: "Created", 202: "Accepted", 401: "Unauthorized"}


def _v3_operation(operation: Operation) -> Document:
    types: Iterable[str] = _MEDIA_TYPES
    if operation.action == "list":
        types = (*_MEDIA_TYPES, _STREAM_TYPE)
    if operation.answer:
        content = {each: {"schema": _reference(operation.answer, 3)} for each in types}
    else:
        content = {"*/*": {"schema": {"type": "string"}}}
    responses: Document = {
        str(code): {"description": _REASONS[code], "content": content} for code in operation.codes
    }
    out = {
        **_common(operation),
        "parameters": [_v3_parameter(name) for name in operation.query],
        "responses": {**responses, "401": {"description": _REASONS[401]}},
    }
    if operation.body:
        schema = _reference(operation.body, 3)
        body: Document = {"content": {each: {"schema": schema} for each in operation.takes}}
        if operation.method != "delete":
            body["required"] = True
        out["requestBody"] = body
    return out


def _v2_operation(operation: Operation) -> Document:
    schema = _reference(operation.answer, 2) if operation.answer else {"type": "string"}
    responses: Document = {
        str(code): {"description": _REASONS[code], "schema": schema} for code in operation.codes
    }
    parameters = [_v2_parameter(name) for name in operation.query]
    if operation.body:
        body: Document = {
            "name": "body",
            "in": "body",
            "schema": _reference(operation.body, 2),
        }
        if operation.method != "delete":
            body["required"] = True
        parameters.insert(0, body)
    produces = [*_MEDIA_TYPES, _STREAM_TYPE] if operation.action == "list" else [*_MEDIA_TYPES]
    return {
        **_common(operation),
        "consumes": list(operation.takes),
        "produces": produces if operation.answer else ["*/*"],
        "schemes": ["https"],
        "parameters": parameters,
        "responses": {**responses, "401": {"description": _REASONS[401]}},
    }


def _path_parameters(path: str) -> list[str]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [*names, "pretty"]


_PATH_PARAMETERS = {
    "name": "Name of the object.",
    "namespace": "Namespace the object is in.",
}


def _parameter(name: str) -> tuple[str, Document]:
    if name in _PATH_PARAMETERS:
        head = {"name": name, "in": "path", "description": _PATH_PARAMETERS[name], "required": True}
        return "string", head
    kind, description = PARAMETERS[name]
    return kind, {"name": name, "in": "query", "description": description}


def _v3_parameter(name: str) -> Document:
    kind, head = _parameter(name)
    return {**head, "schema": {"type": kind, "uniqueItems": True}}


def _v2_parameter(name: str) -> Document:
    kind, head = _parameter(name)
    return {**head, "type": kind, "uniqueItems": True}


# --- definitions ---------------------------------------------------------------------------------


def _schemas(
    found: Iterable[Operation], resources: Iterable[Resource], form: int, own: Schemas
) -> Schemas:
    """The definitions that the operations and resources name, and those that these name.

    ``own`` are there already, as they are to be shown.
    """
    from wherry.kube.api.conversion.schemas import derive

    data: Document = orjson.loads(data_path().read_bytes())["$defs"]
    data |= derive(data)
    wanted = [*_ALWAYS, *(name for each in found for name in (each.body, each.answer) if name)]
    wanted += [resource.schema for resource in resources]
    wanted += [name for schema in own.values() for name in _references(schema, form)]
    schemas = dict(own)
    while wanted:
        name = wanted.pop()
        if name not in schemas and name in data:
            schemas[name] = _definition(name, data[name], form, wanted)
    return dict(sorted(schemas.items()))


def _references(schema: Any, form: int) -> Iterable[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(_PREFIXES[form])
            else:
                yield from _references(value, form)
    elif isinstance(schema, list):
        for each in schema:
            yield from _references(each, form)


def _reference(name: str, form: int) -> Document:
    return {"$ref": _PREFIXES[form] + name}


def _definition(name: str, schema: Document, form: int, wanted: list[str]) -> Document:
    if name == _QUANTITY and form == 3:
        return {
            "description": _DESCRIBED[name],
            "oneOf": [{"type": "string"}, {"type": "number"}],
        }
    if name == _INT_OR_STRING and form == 3:
        return {
            "description": _DESCRIBED[name],
            "format": "int-or-string",
            "oneOf": [{"type": "integer"}, {"type": "string"}],
        }
    if name == _QUANTITY:
        return {"description": _DESCRIBED[name], "type": "string"}
    if name == _INT_OR_STRING:
        return {"description": _DESCRIBED[name], "type": "string", "format": "int-or-string"}
    return _schema(schema, form, wanted)


def _schema(schema: Document, form: int, wanted: list[str]) -> Document:
    """A part of the data as OpenAPI has it: one type, no null, references to where they lead."""
    out: Document = {}
    reference = None
    for key, value in schema.items():
        match key:
            case "$ref":
                name = value.removeprefix(_DATA_PREFIX)
                wanted.append(name)
                reference = _reference(name, form)
            case "type":
                out[key] = value[0] if isinstance(value, list) else value
            case "properties":
                out[key] = {
                    field: _schema(part, form, wanted) for field, part in sorted(value.items())
                }
            case "items" | "additionalProperties":
                out[key] = _schema(value, form, wanted)
            case "enum":
                pass  # the data's own: it fixes kind and apiVersion, upstream does not
            case _:
                out[key] = value
    if reference is None:
        return out
    if form == 3 and out:  # version 3 has no room for siblings beside a reference
        return {"allOf": [reference], **out}
    return {**reference, **out}
