"""One step of a Job: which pods to make, to remove, to count; what to report. Pure functions.

Behaviour follows kube-controller-manager's job controller
(https://kubernetes.io/docs/concepts/workloads/controllers/job/).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from wherry.kube.api import conditions, meta, pods
from wherry.kube.client.transport import Object
from wherry.kube.controllers.job import indexes
from wherry.kube.controllers.job.pod import (
    ended_at,
    failure_count,
    has_failed,
    has_succeeded,
    index_of,
    is_indexed,
    is_tracked,
    make_indexed_pod,
    make_pod,
    replaces_failed_only,
)
from wherry.kube.controllers.job.policies import meaning, success_rule
from wherry.kube.controllers.replicas.plan import deletion_order

BURST: Final = 500
"""The most pods made, removed or counted in one go."""

_FIRST_BACKOFF: Final = 10.0  # seconds until a failed pod is replaced, doubled by each failure
_LONGEST_BACKOFF: Final = 600.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Failures since the last success, and when the last one was."""

    failures: int = 0
    last: datetime | None = None

    def wait(self, now: datetime) -> float:
        """Seconds for which no pod is to be made."""
        if not self.failures or self.last is None:
            return 0.0
        delay = min(_FIRST_BACKOFF * (1 << min(self.failures - 1, 30)), _LONGEST_BACKOFF)
        return max(0.0, delay - (now - self.last).total_seconds())


@dataclass(slots=True)
class Plan:
    """What is to be done now."""

    create: list[Object] = field(default_factory=list)
    withdraw: list[Object] = field(default_factory=list)
    """Pods to remove that are not to count as failed: their finalizer goes first."""
    delete: list[Object] = field(default_factory=list)
    release: list[Object] = field(default_factory=list)
    """Pods to take the finalizer from once the status is stored."""
    status: Object = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)
    check_after: float | None = None
    """Seconds until time alone calls for another look."""

    def look_again(self, seconds: float) -> None:
        if self.check_after is None or seconds < self.check_after:
            self.check_after = seconds


def condition(status: Object, type: str) -> Object | None:
    """The condition of that type, where it is true."""
    found = conditions.find(status.get("conditions") or (), type)
    return found if found is not None and found.get("status") == "True" else None


def is_finished(job: Object) -> bool:
    """Whether the Job has come to its end, good or bad."""
    status = job.get("status") or {}
    return bool(condition(status, "Complete") or condition(status, "Failed"))


class _View:
    """The Job's pods, sorted by what they are to it."""

    def __init__(
        self,
        job: Object,
        owned: Sequence[Object],
        removed: Collection[str],
        backoff: Backoff,
        now: datetime,
    ) -> None:
        self.job, self.spec, self.now = job, job["spec"], now
        self.old: Object = job.get("status") or {}
        self.indexed = is_indexed(job)
        self.per_index: int | None = self.spec.get("backoffLimitPerIndex")
        self.completions: int | None = self.spec.get("completions")
        uncounted = self.old.get("uncountedTerminatedPods") or {}
        self.noted_good = set(uncounted.get("succeeded") or ())
        self.noted_bad = set(uncounted.get("failed") or ())
        self.owned = owned
        self.active = [p for p in owned if pods.is_active(p) and meta.uid(p) not in removed]
        self.terminating = [
            p
            for p in owned
            if not pods.is_finished(p) and (meta.is_deleting(p) or meta.uid(p) in removed)
        ]
        self.tracked = [p for p in owned if is_tracked(p) and self._is_in_range(p)]
        self.good = [p for p in self.tracked if has_succeeded(p)]
        self.bad = [p for p in self.tracked if has_failed(job, p)]
        self.new_good = [p for p in self.good if meta.uid(p) not in self.noted_good]
        self.new_bad = [p for p in self.bad if meta.uid(p) not in self.noted_bad]
        self.failed = self.old.get("failed", 0) + len(self.noted_bad)
        self.failed += sum(meaning(job, p).counts for p in self.new_bad)
        if self.indexed:
            limit = self.completions or 0
            self.done = indexes.parse(self.old.get("completedIndexes") or "", limit)
            self.done |= {i for p in self.good if (i := index_of(p)) is not None}
            self.succeeded = len(self.done)
        else:
            self.succeeded = self.old.get("succeeded", 0) + len(self.noted_good)
            self.succeeded += len(self.new_good)
        self.last_failed = self._last_failed_by_index()
        self.lost = self._lost_indexes()
        self.backoff = self._renewed(backoff)

    def _is_in_range(self, pod: Object) -> bool:
        if not self.indexed:
            return True
        index = index_of(pod)
        return index is not None and index < (self.completions or 0)

    def _last_failed_by_index(self) -> dict[int, Object]:
        """Of each index that has a failed pod, the one that failed last."""
        result: dict[int, Object] = {}
        if self.per_index is None:
            return result
        for pod in self.bad:
            index = index_of(pod)
            assert index is not None
            before = result.get(index)
            if before is None or failure_count(before) <= failure_count(pod):
                result[index] = pod
        return result

    def _lost_indexes(self) -> set[int]:
        """The indexes that have failed for good."""
        if self.per_index is None:
            return set()
        lost = indexes.parse(self.old.get("failedIndexes") or "", self.completions)
        for index, pod in self.last_failed.items():
            said = meaning(self.job, pod)
            if said.fails_index or (said.counts and failure_count(pod) >= self.per_index):
                lost.add(index)
        return lost - self.done

    def _renewed(self, backoff: Backoff) -> Backoff:
        """The back-off once the pods that ended meanwhile are taken into it, in their order."""
        ends = [(ended_at(p, self.now), True) for p in self.new_good if self._is_news(p)]
        ends += [(ended_at(p, self.now), False) for p in self.new_bad if self._is_news(p)]
        for moment, good in sorted(ends):
            backoff = Backoff(0, None) if good else Backoff(backoff.failures + 1, moment)
        return backoff

    def _is_news(self, pod: Object) -> bool:
        uid = meta.uid(pod)
        return uid not in self.noted_good and uid not in self.noted_bad


