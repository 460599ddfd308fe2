"""What a request asks for, read off its method, path and query; before anything else is known.

Upstream: k8s.io/apiserver/pkg/endpoints/request, RequestInfoFactory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from wherry.kube.api.catalogue import STATIC, Served
from wherry.kube.api.errors import StatusError
from wherry.kube.api.kinds import Kind
from wherry.kube.api.resources import Resource
from wherry.kube.api.selectors import parse_fields

_VERBS = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
READS = frozenset(("get", "list", "watch"))
"""Verbs that change nothing."""

_SELECTING = frozenset(("list", "watch", "deletecollection"))
_TRUE = frozenset(("", "1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


class Query:
    """The query parameters, in order; a name may repeat. Immutable."""

    __slots__ = ("_all", "_first")

    def __init__(self, pairs: tuple[tuple[str, str], ...]) -> None:
        self._all = pairs
        self._first: dict[str, str] = {}
        for name, value in pairs:
            self._first.setdefault(name, value)

    def get(self, name: str) -> str:
        """The first value, "" where there is none."""
        return self._first.get(name, "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._all if key == name]

    def flag(self, name: str) -> bool:
        """A boolean as upstream converts it: present and not false is true."""
        value = self._first.get(name)
        return value is not None and value not in _FALSE

    def has(self, name: str) -> bool:
        return name in self._first

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._all)


NO_QUERY = Query(())


@lru_cache(2048)
def parse_query(text: str) -> Query:
    """The parameters behind the ``?`` of a request line."""
    if not text:
        return NO_QUERY
    return Query(tuple(parse_qsl(text, keep_blank_values=True, errors="replace")))


@dataclass(frozen=True, slots=True)
class User:
    """Who asks.

    ``extra`` is what else the authenticator found out (the pod a token is bound to, which
    credential it was). It is no part of who somebody is: users that differ in it alone are equal.
    """

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """A request for a resource, or (``is_resource`` false) for some other path.

    ``verb`` is the API's word: get, list, watch, create, update, patch, delete, deletecollection;
    for other paths the HTTP method in lower case. ``group``, ``version``, ``plural`` are as the
    path has them, whether served or not. The selectors are those of the query, where the verb is
    one for many objects.
    """

    method: str
    path: str
    verb: str
    is_resource: bool = False
    group: str = ""
    version: str = ""
    plural: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    rest: str = ""
    resource: Resource | None = field(default=None, compare=False)
    field_selector: str = ""
    label_selector: str = ""

    @property
    def served(self) -> Resource:
        """The resource in the table.

        Raises:
            StatusError: 404, there is none.
        """
        if self.resource is None:
            raise no_such_path()
        return self.resource


def no_such_path() -> StatusError:
    """404 where it is the path, not an object, that does not exist."""
    return StatusError(
        404, "NotFound", "the server could not find the requested resource", details={}
    )


def parse_request(method: str, path: str, query: Query, served: Served = STATIC) -> RequestInfo:
    """What a request is about. ``path`` is as sent, percent-encoded, without the query."""
    selected = ""
    fields, labels = query.get("fieldSelector"), query.get("labelSelector")
    if fields:
        try:  # a selector on one name is about that object, also for authorisation
            selected = parse_fields(fields).exact("metadata.name") or ""
        except StatusError:
            selected = ""  # refused later, in its own words
    info = _parse(served, method, path, query.flag("watch"), selected)
    if (fields or labels) and info.verb in _SELECTING:
        return replace(info, field_selector=fields, label_selector=labels)
    return info


@lru_cache(8192)
def _parse(served: Served, method: str, path: str, watch: bool, selected: str) -> RequestInfo:
    parts = [unquote(part) for part in path.split("/") if part]
    other = RequestInfo(method, "/" + "/".join(parts), method.lower())
    own = parts[: _own_parts(parts)]
    if any(part in (".", "..") or "/" in part or "\0" in part for part in own):
        return other
    match parts:
        case ["api", version, first, *rest]:
            group = ""
        case ["apis", group, version, first, *rest]:
            pass
        case _:
            return other
    verb = _VERBS.get(method, "")
    segments = [first, *rest]
    old_form = False
    if segments[0] in ("watch", "proxy"):  # the old forms: /api/v1/watch/pods
        if len(segments) < 2 or segments[0] == "proxy":
            return other
        old_form = True
        del segments[0]
    namespace = ""
    if segments[0] == "namespaces" and len(segments) > 1:
        namespace = segments[1]
        # /namespaces/{name}, /namespaces/{name}/status and /finalize are about the namespace
        if len(segments) > 2 and segments[2] not in ("status", "finalize"):
            del segments[:2]
    plural, name, subresource = (*segments, "", "", "")[:3]
    if old_form and verb != "get":
        verb = ""  # nothing is written there
    if verb == "get" and not subresource:
        if old_form or (watch and not name):  # by a name in the path an object is read, as it is
            verb, name = "watch", name or selected
        elif not name:
            verb, name = "list", selected
    elif verb == "delete" and not name:
        verb = "deletecollection"
    resource = served.resource(group, version, plural)
    if resource is not None and not _shaped(resource, namespace, name, subresource, verb, selected):
        resource = None
    return RequestInfo(
        method,
        other.path,
        verb,
        True,
        group,
        version,
        plural,
        subresource,
        namespace,
        name,
        "/".join(segments[3:]),
        resource,
    )


def _own_parts(parts: list[str]) -> int:
    """How many segments of a path are the API's: what follows ``…/proxy`` is another server's."""
    match parts[2:7]:
        case ["namespaces", _, "pods" | "services", _, "proxy"]:
            return 7
        case ["nodes", _, "proxy", *_]:
            return 5
    return len(parts)


def _shaped(
    resource: Resource, namespace: str, name: str, subresource: str, verb: str, selected: str
) -> bool:
    """Whether the path is one this resource has."""
    if subresource and subresource not in resource.subresources:
        return False
    if not resource.namespaced:
        return not namespace or resource.plural == "namespaces"
    if namespace:
        return True
    return verb in ("list", "watch", "create", "deletecollection") and (
        not name or name == selected
    )


@dataclass(slots=True)
class Body:
    """What the client sent: bytes of a media type, or (``decoded``) a value already at hand."""

    content_type: str = ""
    data: bytes = b""
    value: Any = None
    decoded: bool = False

    @property
    def empty(self) -> bool:
        return self.value is None if self.decoded else not self.data


@dataclass(slots=True)
class APIRequest:
    """A request on its way through the chain: who asks for what, with which body.

    ``warnings`` collects what the answer's Warning headers will say, ``annotations`` what admission
    tells the audit log. ``version`` is the kind in the version that the client speaks, where that
    is not the one its objects are stored in: ``info`` then names the stored one.
    """

    info: RequestInfo
    user: User
    query: Query
    body: Body
    user_agent: str = ""
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    version: Kind | None = None
