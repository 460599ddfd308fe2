"""A service of the user's decides: it is sent a SubjectAccessReview and answers with its status.

Where it cannot be reached there is no opinion, and the next authorizer is asked.
https://kubernetes.io/docs/reference/access-authn-authz/webhook/; upstream:
k8s.io/apiserver/plugin/pkg/authorizer/webhook.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from wherry.kube.api.errors import StatusError
from wherry.kube.api.selectors import parse_fields, parse_labels
from wherry.kube.apiserver.authz.decision import NO_OPINION, Decision
from wherry.kube.apiserver.authz.rules import Rule
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import RequestInfo, User
from wherry.kube.client.https import from_kubeconfig
from wherry.kube.client.transport import Transport

log = logging.getLogger(__name__)

_GROUP = "authorization.k8s.io"
_REMEMBERED = 8192  # answers kept at most,
_LONGEST = 10_000  # of questions no longer than this, in bytes
_BACKOFF = (0.5, 0.75, 1.125, 1.6875)  # seconds between attempts
_RETRIED = frozenset((429, 500, 502, 503, 504))
_UNKNOWN = "webhook authorizer does not support user rule resolution"


class Webhook:
    """Asks the server of ``kubeconfig``, in ``version`` (v1 or v1beta1) of the group.

    Raises:
        ValueError: the version is no such; OSError: the file cannot be read.
    """

    def __init__(
        self,
        kubeconfig: Path,
        version: str = "v1",
        *,
        authorized_ttl: float,
        unauthorized_ttl: float,
        backoff: tuple[float, ...] = _BACKOFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if version not in ("v1", "v1beta1"):
            raise ValueError(
                f'unsupported webhook authorizer version "{version}", supported versions are '
                '"v1", "v1beta1"'
            )
        self._transport: Transport = from_kubeconfig(kubeconfig)
        self._version = version
        self._ttl = {True: authorized_ttl, False: unauthorized_ttl}
        self._backoff = backoff
        self._clock = clock
        self._remembered: dict[bytes, tuple[float, Decision]] = {}

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """What it has said before, if it is still worth something."""
        return self._recall(orjson.dumps(self._spec(user, info))) or NO_OPINION

    async def ask(self, user: User, info: RequestInfo) -> Decision:
        spec = self._spec(user, info)
        key = orjson.dumps(spec)
        known = self._recall(key)
        if known is not None:
            return known
        review = {
            "apiVersion": f"{_GROUP}/{self._version}",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": spec,
        }
        try:
            answer = await self._post(review)
            decision = _decision(answer.get("status") or {})
        except (ConnectionError, StatusError, ValueError, TypeError, AttributeError) as error:
            log.warning("the authorization webhook did not answer: %s", error)
            return Decision(error=str(error))
        self._remember(key, decision)
        return decision

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        return [], [_UNKNOWN]

    def incomplete(self, user: User) -> bool:
        return True

    async def close(self) -> None:
        await self._transport.close()

    async def _post(self, review: Object) -> Object:
        for pause in (*self._backoff, None):
            try:
                return await self._transport.request("POST", "", body=review)
            except (ConnectionError, StatusError) as error:
                if pause is None or (isinstance(error, StatusError) and error.code not in _RETRIED):
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _recall(self, key: bytes) -> Decision | None:
        found = self._remembered.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            del self._remembered[key]
            return None
        return found[1]

    def _remember(self, key: bytes, decision: Decision) -> None:
        ttl = self._ttl[decision.allowed]
        if ttl <= 0 or len(key) > _LONGEST:
            return
        if len(self._remembered) >= _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[key] = (self._clock() + ttl, decision)

    def _spec(self, user: User, info: RequestInfo) -> Object:
        spec: Object = {"user": user.name}
        if user.groups:
            spec["groups" if self._version == "v1" else "group"] = list(user.groups)
        if user.uid:
            spec["uid"] = user.uid
        if user.extra:
            spec["extra"] = {key: list(values) for key, values in user.extra.items()}
        if not info.is_resource:
            spec["nonResourceAttributes"] = {"path": info.path, "verb": info.verb}
            return spec
        attributes: Object = {
            "namespace": info.namespace,
            "verb": info.verb,
            "group": info.group,
            "version": info.version,
            "resource": info.plural,
            "subresource": info.subresource,
            "name": info.name,
        }
        spec["resourceAttributes"] = {key: value for key, value in attributes.items() if value}
        if self._version == "v1":
            spec["resourceAttributes"].update(_selectors(info))
        return spec


def _selectors(info: RequestInfo) -> Object:
    """The selectors of a request, as the requirements a review has."""
    found: Object = {}
    try:
        if info.field_selector:
            found["fieldSelector"] = {
                "requirements": [
                    {
                        "key": term.field,
                        "operator": "NotIn" if term.negated else "In",
                        "values": [term.value],
                    }
                    for term in parse_fields(info.field_selector).terms
                ]
            }
        if info.label_selector:
            requirements = []
            for requirement in parse_labels(info.label_selector).requirements:
                operator = _OPERATORS.get(requirement.operator)
                if operator is not None:  # gt and lt have no word here: the wider request is asked
                    shown: Object = {"key": requirement.key, "operator": operator}
                    if requirement.values:
                        shown["values"] = list(requirement.values)
                    requirements.append(shown)
            if requirements:
                found["labelSelector"] = {"requirements": requirements}
    except StatusError:
        pass  # a selector that is none restricts nothing, and is refused later
    return found


_OPERATORS = {
    "in": "In",
    "=": "In",
    "==": "In",
    "notin": "NotIn",
    "!=": "NotIn",
    "exists": "Exists",
    "!": "DoesNotExist",
}


def _decision(status: Object) -> Decision:
    allowed, denied = bool(status.get("allowed")), bool(status.get("denied"))
    reason = str(status.get("reason") or "")
    if allowed and denied:
        why = "webhook subject access review returned both allow and deny response"
        return Decision(denied=True, reason=reason, error=why)
    return Decision(allowed, denied, reason)