def plan(
    job: Object,
    owned: Sequence[Object],
    removed: Collection[str],
    backoff: Backoff,
    now: datetime,
) -> Plan:
    """The next step.

    Args:
        job: the Job.
        owned: its pods.
        removed: uids of pods whose deletion was asked for and has not shown yet.
        backoff: of the last step whose status was stored.
        now: the present.
    """
    view = _View(job, owned, removed, backoff, now)
    step = Plan(backoff=view.backoff)
    if is_finished(job) or meta.is_deleting(job):
        step.release = [pod for pod in owned if is_tracked(pod) and not pods.is_active(pod)]
        step.status = view.old
        if meta.is_deleting(job):
            step.release = [pod for pod in owned if is_tracked(pod)]
        return step
    status: Object = {key: value for key, value in view.old.items() if key in _KEPT}
    suspended = bool(job["spec"].get("suspend"))
    if not suspended and not status.get("startTime"):
        status["startTime"] = meta.format_time(now)
    verdict = _verdict(view, status, step)
    if verdict is None:
        _manage(view, step, suspended)
        _tell_suspended(view, status, suspended, now)
    else:
        status["conditions"] = conditions.put(status.get("conditions") or (), verdict)
        step.delete = view.active
    _count(view, status, step, verdict["type"] if verdict is not None else "")
    if verdict is not None and not view.terminating and not view.active:
        _finish(view, status, verdict, now)
    step.status = status
    return step


_KEPT: Final = frozenset(("startTime", "conditions"))


def _verdict(view: _View, status: Object, step: Plan) -> Object | None:
    """The condition that says that the Job is about to end and why; None while it goes on."""
    for type in ("FailureTarget", "SuccessCriteriaMet"):
        found = condition(status, type)
        if found is not None:
            return found
    spec, now = view.spec, view.now
    for pod in view.new_bad:
        message = meaning(view.job, pod).fails_job
        if message:
            return _condition("FailureTarget", "PodFailurePolicy", message, now)
    limit = spec.get("backoffLimit", 6)
    if view.failed > limit or _restarted_too_often(view, limit):
        message = "Job has reached the specified backoff limit"
        return _condition("FailureTarget", "BackoffLimitExceeded", message, now)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and status.get("startTime") and not spec.get("suspend"):
        left = deadline - (now - meta.parse_time(status["startTime"])).total_seconds()
        if left <= 0:
            message = "Job was active longer than specified deadline"
            return _condition("FailureTarget", "DeadlineExceeded", message, now)
        step.look_again(left)
    if view.per_index is not None:
        most = spec.get("maxFailedIndexes")
        if most is not None and len(view.lost) > most:
            message = "Job has exceeded the specified maximal number of failed indexes"
            return _condition("FailureTarget", "MaxFailedIndexesExceeded", message, now)
        if view.lost and len(view.lost) + len(view.done) >= (view.completions or 0):
            return _condition("FailureTarget", "FailedIndexes", "Job has failed indexes", now)
    if view.indexed:
        rule = success_rule(view.job, view.done)
        if rule is not None:
            message = f"Matched rules at index {rule}"
            return _condition("SuccessCriteriaMet", "SuccessPolicy", message, now)
    if view.completions is None:
        complete = view.succeeded > 0 and not view.active
    else:
        complete = view.succeeded >= view.completions and not view.active
    if complete:
        message = "Reached expected number of succeeded pods"
        return _condition("SuccessCriteriaMet", "CompletionsReached", message, now)
    return None


