"""The OpenAPI documents of several servers as one. Pure.

Upstream: k8s.io/kube-openapi/pkg/aggregator.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

Document = dict[str, Any]

_V2, _V3 = "#/definitions/", "#/components/schemas/"


def concerns(path: str, group_version: str) -> bool:
    """Whether a path of a document is one of the group version."""
    base = f"/apis/{group_version}"
    return path == f"{base}/" or path == base or path.startswith(f"{base}/")


def merge_v2(ours: Document, theirs: Document, group_version: str) -> Document:
    """Our OpenAPI 2 document with what another one says of a group version.

    A definition that goes by the name of another one of ours gets a number.
    """
    given_paths: Mapping[str, Any] = theirs.get("paths") or {}
    paths = {p: item for p, item in given_paths.items() if concerns(p, group_version)}
    definitions = dict(ours.get("definitions") or {})
    names: dict[str, str] = {}
    wanted = list(_names(paths))
    given: Mapping[str, Any] = theirs.get("definitions") or {}
    while wanted:
        name = wanted.pop()
        if name in names or name not in given:
            continue
        names[name] = _free(name, given[name], definitions)
        wanted += _names(given[name])
    for name, new in names.items():
        if new not in definitions:
            definitions[new] = _renamed(given[name], names)
    merged = {**ours, "definitions": definitions}
    merged["paths"] = {**(ours.get("paths") or {}), **_renamed(paths, names)}
    return merged


def _free(name: str, value: Any, taken: Mapping[str, Any]) -> str:
    if name not in taken or _same(value, taken[name]):
        return name
    number = 2
    while f"{name}_v{number}" in taken:
        number += 1
    return f"{name}_v{number}"


def _same(one: Any, other: Any) -> bool:
    """Whether two definitions are equal but for their prose."""
    return bool(_bare(one) == _bare(other))


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _bare(v) for k, v in value.items() if k != "description"}
    if isinstance(value, list):
        return [_bare(each) for each in value]
    return value


def _names(value: Any) -> Iterator[str]:
    """The definitions that a piece of a document refers to."""
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith(_V2):
            yield reference.removeprefix(_V2)
        for each in value.values():
            yield from _names(each)
    elif isinstance(value, list):
        for each in value:
            yield from _names(each)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        out = {key: _renamed(each, names) for key, each in value.items()}
        reference = out.get("$ref")
        if isinstance(reference, str) and reference.startswith(_V2):
            name = reference.removeprefix(_V2)
            out["$ref"] = _V2 + names.get(name, name)
        return out
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    return value


def v3_of_v2(theirs: Document, group_version: str) -> Document:
    """What an OpenAPI 2 document says of a group version, as OpenAPI 3: for servers without it."""
    paths = theirs.get("paths") or {}
    given: Mapping[str, Any] = theirs.get("definitions") or {}
    kept = {p: item for p, item in paths.items() if concerns(p, group_version)}
    wanted, schemas = list(_names(kept)), {}
    while wanted:
        name = wanted.pop()
        if name not in schemas and name in given:
            schemas[name] = _as_v3(given[name])
            wanted += _names(given[name])
    return {
        "openapi": "3.0.0",
        "info": theirs.get("info") or {"title": "Kubernetes", "version": ""},
        "paths": {path: _path_v3(item) for path, item in kept.items()},
        "components": {"schemas": schemas},
    }


def _as_v3(value: Any) -> Any:
    if isinstance(value, dict):
        out = {key: _as_v3(each) for key, each in value.items()}
        reference = out.get("$ref")
        if isinstance(reference, str) and reference.startswith(_V2):
            out["$ref"] = _V3 + reference.removeprefix(_V2)
        return out
    if isinstance(value, list):
        return [_as_v3(each) for each in value]
    return value


def _path_v3(item: Document) -> Document:
    out: Document = {}
    for key, value in item.items():
        if key == "parameters":
            out[key] = [_parameter_v3(each) for each in value if each.get("in") != "body"]
        elif isinstance(value, dict):
            out[key] = _operation_v3(value)
        else:
            out[key] = value
    return out


def _operation_v3(operation: Document) -> Document:
    out = copy.copy(operation)
    takes = out.pop("consumes", None) or ["application/json"]
    gives = out.pop("produces", None) or ["application/json"]
    out.pop("schemes", None)
    parameters = out.pop("parameters", None) or ()
    plain = [_parameter_v3(each) for each in parameters if each.get("in") != "body"]
    if plain:
        out["parameters"] = plain
    for each in parameters:
        if each.get("in") == "body":
            schema = _as_v3(each.get("schema") or {})
            content = {media: {"schema": schema} for media in takes if media != "*/*"}
            out["requestBody"] = {"content": content or {"*/*": {"schema": schema}}}
    out["responses"] = {
        code: {
            "description": answer.get("description", ""),
            **(
                {"content": {m: {"schema": _as_v3(answer["schema"])} for m in gives}}
                if "schema" in answer
                else {}
            ),
        }
        for code, answer in (out.get("responses") or {}).items()
    }
    return out


def _parameter_v3(parameter: Document) -> Document:
    kept = ("name", "in", "description", "required")
    out = {key: parameter[key] for key in kept if key in parameter}
    schema = {
        key: value
        for key, value in parameter.items()
        if key not in kept and key not in ("collectionFormat",)
    }
    return {**out, "schema": _as_v3(schema)}
