"""The OpenAPI 2 document in protobuf, the only form in which kubectl takes it.

It asks for it to validate what OpenAPI 3 has no path for, like ``kind: List``. The messages are
those of gnostic (github.com/google/gnostic-models/openapiv2, OpenAPIv2.proto); here is the part of
them that our document uses. What has no field of its own (``x-…``) is an extension, as YAML.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import orjson

from wherry.kube.api.openapi import OpenAPI
from wherry.wire.protobuf import field, varint

Document = dict[str, Any]

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
ASKED_FOR = (MEDIA_TYPE, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
"""What clients ask for it by; the second is not well-formed, and so is never answered with."""

_FIELDS: dict[str, dict[str, tuple[int, str]]] = {
    "Document": {
        "swagger": (1, "string"),
        "info": (2, "Info"),
        "paths": (8, "Paths"),
        "definitions": (9, "Definitions"),
        "security": (12, "[SecurityRequirement]"),
        "securityDefinitions": (13, "SecurityDefinitions"),
    },
    "Info": {"title": (1, "string"), "version": (2, "string")},
    "PathItem": {
        "get": (2, "Operation"),
        "put": (3, "Operation"),
        "post": (4, "Operation"),
        "delete": (5, "Operation"),
        "options": (6, "Operation"),
        "head": (7, "Operation"),
        "patch": (8, "Operation"),
        "parameters": (9, "[ParametersItem]"),
    },
    "Operation": {
        "tags": (1, "[string]"),
        "description": (3, "string"),
        "operationId": (5, "string"),
        "produces": (6, "[string]"),
        "consumes": (7, "[string]"),
        "parameters": (8, "[ParametersItem]"),
        "responses": (9, "Responses"),
        "schemes": (10, "[string]"),
    },
    "BodyParameter": {
        "description": (1, "string"),
        "name": (2, "string"),
        "in": (3, "string"),
        "required": (4, "bool"),
        "schema": (5, "Schema"),
    },
    "QueryParameter": {
        "required": (1, "bool"),
        "in": (2, "string"),
        "description": (3, "string"),
        "name": (4, "string"),
        "type": (6, "string"),
        "uniqueItems": (20, "bool"),
    },
    "PathParameter": {
        "required": (1, "bool"),
        "in": (2, "string"),
        "description": (3, "string"),
        "name": (4, "string"),
        "type": (5, "string"),
        "uniqueItems": (19, "bool"),
    },
    "Response": {"description": (1, "string"), "schema": (2, "SchemaItem")},
    "Schema": {
        "$ref": (1, "string"),
        "format": (2, "string"),
        "title": (3, "string"),
        "description": (4, "string"),
        "multipleOf": (6, "double"),
        "maximum": (7, "double"),
        "exclusiveMaximum": (8, "bool"),
        "minimum": (9, "double"),
        "exclusiveMinimum": (10, "bool"),
        "maxLength": (11, "int"),
        "minLength": (12, "int"),
        "pattern": (13, "string"),
        "maxItems": (14, "int"),
        "minItems": (15, "int"),
        "uniqueItems": (16, "bool"),
        "maxProperties": (17, "int"),
        "minProperties": (18, "int"),
        "required": (19, "[string]"),
        "enum": (20, "[yaml]"),
        "additionalProperties": (21, "AdditionalPropertiesItem"),
        "type": (22, "TypeItem"),
        "items": (23, "ItemsItem"),
        "properties": (25, "Properties"),
    },
    "ApiKeySecurity": {
        "type": (1, "string"),
        "name": (2, "string"),
        "in": (3, "string"),
        "description": (4, "string"),
    },
}
_EXTENSIONS = {"Operation": 13, "Schema": 31}

# Messages that map names to values: the number of their entries, and what a value is.
_NAMED = {
    "Paths": (2, "PathItem"),
    "Definitions": (1, "Schema"),
    "Properties": (1, "Schema"),
    "Responses": (1, "ResponseValue"),
    "SecurityDefinitions": (1, "SecurityDefinitionsItem"),
    "SecurityRequirement": (1, "StringArray"),
}

# Messages around one other: its number, and what it is.
_WRAPPED = {
    "ResponseValue": (1, "Response"),
    "SchemaItem": (1, "Schema"),
    "AdditionalPropertiesItem": (1, "Schema"),
    "ItemsItem": (1, "Schema"),
    "TypeItem": (1, "string"),
    "SecurityDefinitionsItem": (2, "ApiKeySecurity"),
}


@lru_cache(1)
def v2_gzip(document: OpenAPI) -> bytes:
    """The document, encoded and compressed; that of the last one asked for is kept."""
    return gzip_of(document.v2_document())


def gzip_of(document: Document) -> bytes:
    """A document that is no more than a value, encoded and compressed."""
    import gzip

    return gzip.compress(encode("Document", document), 6)


def encode(message: str, value: Any) -> bytes:
    """``value``, a part of the document, as the message of that name."""
    if message in _NAMED:
        number, held = _NAMED[message]
        return b"".join(
            field(number, field(1, name.encode()) + field(2, encode(held, each)))
            for name, each in value.items()
        )
    if message in _WRAPPED:
        number, held = _WRAPPED[message]
        return _field(number, held, value)
    if message == "StringArray":
        return _field(1, "[string]", value)
    if message == "ParametersItem":
        return field(1, _parameter(value))
    return b"".join(_fields(message, value))


def _fields(message: str, value: Document) -> Iterable[bytes]:
    known = _FIELDS[message]
    for name, each in value.items():
        if name in known:
            number, type = known[name]
            yield _field(number, type, each)
        elif name.startswith("x-"):
            yaml = field(2, orjson.dumps(each))  # JSON is YAML
            yield field(_EXTENSIONS[message], field(1, name.encode()) + field(2, yaml))
        # What an aggregated server says beyond that has no place here.


def _parameter(value: Document) -> bytes:
    """A parameter: in the body (1), or else (2) in the query (3) or the path (4)."""
    match value["in"]:
        case "body":
            return field(1, encode("BodyParameter", value))
        case "query":
            return field(2, field(3, encode("QueryParameter", value)))
    return field(2, field(4, encode("PathParameter", value)))


def _field(number: int, type: str, value: Any) -> bytes:
    if type.startswith("["):
        return b"".join(_field(number, type[1:-1], each) for each in value)
    if type == "string":
        return field(number, value.encode())
    if type == "bool":
        return varint(number << 3) + (b"\x01" if value else b"\x00")
    if type == "int":
        return varint(number << 3) + varint(value & (1 << 64) - 1)
    if type == "double":
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if type == "yaml":
        return field(number, field(2, orjson.dumps(value)))  # JSON is YAML
    return field(number, encode(type, value))