def _condition(type: str, reason: str, message: str, now: datetime, value: str = "True") -> Object:
    moment = meta.format_time(now)
    return {
        "type": type,
        "status": value,
        "lastProbeTime": moment,
        "lastTransitionTime": moment,
        "reason": reason,
        "message": message,
    }


def _restarted_too_often(view: _View, limit: int) -> bool:
    """Where pods restart their containers themselves, the restarts are what is limited."""
    if view.spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = 0
    for pod in view.active:
        if pods.phase(pod) in ("Running", "Pending"):
            found = pod.get("status") or {}
            for part in ("initContainerStatuses", "containerStatuses"):
                restarts += sum(s.get("restartCount", 0) for s in found.get(part) or ())
    return restarts > 0 if limit == 0 else restarts >= limit


def _manage(view: _View, step: Plan, suspended: bool) -> None:
    """Bring the number of active pods to what is wanted."""
    spec = view.spec
    if suspended:
        step.withdraw = view.active[:BURST]
        return
    parallelism = spec.get("parallelism", 1)
    if view.completions is None:
        wanted = min(len(view.active), parallelism) if view.succeeded else parallelism
    else:
        wanted = max(0, min(view.completions - view.succeeded, parallelism))
    surplus = _surplus(view, max(0, len(view.active) - wanted))
    if surplus:
        step.withdraw = surplus[:BURST]
        return
    missing = wanted - len(view.active)
    if replaces_failed_only(view.job):
        missing -= len(view.terminating)
    if missing <= 0:
        return
    if view.per_index is not None:
        _create_by_index(view, step, min(missing, BURST))
        return
    wait = view.backoff.wait(view.now)
    if wait > 0:
        step.look_again(wait)
        return
    missing = min(missing, BURST)
    if view.indexed:
        for index in _pending(view)[:missing]:
            step.create.append(make_indexed_pod(view.job, index, None, True))
    else:
        step.create = [make_pod(view.job)] * missing


def _surplus(view: _View, at_least: int) -> list[Object]:
    """The active pods that shall go: those without a place of their own, then the least missed."""
    chosen: list[Object] = []
    rest = list(view.active)
    if view.indexed:
        rest = []
        taken: set[int] = set()
        for pod in sorted(view.active, key=_by_age):
            index = index_of(pod)
            if index is None or index >= (view.completions or 0) or index in taken:
                chosen.append(pod)
            else:
                taken.add(index)
                rest.append(pod)
    if len(chosen) < at_least:
        chosen += deletion_order(rest, rest, view.now)[: at_least - len(chosen)]
    return chosen


def _by_age(pod: Object) -> tuple[bool, str]:
    """Pods that are ready first, then the older."""
    return not pods.is_ready(pod), pod["metadata"].get("creationTimestamp") or ""


def _pending(view: _View) -> list[int]:
    """The indexes that have no pod and still need one, lowest first."""
    occupied = {index_of(pod) for pod in view.active}
    if replaces_failed_only(view.job):
        occupied |= {index_of(pod) for pod in view.terminating}
    free = range(view.completions or 0)
    return [n for n in free if n not in occupied and n not in view.done and n not in view.lost]


def _create_by_index(view: _View, step: Plan, most: int) -> None:
    """Make pods for indexes, each after the delay that its own failures ask for."""
    for index in _pending(view):
        if len(step.create) >= most:
            return
        failed = view.last_failed.get(index)
        if failed is None:
            step.create.append(make_indexed_pod(view.job, index, None, True))
            continue
        wait = Backoff(failure_count(failed) + 1, ended_at(failed, view.now)).wait(view.now)
        if wait > 0:
            step.look_again(wait)
            continue
        counts = meaning(view.job, failed).counts
        step.create.append(make_indexed_pod(view.job, index, failed, counts))


