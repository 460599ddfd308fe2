"""The API as one controller's account: what its default role does not allow is refused, as on a
server, and remembered, so that a test fails even where the controller would only try again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache

from wherry.kube.api import errors
from wherry.kube.api.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
)
from wherry.kube.apiserver.authz.defaults import objects
from wherry.kube.apiserver.authz.rules import Rule, rules_of
from wherry.kube.apiserver.request import RequestInfo, parse_query, parse_request
from wherry.kube.client.transport import Object, Query, Transport


@cache
def _rules(account: str) -> tuple[tuple[str, Rule], ...]:
    """What the account may, by namespace (everywhere where that is empty)."""
    roles: dict[tuple[str, str], Object] = {}
    bindings: list[Object] = []
    for resource, found in objects():
        namespace = found["metadata"].get("namespace", "")
        if resource in (CLUSTER_ROLES, ROLES):
            roles[namespace, found["metadata"]["name"]] = found
        elif resource in (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS):
            bindings.append(found)

    def granted() -> Iterator[tuple[str, Rule]]:
        for binding in bindings:
            namespace = binding["metadata"].get("namespace", "")
            for subject in binding.get("subjects") or ():
                mine = subject["kind"] == "ServiceAccount" and subject["name"] == account
                if mine or subject["name"] in ("system:authenticated", "system:serviceaccounts"):
                    reference = binding["roleRef"]
                    where = namespace if reference["kind"] == "Role" else ""
                    for rule in rules_of(roles[where, reference["name"]]):
                        yield namespace, rule

    return tuple(granted())


class AsAccount:
    """``inner``, as the ServiceAccount of that name in kube-system."""

    def __init__(self, inner: Transport, account: str, refused: list[str]) -> None:
        self._inner = inner
        self._account = account
        self._refused = refused

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: object = None,
        content_type: str = "application/json",
    ) -> Object:
        info = parse_request(method, path, parse_query(""))
        if info.is_resource and not self._may(info):
            where = f"{info.plural}.{info.group}" if info.group else info.plural
            where += f"/{info.subresource}" if info.subresource else ""
            self._refused.append(f"{self._account} may not {info.verb} {where}")
            raise errors.StatusError(403, "Forbidden", self._refused[-1])
        return await self._inner.request(
            method, path, query=query, body=body, content_type=content_type
        )

    def watch(self, path: str, query: Query = ()) -> AsyncIterator[tuple[str, Object]]:
        return self._inner.watch(path, query)

    def _may(self, info: RequestInfo) -> bool:
        return any(
            rule.allows(info)
            for namespace, rule in _rules(self._account)
            if namespace in ("", info.namespace)
        )
