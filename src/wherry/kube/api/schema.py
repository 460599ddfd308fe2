"""The door through which objects come in: their kinds' schemas, and decoding by them.

``decode`` turns the JSON a client sent into an object of its kind as upstream's decoder would:
types are checked, unknown fields dropped and told of, nulls and empty optional lists gone, times
and quantities in canonical form. What a kind demands beyond types is for ``kinds`` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from wherry.kube.api.bodies import parse_json, parse_yaml, unrecognized
from wherry.kube.api.decoding import Mistyped, Step, decoder
from wherry.kube.api.definitions import data_path, definition, definitions, newest_version
from wherry.kube.api.errors import StatusError, bad_request, invalid
from wherry.kube.api.memo import Memo
from wherry.kube.api.names import invalid_value
from wherry.kube.api.resources import BY_KIND, Resource
from wherry.kube.api.scalars import word_for

__all__ = [
    "Decoded",
    "data_path",
    "decode",
    "decode_custom",
    "decode_kind",
    "definition",
    "definitions",
    "newest_version",
    "parse_json",
    "parse_yaml",
    "strict_failure",
]

_SPECS: Memo[bytes] = Memo()
"""Specs as they came, and as they were decoded, where there was nothing to complain of."""

_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_METADATA = Step(None, "metadata", "ObjectMeta")


@dataclass(slots=True)
class Decoded:
    """An object as its kind has it, and the complaints about fields that no such kind has.

    ``unknown`` holds sentences like ``unknown field "spec.foo"``, in the order of the text.
    """

    value: dict[str, Any]
    unknown: list[str] = field(default_factory=list)


def decode(resource: Resource, value: Any, *, patch: str | None = None) -> Decoded:
    """An object of ``resource`` from a JSON value; a new dict, the value is left alone.

    ``patch`` is the text of the patch that the value came out of, if it did: then a wrong type is
    the patch's fault, and told so.

    Raises:
        StatusError: 400, another kind or version, or a field of the wrong type; 422 for the
            latter where it came by a patch.
    """
    return decode_kind(resource.schema, resource.api_version, resource.kind, value, patch=patch)


def decode_custom(
    resource: Resource,
    value: Any,
    prune: Callable[[dict[str, Any], list[str]], dict[str, Any]],
    *,
    patch: str | None = None,
) -> Decoded:
    """As ``decode``, for a custom resource: its metadata is decoded as every object's, the rest by
    ``prune``, which returns a private copy and puts complaints into the list.

    Raises:
        StatusError: as ``decode``.
    """
    api_version, kind = resource.api_version, resource.kind
    if type(value) is not dict:
        raise unrecognized(kind, value)
    given_version = value.get("apiVersion") or api_version
    given_kind = value.get("kind") or kind
    if given_version != api_version or given_kind != kind:
        raise _other_kind(given_version, given_kind, api_version, kind)
    unknown: list[str] = []
    try:
        body = {"apiVersion": api_version, "kind": kind, **prune(value, unknown)}
        metadata = decoder(_OBJECT_META)(value.get("metadata") or {}, _METADATA, unknown)
    except Mistyped as error:
        raise _undecodable(api_version, kind, str(error), patch) from error
    except RecursionError as error:
        raise _undecodable(api_version, kind, "exceeded max depth", patch) from error
    body["metadata"] = metadata
    return Decoded(body, unknown)


def decode_kind(
    schema: str, api_version: str, kind: str, value: Any, *, patch: str | None = None
) -> Decoded:
    """As ``decode``, for what has no resource of its own: Scale, Eviction, DeleteOptions, …

    ``schema`` is the name of the definition. Absent ``apiVersion`` and ``kind`` are filled in.
    """
    if type(value) is not dict:
        raise unrecognized(kind, value)
    given_version = value.get("apiVersion") or api_version
    given_kind = value.get("kind") or kind
    if given_version != api_version or given_kind != kind:
        raise _other_kind(given_version, given_kind, api_version, kind)
    unknown: list[str] = []
    spec = value.get("spec")
    key = Memo.key(schema, spec) if type(spec) is dict else None
    known = _SPECS.get(key)
    try:
        if known is not None:
            decoded = decoder(schema)({**value, "spec": None}, None, unknown)
            decoded["spec"] = orjson.loads(known)
        else:
            decoded = decoder(schema)(value, None, unknown)
            if key is not None and not unknown and "spec" in decoded:
                _SPECS.put(key, orjson.dumps(decoded["spec"]))
    except Mistyped as error:
        raise _undecodable(api_version, kind, str(error), patch) from error
    except RecursionError as error:
        raise _undecodable(api_version, kind, "exceeded max depth", patch) from error
    if "kind" not in decoded or "apiVersion" not in decoded:
        decoded = {"kind": kind, "apiVersion": api_version, **decoded}
    return Decoded(decoded, unknown)


def strict_failure(
    resource: Resource, complaints: Sequence[str], *, patch: str | None = None
) -> StatusError:
    """What ``fieldValidation=Strict`` answers to unknown and doubled fields: 400, or 422 where
    they came by a patch, whose text ``patch`` is.
    """
    why = f"strict decoding error: {', '.join(complaints)}"
    return _undecodable(resource.api_version, resource.kind, why, patch)


def _undecodable(api_version: str, kind: str, why: str, patch: str | None) -> StatusError:
    if patch is None:
        return _cannot_be_handled(kind, api_version, kind, why)
    return invalid("", "", [invalid_value("patch", patch, why)])


def _other_kind(given_version: Any, given_kind: Any, api_version: str, kind: str) -> StatusError:
    if not isinstance(given_version, str) or not isinstance(given_kind, str):
        name, wrong = (
            ("Kind", given_kind)
            if isinstance(given_version, str)
            else ("APIVersion", given_version)
        )
        return unrecognized(kind, {}, _identity_fault(name, wrong))
    if given_version != api_version:
        return bad_request(
            f"the API version in the data ({given_version}) does not match the expected API "
            f"version ({api_version})"
        )
    group, _, version = api_version.rpartition("/")
    if (group, version, given_kind) in BY_KIND:
        internal = group.partition(".")[0] or "core"
        why = f"converting ({version}.{given_kind}) to ({internal}.{kind}): unknown conversion"
    else:
        why = f'no kind "{given_kind}" is registered for version "{api_version}" in scheme "wherry"'
    return _cannot_be_handled(given_kind, api_version, kind, why)


def _identity_fault(name: str, wrong: Any) -> str:
    json_name = "apiVersion" if name == "APIVersion" else "kind"
    return (
        "couldn't get version/kind; json parse error: json: cannot unmarshal "
        f"{word_for(wrong)} into Go struct field .{json_name} of type string"
    )


def _cannot_be_handled(given_kind: str, api_version: str, kind: str, why: str) -> StatusError:
    version = api_version.rpartition("/")[2]
    return bad_request(f'{given_kind} in version "{version}" cannot be handled as a {kind}: {why}')
