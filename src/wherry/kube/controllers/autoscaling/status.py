"""Conditions and the status of an autoscaler. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wherry.kube.client.transport import Object

ABLE, ACTIVE, LIMITED = "AbleToScale", "ScalingActive", "ScalingLimited"


@dataclass(slots=True)
class Status:
    """What is going to be the status; begins as it was."""

    before: Object
    moment: str
    conditions: list[Object] = field(init=False)

    def __post_init__(self) -> None:
        self.conditions = [dict(each) for each in self.before.get("conditions") or ()]

    def say(self, kind: str, holds: bool, reason: str, message: str) -> None:
        """Put a condition in its place; its time is that of the last change to or fro."""
        state = "True" if holds else "False"
        for found in self.conditions:
            if found.get("type") == kind:
                if found.get("status") != state:
                    found["lastTransitionTime"] = self.moment
                found.update(status=state, reason=reason, message=message)
                return
        self.conditions.append(
            {
                "type": kind,
                "status": state,
                "lastTransitionTime": self.moment,
                "reason": reason,
                "message": message,
            }
        )

    def only_said(self) -> Object:
        """The status as it was, with what has been said."""
        return {**self.before, "conditions": self.conditions}

    def made(
        self,
        current: int,
        desired: int | None,
        metrics: Sequence[Object] | None,
        *,
        scaled: bool = False,
    ) -> Object:
        """The status.

        Args:
            desired: None: as before.
            metrics: the statuses of the metrics, in the order of the spec.
        """
        if desired is None:
            desired = self.before.get("desiredReplicas", 0)
        status: Object = {"currentReplicas": current, "desiredReplicas": desired}
        if scaled:
            status["lastScaleTime"] = self.moment
        elif self.before.get("lastScaleTime"):
            status["lastScaleTime"] = self.before["lastScaleTime"]
        status["currentMetrics"] = list(metrics) if metrics else None
        status["conditions"] = self.conditions
        return status


def same(one: Object, other: Object) -> bool:
    """Whether two statuses say the same: nothing, null and an empty list do."""

    def plain(status: Object) -> Object:
        return {name: value for name, value in status.items() if value not in (None, [], {})}

    return plain(one) == plain(other)
