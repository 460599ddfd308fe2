"""Which pods to make or remove, and what to report: pure functions.

Behaviour follows kube-controller-manager's replicaset controller
(https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/).
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from wherry.kube.api import conditions, meta, pods
from wherry.kube.client.transport import Object

BURST = 500
"""The most pods made or removed in one go."""

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: make ``create`` pods, or remove those of ``delete``."""

    create: int
    delete: Sequence[Object]


def replicas_of(owner: Object) -> int:
    """How many are wanted."""
    return int(owner["spec"].get("replicas", 1))


def plan(
    owner: Object,
    owned: Sequence[Object],
    related: Sequence[Object],
    removed: Collection[str],
    now: datetime,
) -> Plan:
    """What brings ``owned``, the owner's pods, to the number wanted.

    ``removed`` holds uids of pods whose deletion was asked for and has not shown yet; ``related``
    are the pods of all replica sets beside this one (of one Deployment), itself included.
    """
    active = [pod for pod in owned if pods.is_active(pod) and meta.uid(pod) not in removed]
    missing = replicas_of(owner) - len(active)
    if missing >= 0:
        return Plan(min(missing, BURST), ())
    surplus = min(-missing, BURST)
    return Plan(0, deletion_order(active, related, now)[:surplus])


def deletion_order(
    active: Sequence[Object], related: Sequence[Object], now: datetime
) -> list[Object]:
    """The pods, the one that is missed least first.

    In this order: not assigned to a node; pending, then unknown; not ready; lower deletion cost;
    on a node with more of the related pods; ready for less time; more restarts; younger. Times
    count on a logarithmic scale, so that among pods of about one age the choice is arbitrary.
    """
    crowd = Counter(_node(pod) for pod in related if pods.is_active(pod))
    compare = functools.partial(_compare, crowd, now)
    return sorted(active, key=functools.cmp_to_key(compare))


def _compare(crowd: Counter[str], now: datetime, a: Object, b: Object) -> int:
    node_a, node_b = _node(a), _node(b)
    if bool(node_a) != bool(node_b):
        return -1 if not node_a else 1
    phases = _PHASES.get(pods.phase(a), 0) - _PHASES.get(pods.phase(b), 0)
    if phases:
        return phases
    ready_a, ready_b = pods.is_ready(a), pods.is_ready(b)
    if ready_a != ready_b:
        return -1 if not ready_a else 1
    costs = deletion_cost(a) - deletion_cost(b)
    if costs:
        return costs
    crowded = crowd[node_b] - crowd[node_a] if node_a else 0
    if crowded:
        return crowded
    if ready_a:
        ages = _compare_ages(pods.ready_since(a), pods.ready_since(b), a, b, now)
        if ages:
            return ages
    restarts = pods.restarts(b) - pods.restarts(a)
    if restarts:
        return restarts
    return _compare_ages(meta.creation_time(a), meta.creation_time(b), a, b, now)


def _compare_ages(
    since_a: datetime | None, since_b: datetime | None, a: Object, b: Object, now: datetime
) -> int:
    """Younger first; of one age class in an arbitrary order that is always the same."""
    if since_a == since_b:
        return 0
    if since_a is None or since_b is None:
        return -1 if since_a is None else 1
    ranks = _age_class(since_a, now) - _age_class(since_b, now)
    if ranks:
        return ranks
    return -1 if meta.uid(a) < meta.uid(b) else 1


def _age_class(since: datetime, now: datetime) -> int:
    nanoseconds = (now - since).total_seconds() * 1e9
    return int(math.log2(nanoseconds)) if nanoseconds >= 1 else -1


def _node(pod: Object) -> str:
    return pod["spec"].get("nodeName") or ""


def deletion_cost(pod: Object) -> int:
    """The cost from the annotation; a text that is no 32-bit number counts as 0."""
    text = meta.annotations(pod).get(DELETION_COST, "0")
    digits = text[1:] if text.startswith("-") else text
    if not digits.isascii() or not digits.isdigit() or (digits[0] == "0" and len(digits) > 1):
        return 0
    cost = int(text)
    return cost if -(2**31) <= cost < 2**31 else 0


def status(
    owner: Object,
    owned: Sequence[Object],
    removed: Collection[str],
    failure: tuple[str, str] | None,
    now: datetime,
    *,
    terminating: bool = True,
) -> Object:
    """The owner's status. ``removed`` as for ``plan``: those pods no longer count.

    ``failure`` is the reason (FailedCreate, FailedDelete) and the message of what went wrong just
    now; ``terminating`` says whether the kind reports terminating pods.
    """
    spec, old = owner["spec"], owner.get("status") or {}
    active = [pod for pod in owned if pods.is_active(pod) and meta.uid(pod) not in removed]
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    min_ready = spec.get("minReadySeconds") or 0
    ready = [pod for pod in active if pods.is_ready(pod)]
    counts = {
        "fullyLabeledReplicas": sum(labels.items() <= meta.labels(pod).items() for pod in active),
        "readyReplicas": len(ready),
        "availableReplicas": sum(pods.available_in(pod, min_ready, now) == 0 for pod in ready),
        "observedGeneration": meta.generation(owner),
    }
    result: Object = {"replicas": len(active)}
    result.update((field, count) for field, count in counts.items() if count)
    if terminating:
        result["terminatingReplicas"] = sum(
            pods.is_terminating(pod) or (pods.is_active(pod) and meta.uid(pod) in removed)
            for pod in owned
        )
    kept = list(old.get("conditions") or ())
    failed = conditions.find(kept, "ReplicaFailure")
    if failure is not None and failed is None:
        reason, message = failure
        kept.append(
            {
                "type": "ReplicaFailure",
                "status": "True",
                "lastTransitionTime": meta.format_time(now),
                "reason": reason,
                "message": message,
            }
        )
    elif failure is None and failed is not None:
        kept = conditions.without(kept, "ReplicaFailure")
    if kept:
        result["conditions"] = kept
    return result


def next_available(owner: Object, owned: Sequence[Object], now: datetime) -> float | None:
    """Seconds until the next pod, ready but not for long enough, counts as available."""
    min_ready = owner["spec"].get("minReadySeconds") or 0
    if not min_ready:
        return None
    waits = (pods.available_in(pod, min_ready, now) for pod in owned if pods.is_active(pod))
    return min((wait for wait in waits if wait), default=None)
