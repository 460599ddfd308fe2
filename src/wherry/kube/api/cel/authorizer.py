"""The authorizer, as expressions ask it: ``authorizer.group('').resource('pods').check('get')``.

Who brings the variable gives a function that decides; here is only what the question becomes.
Upstream: k8s.io/apiserver/pkg/cel/library/authz.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from wherry.kube.api.cel.values import CELError, Opaque, Value, no_overload

# ruff: noqa: N802 - methods are named as CEL names them


class Question(NamedTuple):
    """May the user of the request (or a service account, as (namespace, name)) do this?
    ``path`` is set for what is no resource."""

    verb: str = ""
    account: tuple[str, str] | None = None
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


class Verdict(NamedTuple):
    allowed: bool
    reason: str = ""
    error: str = ""


Decide = Callable[[Question], Verdict]


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise no_overload()
    return str(value)


class Decision(Opaque):
    """What the authorizer says."""

    cel_type = "kubernetes.authorization.Decision"

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict

    def cel_allowed(self) -> bool:
        return self._verdict.allowed

    def cel_reason(self) -> str:
        return self._verdict.reason

    def cel_errored(self) -> bool:
        return bool(self._verdict.error)

    def cel_error(self) -> str:
        return self._verdict.error


class _Asking(Opaque):
    def __init__(self, decide: Decide, question: Question) -> None:
        self._decide, self._question = decide, question

    def cel_check(self, verb: Value) -> Decision:
        return Decision(self._decide(self._question._replace(verb=_text(verb))))


class PathCheck(_Asking):
    cel_type = "kubernetes.authorization.PathCheck"


class ResourceCheck(_Asking):
    """A resource, narrowed down step by step. Selectors narrow nothing: our authorizers allow a
    request with one just as that without."""

    cel_type = "kubernetes.authorization.ResourceCheck"

    def cel_subresource(self, name: Value) -> ResourceCheck:
        return ResourceCheck(self._decide, self._question._replace(subresource=_text(name)))

    def cel_namespace(self, name: Value) -> ResourceCheck:
        return ResourceCheck(self._decide, self._question._replace(namespace=_text(name)))

    def cel_name(self, name: Value) -> ResourceCheck:
        return ResourceCheck(self._decide, self._question._replace(name=_text(name)))

    def cel_fieldSelector(self, selector: Value) -> ResourceCheck:
        _text(selector)
        return self

    def cel_labelSelector(self, selector: Value) -> ResourceCheck:
        _text(selector)
        return self


class GroupCheck(Opaque):
    cel_type = "kubernetes.authorization.GroupCheck"

    def __init__(self, decide: Decide, question: Question) -> None:
        self._decide, self._question = decide, question

    def cel_resource(self, name: Value) -> ResourceCheck:
        return ResourceCheck(self._decide, self._question._replace(resource=_text(name)))


class Authorizer(Opaque):
    """The variable ``authorizer``; ``request``: the resource that the request is about."""

    cel_type = "kubernetes.authorization.Authorizer"

    def __init__(
        self, decide: Decide, request: Question, account: tuple[str, str] | None = None
    ) -> None:
        self._decide, self._request, self._account = decide, request, account

    def cel_path(self, path: Value) -> PathCheck:
        if not _text(path):
            raise CELError("path must not be empty")
        return PathCheck(self._decide, Question(account=self._account, path=_text(path)))

    def cel_group(self, group: Value) -> GroupCheck:
        return GroupCheck(self._decide, Question(account=self._account, group=_text(group)))

    def cel_serviceAccount(self, namespace: Value, name: Value) -> Authorizer:
        return Authorizer(self._decide, self._request, (_text(namespace), _text(name)))

    def cel_field_requestResource(self) -> ResourceCheck:
        return ResourceCheck(self._decide, self._request._replace(account=self._account))