def _tell_suspended(view: _View, status: Object, suspended: bool, now: datetime) -> None:
    present = status.get("conditions") or []
    if suspended:
        if condition(status, "Suspended") is None:
            new = _condition("Suspended", "JobSuspended", "Job suspended", now)
            status["conditions"] = conditions.put(present, new)
        status.pop("startTime", None)
    elif condition(status, "Suspended") is not None:
        new = _condition("Suspended", "JobResumed", "Job resumed", now, "False")
        status["conditions"] = conditions.put(present, new)
        status["startTime"] = meta.format_time(now)


def _count(view: _View, status: Object, step: Plan, ending: str) -> None:
    """Write down which pods have ended; those written down before are counted once released.

    ``ending`` is the type of the condition under which the Job is about to end, or empty: where it
    fails, a pod on its way out counts as failed, whatever it will say.
    """
    tracked = {meta.uid(pod) for pod in view.owned if is_tracked(pod)}
    good = view.noted_good & tracked
    bad = view.noted_bad & tracked
    failed = view.old.get("failed", 0) + len(view.noted_bad - tracked)
    succeeded = view.old.get("succeeded", 0) + len(view.noted_good - tracked)
    kept = _kept_for_their_count(view)
    done = indexes.parse(view.old.get("completedIndexes") or "", view.completions)
    for pod in view.owned:
        if not is_tracked(pod):
            continue
        if len(good) + len(bad) >= BURST:
            step.look_again(0.0)
            break
        uid, index = meta.uid(pod), index_of(pod)
        in_range = not view.indexed or (index is not None and index < (view.completions or 0))
        if has_succeeded(pod):
            if view.indexed and index is not None and in_range:
                done.add(index)
            elif not view.indexed:
                good.add(uid)
        elif has_failed(view.job, pod) or (ending == "FailureTarget" and meta.is_deleting(pod)):
            if not ending and kept.get(index) == uid:
                continue
            if in_range and uid not in bad and meaning(view.job, pod).counts:
                bad.add(uid)
        else:
            continue
        step.release.append(pod)
    if view.indexed:
        succeeded = len(done)
        if done:
            status["completedIndexes"] = indexes.format(done)
        if view.per_index is not None:
            status["failedIndexes"] = indexes.format(view.lost)
    uncounted = {}
    if good:
        uncounted["succeeded"] = sorted(good)
    if bad:
        uncounted["failed"] = sorted(bad)
    status["uncountedTerminatedPods"] = uncounted
    counts = {
        "active": len(view.active),
        "succeeded": succeeded,
        "failed": failed,
    }
    status.update((name, count) for name, count in counts.items() if count)
    status["ready"] = sum(pods.is_ready(pod) for pod in view.active)
    status["terminating"] = len(view.terminating)


def _kept_for_their_count(view: _View) -> dict[int | None, str]:
    """Failed pods that stay until their successor has taken over the count of their index."""
    waiting = set(_pending(view)) if view.per_index is not None else set()
    return {n: meta.uid(pod) for n, pod in view.last_failed.items() if n in waiting}


def _finish(view: _View, status: Object, verdict: Object, now: datetime) -> None:
    """All pods have ended: once all are counted, the Job has."""
    if status.get("uncountedTerminatedPods"):
        return
    good = verdict["type"] == "SuccessCriteriaMet"
    reason, message = verdict.get("reason", ""), verdict.get("message", "")
    final = _condition("Complete" if good else "Failed", reason, message, now)
    status["conditions"] = conditions.put(status.get("conditions") or (), final)
    if good:
        status["completionTime"] = meta.format_time(now)


def expires_in(job: Object, now: datetime) -> float | None:
    """Seconds until a finished Job is to be removed; None where it is to stay."""
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    status = job.get("status") or {}
    final = condition(status, "Complete") or condition(status, "Failed")
    if ttl is None or final is None or meta.is_deleting(job):
        return None
    finished = meta.parse_time(final["lastTransitionTime"]) + timedelta(seconds=ttl)
    return max(0.0, (finished - now).total_seconds())
