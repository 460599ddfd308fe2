"""ClusterRoles that gather the rules of others, by their labels.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import CLUSTER_ROLES
from wherry.kube.api.selectors import labels_from_object
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller

_AGGREGATES = "aggregates"


def gathered(role: Object, others: Iterable[Object]) -> list[Any]:
    """The rules that ``role`` is to have: those of the roles each of its selectors selects, by
    name, each rule once.

    Of a selected role that gathers itself, those that it is to have: so what is written does not
    depend on who was first, and roles that select each other keep nothing alive among them.
    """
    named = sorted(others, key=meta.name)
    rules: list[Any] = []
    visited = {meta.name(role)}

    def gather(gathering: Object) -> None:
        for selector in (gathering.get("aggregationRule") or {}).get("clusterRoleSelectors") or ():
            selected = labels_from_object(selector)
            for other in named:
                if meta.name(other) in visited or not selected.matches(meta.labels(other)):
                    continue
                visited.add(meta.name(other))
                if other.get("aggregationRule"):
                    gather(other)
                else:
                    rules.extend(rule for rule in other.get("rules") or () if rule not in rules)

    gather(role)
    return rules


class ClusterRoleAggregationController(Controller):
    """Keys are aggregating roles. Any change of a role may concern each of them; they are few."""

    name = "clusterrole-aggregation-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.roles = self.watch(CLUSTER_ROLES)
        self.roles.add_indexer(
            _AGGREGATES, lambda role: (_AGGREGATES,) if role.get("aggregationRule") else ()
        )
        self.roles.add_handlers(
            on_add=self._changed,
            on_update=lambda _, role: self._changed(role),
            on_delete=self._changed,
        )

    def _changed(self, role: Object) -> None:
        for aggregating in self.roles.by_index(_AGGREGATES, _AGGREGATES):
            self.enqueue(aggregating)

    async def sync(self, key: str) -> None:
        role = self.roles.get(None, key)
        if role is None or not role.get("aggregationRule"):
            return
        rules = gathered(role, self.roles.list())
        if rules == (role.get("rules") or []):
            return
        try:
            await self.seen(
                CLUSTER_ROLES, await self.client.update(CLUSTER_ROLES, {**role, "rules": rules})
            )
        except StatusError as error:
            if error.code != 404:
                raise
