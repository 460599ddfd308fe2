"""What a Deployment reports: counts, and the conditions ``kubectl rollout status`` waits for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from wherry.kube.api import conditions, meta
from wherry.kube.client.transport import Object
from wherry.kube.controllers.deployment import rolling

_NO_DEADLINE = 2**31 - 1


def condition(type: str, status: str, reason: str, message: str, now: datetime) -> Object:
    moment = meta.format_time(now)
    return {
        "type": type,
        "status": status,
        "lastUpdateTime": moment,
        "lastTransitionTime": moment,
        "reason": reason,
        "message": message,
    }


def deadline(deployment: Object) -> int | None:
    """Seconds a rollout may stand still, or None for ever."""
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return None if seconds is None or seconds == _NO_DEADLINE else int(seconds)


def counts(deployment: Object, new: Object | None, everything: Sequence[Object]) -> Object:
    """The status but for its conditions; zeros are left out, as in upstream's JSON."""

    def total(field: str, of: Sequence[Object] = everything) -> int:
        return sum((rs.get("status") or {}).get(field) or 0 for rs in of)

    available = total("availableReplicas")
    old = deployment.get("status") or {}
    fields = {
        "observedGeneration": meta.generation(deployment),
        "replicas": total("replicas"),
        "updatedReplicas": total("replicas", (new,) if new is not None else ()),
        "readyReplicas": total("readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, rolling.total(everything) - available),
        "collisionCount": old.get("collisionCount") or 0,
    }
    result: Object = {field: count for field, count in fields.items() if count}
    if all("terminatingReplicas" in (rs.get("status") or {}) for rs in everything):
        result["terminatingReplicas"] = total("terminatingReplicas")
    return result


def with_availability(
    deployment: Object, status: Object, kept: Sequence[Object], now: datetime
) -> list[Object]:
    """The conditions with Available as ``status`` has it."""
    least = rolling.size(deployment) - rolling.limits(deployment)[1]
    if status.get("availableReplicas", 0) >= least:
        new = condition(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
            now,
        )
    else:
        new = condition(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            now,
        )
    return conditions.put(kept, new)


def is_complete(deployment: Object, status: Object) -> bool:
    """Whether every pod is of the new revision and available."""
    wanted = rolling.size(deployment)
    fields = ("replicas", "updatedReplicas", "availableReplicas")
    if any(status.get(field, 0) != wanted for field in fields):
        return False
    return int(status.get("observedGeneration", 0)) >= meta.generation(deployment)


def _progresses(old: Object, new: Object) -> bool:
    def outdated(status: Object) -> int:
        return int(status.get("replicas", 0) - status.get("updatedReplicas", 0))

    return outdated(new) < outdated(old) or any(
        new.get(field, 0) > old.get(field, 0)
        for field in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )


def _is_overdue(deployment: Object, progressing: Object, now: datetime) -> bool:
    if progressing["reason"] == "NewReplicaSetAvailable":
        return False
    if progressing["reason"] == "ProgressDeadlineExceeded":
        return True
    seconds = deadline(deployment)
    since = meta.parse_time(progressing["lastUpdateTime"])
    return seconds is not None and since + timedelta(seconds=seconds) < now


def with_progress(
    deployment: Object, new_set: Object | None, status: Object, kept: list[Object], now: datetime
) -> list[Object]:
    """The conditions with Progressing as the step from the last status to ``status`` shows it."""
    if deadline(deployment) is None:
        return conditions.without(kept, "Progressing")
    current = conditions.find(kept, "Progressing")
    done = current is not None and current["reason"] == "NewReplicaSetAvailable"
    if done and status.get("replicas", 0) == status.get("updatedReplicas", 0):
        return kept  # complete before; what happens since is scaling or pods that fail
    if new_set is not None:
        subject = f'ReplicaSet "{meta.name(new_set)}"'
    else:
        subject = f'Deployment "{meta.name(deployment)}"'
    if is_complete(deployment, status):
        message = f"{subject} has successfully progressed."
        new = condition("Progressing", "True", "NewReplicaSetAvailable", message, now)
        return conditions.put(kept, new)
    if _progresses(deployment.get("status") or {}, status):
        message = f"{subject} is progressing."
        new = condition("Progressing", "True", "ReplicaSetUpdated", message, now)
        if current is not None and current["status"] == "True":
            new["lastTransitionTime"] = current["lastTransitionTime"]
        return [*conditions.without(kept, "Progressing"), new]
    if current is not None and _is_overdue(deployment, current, now):
        message = f"{subject} has timed out progressing."
        new = condition("Progressing", "False", "ProgressDeadlineExceeded", message, now)
        return conditions.put(kept, new)
    return kept


def with_failures(
    new_set: Object | None, everything: Sequence[Object], kept: list[Object]
) -> list[Object]:
    """The conditions with the new ReplicaSet's failure to make pods, or else another's."""
    first = (new_set,) if new_set is not None else ()
    for rs in (*first, *everything):
        failed = conditions.find((rs.get("status") or {}).get("conditions") or (), "ReplicaFailure")
        if failed is not None:
            failure = {**failed, "lastUpdateTime": failed.get("lastTransitionTime")}
            return conditions.put(kept, failure)
    return conditions.without(kept, "ReplicaFailure")


def with_pause(deployment: Object, kept: list[Object], now: datetime) -> list[Object]:
    """The conditions with Progressing unknown while paused, so that a pause is no time-out."""
    if deadline(deployment) is None:
        return kept
    current = conditions.find(kept, "Progressing")
    reason = current["reason"] if current is not None else ""
    if reason == "ProgressDeadlineExceeded":
        return kept
    paused = bool(deployment["spec"].get("paused"))
    if paused and reason != "DeploymentPaused":
        new = condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now)
        return conditions.put(kept, new)
    if not paused and reason == "DeploymentPaused":
        new = condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", now)
        return conditions.put(kept, new)
    return kept


def next_check(deployment: Object, status: Object, now: datetime) -> float | None:
    """Seconds until the deadline must be looked at, or None if it need not be."""
    seconds = deadline(deployment)
    current = conditions.find(status.get("conditions") or (), "Progressing")
    if seconds is None or current is None or is_complete(deployment, status):
        return None
    if current["reason"] in ("ProgressDeadlineExceeded", "NewReplicaSetAvailable"):
        return None
    due = meta.parse_time(current["lastUpdateTime"]) + timedelta(seconds=seconds + 1)
    return max(1.0, (due - now).total_seconds())
