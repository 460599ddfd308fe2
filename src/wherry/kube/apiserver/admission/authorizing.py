"""The authorizer, as expressions ask it: ``authorizer.group('').resource('pods').check('get')``.

Upstream: k8s.io/apiserver/pkg/cel/library/authz.go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wherry.kube.api.cel import CELError, Opaque
from wherry.kube.api.cel.values import Value, no_overload
from wherry.kube.apiserver.request import RequestInfo, User

if TYPE_CHECKING:
    from wherry.kube.apiserver.authz import Authorizer

# ruff: noqa: N802 - methods are named as CEL names them

_SERVICE_ACCOUNT = "system:serviceaccount:"


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise no_overload()
    return str(value)


class Decision(Opaque):
    """What the authorizer says."""

    cel_type = "kubernetes.authorization.Decision"

    def __init__(self, allowed: bool, reason: str = "", error: str = "") -> None:
        self._allowed, self._reason, self._error = allowed, reason, error

    def cel_allowed(self) -> bool:
        return self._allowed

    def cel_reason(self) -> str:
        return self._reason

    def cel_errored(self) -> bool:
        return bool(self._error)

    def cel_error(self) -> str:
        return self._error


class _Asking(Opaque):
    def __init__(self, authorizer: Authorizer, user: User) -> None:
        self._authorizer, self._user = authorizer, user

    def _decide(self, info: RequestInfo) -> Decision:
        return Decision(self._authorizer.allows(self._user, info))


class Path(_Asking):
    cel_type = "kubernetes.authorization.PathCheck"

    def __init__(self, authorizer: Authorizer, user: User, path: str) -> None:
        super().__init__(authorizer, user)
        self._path = path

    def cel_check(self, verb: Value) -> Decision:
        return self._decide(RequestInfo(_text(verb).upper(), self._path, _text(verb)))


class Group(_Asking):
    cel_type = "kubernetes.authorization.GroupCheck"

    def __init__(self, authorizer: Authorizer, user: User, group: str) -> None:
        super().__init__(authorizer, user)
        self._group = group

    def cel_resource(self, name: Value) -> Check:
        info = RequestInfo("", "", "", True, self._group, "*", _text(name))
        return Check(self._authorizer, self._user, info)


class Check(_Asking):
    """A resource, narrowed down step by step."""

    cel_type = "kubernetes.authorization.ResourceCheck"

    def __init__(self, authorizer: Authorizer, user: User, info: RequestInfo) -> None:
        super().__init__(authorizer, user)
        self._info = info

    def _with(self, **changes: str) -> Check:
        return Check(self._authorizer, self._user, replace(self._info, **changes))  # type: ignore[arg-type]

    def cel_subresource(self, name: Value) -> Check:
        return self._with(subresource=_text(name))

    def cel_namespace(self, name: Value) -> Check:
        return self._with(namespace=_text(name))

    def cel_name(self, name: Value) -> Check:
        return self._with(name=_text(name))

    def cel_fieldSelector(self, selector: Value) -> Check:
        _text(selector)  # our authorizers decide without it: for all of them, or for none
        return self

    def cel_labelSelector(self, selector: Value) -> Check:
        _text(selector)
        return self

    def cel_check(self, verb: Value) -> Decision:
        return self._decide(replace(self._info, verb=_text(verb)))


@dataclass(frozen=True)
class Request:
    """The resource a request is about, for ``authorizer.requestResource``."""

    group: str
    plural: str
    subresource: str
    namespace: str
    name: str


class Authorizing(_Asking):
    """The variable ``authorizer``."""

    cel_type = "kubernetes.authorization.Authorizer"

    def __init__(self, authorizer: Authorizer, user: User, request: Request) -> None:
        super().__init__(authorizer, user)
        self._request = request

    def cel_path(self, path: Value) -> Path:
        if not _text(path):
            raise CELError("path must not be empty")
        return Path(self._authorizer, self._user, _text(path))

    def cel_group(self, group: Value) -> Group:
        return Group(self._authorizer, self._user, _text(group))

    def cel_serviceAccount(self, namespace: Value, name: Value) -> Authorizing:
        space, account = _text(namespace), _text(name)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{space}")
        user = User(f"{_SERVICE_ACCOUNT}{space}:{account}", (*groups, "system:authenticated"))
        return Authorizing(self._authorizer, user, self._request)

    def cel_field_requestResource(self) -> Check:
        r = self._request
        info = RequestInfo(
            "", "", "", True, r.group, "*", r.plural, r.subresource, r.namespace, r.name
        )
        return Check(self._authorizer, self._user, info)
