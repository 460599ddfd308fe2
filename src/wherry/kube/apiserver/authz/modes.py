"""The authorizers that need no knowledge."""

from __future__ import annotations

from wherry.kube.apiserver.authz.decision import ALLOWED, Decision
from wherry.kube.apiserver.authz.rules import EVERYTHING, Rule
from wherry.kube.apiserver.request import RequestInfo, User


class AlwaysAllow:
    """Everybody may everything."""

    def decide(self, user: User, info: RequestInfo) -> Decision:
        return ALLOWED

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        return list(EVERYTHING), []

    def incomplete(self, user: User) -> bool:
        return False


class AlwaysDeny:
    """Nobody may anything, but for the group ``system:masters``."""

    def decide(self, user: User, info: RequestInfo) -> Decision:
        return Decision(reason="Everything is forbidden.")

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        return [], []

    def incomplete(self, user: User) -> bool:
        return False
