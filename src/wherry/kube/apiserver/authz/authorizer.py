"""The authorizers of a server, asked in turn; and what is said to who is refused.

The first that allows or denies decides; where none does, the request is refused with all their
reasons. The group ``system:masters`` is never asked. Upstream: k8s.io/apiserver/pkg/authorization.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from wherry.kube.api.errors import StatusError, forbidden
from wherry.kube.api.names import quoted
from wherry.kube.apiserver.authn.users import MASTERS
from wherry.kube.apiserver.authz.decision import ALLOWED, NO_OPINION, Decision
from wherry.kube.apiserver.authz.rbac import RBAC, aggregate
from wherry.kube.apiserver.authz.rules import Rule
from wherry.kube.apiserver.request import RequestInfo, User


class Source(Protocol):
    """One way to decide. ``rules_for`` gives what holds for a user in a namespace, and errors;
    ``incomplete``: it can allow more than its rules say."""

    def decide(self, user: User, info: RequestInfo) -> Decision: ...

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]: ...

    def incomplete(self, user: User) -> bool: ...


@runtime_checkable
class Remote(Protocol):
    """A source that asks elsewhere; its ``decide`` knows only what it was told before."""

    async def ask(self, user: User, info: RequestInfo) -> Decision: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """The rules that hold for a user in a namespace, as far as they can be listed."""

    rules: list[Rule]
    incomplete: bool
    error: str


class Authorizer:
    """Asks ``sources`` in turn. ``rbac`` resolves roles for the checks against escalation."""

    def __init__(self, sources: Sequence[Source], rbac: RBAC) -> None:
        self._sources = tuple(sources)
        self._remote = any(isinstance(source, Remote) for source in self._sources)
        self.rbac = rbac

    async def authorize(self, user: User, info: RequestInfo) -> Decision:
        """Whether ``user`` may do that, and why."""
        if not self._remote or MASTERS in user.groups:
            return self.decide(user, info)
        heard: list[Decision] = []
        for source in self._sources:
            if isinstance(source, Remote):
                decision = await source.ask(user, info)
            else:
                decision = source.decide(user, info)
            if decision.allowed or decision.denied:
                return decision
            heard.append(decision)
        return _together(heard)

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """The same at once: of what is asked elsewhere, only what is remembered counts."""
        if MASTERS in user.groups:
            return ALLOWED
        heard: list[Decision] = []
        for source in self._sources:
            decision = source.decide(user, info)
            if decision.allowed or decision.denied:
                return decision
            if decision is not NO_OPINION:
                heard.append(decision)
        return _together(heard) if heard else NO_OPINION

    def allows(self, user: User, info: RequestInfo) -> bool:
        """What `decide` says, in a word."""
        return self.decide(user, info).allowed

    async def check(self, user: User, info: RequestInfo) -> None:
        """Raises StatusError 403 where ``user`` may not."""
        decision = await self.authorize(user, info)
        if not decision.allowed:
            raise refusal(user, info, decision.reason)

    def rules_for(self, user: User, namespace: str) -> Resolved:
        """What ``user`` may in a namespace, as rules."""
        rules: list[Rule] = []
        errors: list[str] = []
        incomplete = False
        for source in self._sources:
            found, failed = source.rules_for(user, namespace)
            rules += found
            errors += failed
            incomplete = incomplete or source.incomplete(user)
        return Resolved(rules, incomplete, aggregate(errors) if errors else "")

    async def close(self) -> None:
        for source in self._sources:
            if isinstance(source, Remote):
                await source.close()


def _together(heard: Sequence[Decision]) -> Decision:
    errors = [decision.error for decision in heard if decision.error]
    return Decision(
        reason="\n".join(decision.reason for decision in heard if decision.reason),
        error=aggregate(errors) if errors else "",
    )


_SANITIZED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def refusal(user: User, info: RequestInfo, reason: str = "") -> StatusError:
    """403, saying who may not do what, and why where that is known."""
    if info.is_resource:
        resource = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
        if info.namespace:
            where = f"in the namespace {quoted(info.namespace)}"
        else:
            where = "at the cluster scope"
        text = (
            f"User {quoted(user.name)} cannot {info.verb} resource {quoted(resource)} in API group "
            f"{quoted(info.group)} {where}"
        )
    else:
        text = f"User {quoted(user.name)} cannot {info.verb} path {quoted(info.path)}"
    text = text.translate(_SANITIZED)
    if reason:
        text = f"{text}: {reason}"
    if not info.is_resource:
        return StatusError(403, "Forbidden", f"forbidden: {text}", details={})
    return forbidden(info.plural, info.name, text, info.group)
