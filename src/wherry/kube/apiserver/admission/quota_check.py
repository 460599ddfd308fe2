"""Whether there is room in quotas for a write, and what it is charged: decided without waiting.

Upstream: CheckRequest in k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.kube.api import amounts
from wherry.kube.api.amounts import Amounts
from wherry.kube.api.quantity import ZERO
from wherry.kube.api.quota import reservations, scopes, usage
from wherry.kube.api.quota.reservations import Reservation
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.objects import Object, Stored


class Account:
    """A quota while writes are charged to it."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        status = stored.object.get("status") or {}
        self.name: str = stored.object["metadata"]["name"]
        self.hard = amounts.read(status.get("hard"))
        self.used = amounts.read(status.get("used"))
        self.noted = reservations.read(stored.object)
        self.changed = False

    def charge(self, uid: str, reservation: Reservation) -> None:
        amounts.add(self.used, reservation.used)
        self.noted[uid] = reservation
        self.changed = True

    def give_back(self, uid: str) -> bool:
        """Whether there was a charge for that uid; it is given back."""
        noted = self.noted.pop(uid, None)
        if noted is None:
            return False
        self.used = reservations.without(self.used, noted.used)
        self.changed = True
        return True

    def forget(self, uids: Iterable[str]) -> None:
        """Reservations that are needed no more."""
        for uid in uids:
            self.noted.pop(uid, None)

    def object(self) -> Object:
        """The quota as it is to be stored."""
        quota = reservations.write(self.stored.object, self.noted)
        status = {**(quota.get("status") or {}), "used": amounts.write(self.used)}
        return {**quota, "status": status}


@dataclass(frozen=True, slots=True)
class Limited:
    """What may only be used where a quota covers it (``limitedResources`` of the plugin's
    configuration): words in the names of resources, and scopes, for each group and resource."""

    rules: tuple[tuple[str, str, tuple[str, ...], tuple[scopes.Requirement, ...]], ...] = ()

    @classmethod
    def read(cls, configuration: Any) -> Limited:
        given = configuration.get("limitedResources") if isinstance(configuration, dict) else None
        return cls(
            tuple(
                (
                    str(rule.get("apiGroup", "")),
                    str(rule.get("resource", "")),
                    tuple(rule.get("matchContains") or ()),
                    tuple(rule.get("matchScopes") or ()),
                )
                for rule in given or ()
            )
        )

    def __bool__(self) -> bool:
        return bool(self.rules)

    def names(self, resource: Resource, used: Mapping[str, Any]) -> set[str]:
        """Which of ``used`` need a quota."""
        words = [
            word
            for group, plural, contains, _ in self.rules
            if (group, plural) == (resource.group, resource.plural)
            for word in contains
        ]
        return {n for n, amount in used.items() if amount > ZERO and any(w in n for w in words)}

    def scopes(self, resource: Resource, o: Object) -> list[scopes.Requirement]:
        """The scopes the object is in that need a quota."""
        return [
            each
            for _, _, _, required in self.rules
            for each in required
            if scopes.meets(resource, o, each)
        ]


def concerns(quota: Object, resource: Resource, o: Object) -> bool:
    """Whether the quota is about the object."""
    hard = (quota.get("status") or {}).get("hard") or ()
    return bool(usage.matching(resource, hard)) and usage.in_scope(resource, o, quota)


def charges(
    attributes: Attributes, accounts: Sequence[Account], limited: Limited, now: float
) -> list[tuple[Account, Amounts]]:
    """What the write is charged to which quotas.

    Raises:
        StatusError: 403, one has no room, or needs to know more.
    """
    resource, o = attributes.resource, attributes.new
    concerned: list[Account] = []
    covered: set[str] = set()
    in_scopes: list[scopes.Requirement] = []
    for account in accounts:
        quota = account.stored.object
        required = scopes.requirements(quota)
        in_scopes += [each for each in required if scopes.meets(resource, o, each)]
        names = usage.matching(resource, account.hard)
        if not names or not usage.in_scope(resource, o, quota):
            continue
        if resource.kind == "Pod" and (why := usage.missing(names, o)):
            raise attributes.forbidden(f"failed quota: {account.name}: {why}")
        if any(name not in account.used for name in names):
            raise attributes.forbidden(
                f"status unknown for quota: {account.name}, resources: {','.join(names)}"
            )
        concerned.append(account)
        covered.update(names)
    used = usage.of(resource, o, now)
    negative = sorted(name for name, amount in used.items() if amount < ZERO)
    if negative:
        raise attributes.forbidden(f"quota usage is negative for resource(s): {','.join(negative)}")
    before = {} if attributes.old is None else usage.of(resource, attributes.old, now)
    growth = amounts.growth(used, before)
    if not growth:
        return []
    _check_covered(attributes, limited, used, covered, in_scopes)
    found = [(account, amounts.masked(growth, account.hard)) for account in concerned]
    for account, charge in found:
        _check_room(attributes, account, charge)
    return [(account, charge) for account, charge in found if charge]


def _check_covered(
    attributes: Attributes,
    limited: Limited,
    used: Amounts,
    covered: set[str],
    in_scopes: list[scopes.Requirement],
) -> None:
    if not limited:
        return
    bare = limited.names(attributes.resource, used) - covered
    if bare:
        raise attributes.forbidden(f"insufficient quota to consume: {','.join(sorted(bare))}")
    open_scopes = scopes.uncovered(limited.scopes(attributes.resource, attributes.new), in_scopes)
    if open_scopes:
        told = " ".join(
            f"{{{s['scopeName']} {s.get('operator', '')} [{' '.join(s.get('values') or ())}]}}"
            for s in open_scopes
        )
        raise attributes.forbidden(f"insufficient quota to match these scopes: [{told}]")


def _check_room(attributes: Attributes, account: Account, charge: Amounts) -> None:
    over = sorted(
        name
        for name, amount in charge.items()
        if account.used.get(name, ZERO) + amount > account.hard[name]
    )
    if over:
        raise attributes.forbidden(
            f"exceeded quota: {account.name}, requested: {_told(charge, over)}, "
            f"used: {_told(account.used, over)}, limited: {_told(account.hard, over)}"
        )


def _told(resources: Amounts, names: Iterable[str]) -> str:
    return ",".join(f"{name}={resources[name]}" for name in names if name in resources)
