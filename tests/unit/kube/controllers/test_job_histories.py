"""A Job's promises over random histories: pods end well or badly, are deleted by strangers, time
passes, the Job is suspended and resumed, and its controller dies between any two of its writes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_job import NOW, job

from wherry.kube.api import meta, pods
from wherry.kube.client.transport import Object
from wherry.kube.controllers.job import indexes
from wherry.kube.controllers.job.plan import Backoff, condition, is_finished, plan
from wherry.kube.controllers.job.pod import FINALIZER, failure_count, index_of, is_tracked

EVERYTHING = 4  # the writes of a step: pods made and removed, status, pods released


class Model:
    def __init__(self, spec: Object) -> None:
        self.job = job(**spec)
        del self.job["status"]
        if spec.get("completions") is None:
            del self.job["spec"]["completions"]
        self.pods: dict[str, Object] = {}
        self.backoff = Backoff()
        self.now = NOW
        self.made = 0
        self.good: set[str] = set()
        """Pods that succeeded before anybody let go of them."""
        self.bad: set[str] = set()
        self.failures = 0
        """In a row."""
        self.last_failure: datetime | None = None

    # -- actors

    def change(self, **spec: Any) -> None:
        self.job = {**self.job, "spec": {**self.job["spec"], **spec}}

    def step(self, writes: int = EVERYTHING) -> bool:
        """One turn of the controller; it dies after so many writes."""
        before = self.job.get("status"), dict(self.pods)
        found = plan(self.job, list(self.pods.values()), (), self.backoff, self.now)
        if writes > 0:
            self._act(found)
        if writes > 1:
            if found.create or found.withdraw or found.delete:
                found = plan(self.job, list(self.pods.values()), (), self.backoff, self.now)
            self._report(found.status)
            self.backoff = found.backoff
        if writes > 2:
            for gone in found.release[: None if writes >= EVERYTHING else 1]:
                self._untrack(meta.uid(gone))
        if writes < EVERYTHING:
            self.backoff = Backoff()  # it was only remembered
        return before != (self.job.get("status"), self.pods)

    def _act(self, found: Any) -> None:
        if found.create and not self.per_index and self.backoff.failures:
            assert self.backoff.wait(self.now) == 0, "failed pods are replaced later and later"
        for gone in found.withdraw:
            self._untrack(meta.uid(gone))
        for gone in (*found.withdraw, *found.delete):
            self.delete(meta.uid(gone))
        for body in found.create:
            self.made += 1
            uid = f"p{self.made:04}"
            metadata = {**body["metadata"], "name": uid, "uid": uid}
            metadata["creationTimestamp"] = meta.format_time(self.now)
            self.pods[uid] = {**body, "metadata": metadata, "status": {"phase": "Pending"}}
        self._check_pods(found)

    def _report(self, status: Object) -> None:
        old = self.job.get("status") or {}
        for type in ("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"):
            assert condition(old, type) is None or condition(status, type) is not None
        assert not (condition(status, "Complete") and condition(status, "Failed"))
        assert not (condition(status, "SuccessCriteriaMet") and condition(status, "FailureTarget"))
        assert status.get("failed", 0) >= old.get("failed", 0)
        assert status.get("succeeded", 0) >= old.get("succeeded", 0)
        if is_finished({"status": status}):
            assert not status.get("uncountedTerminatedPods")
            assert not [p for p in self.pods.values() if pods.is_active(p)]
        self.job = {**self.job, "status": status}

    def _untrack(self, uid: str) -> None:
        if uid in self.pods:
            found = self.pods[uid]
            kept = [f for f in meta.finalizers(found) if f != FINALIZER]
            self.pods[uid] = {**found, "metadata": {**found["metadata"], "finalizers": kept}}
            self._maybe_gone(uid)

    def delete(self, uid: str) -> None:
        found = self.pods[uid]
        if meta.is_deleting(found):
            return
        metadata = {**found["metadata"], "deletionTimestamp": meta.format_time(self.now)}
        self.pods[uid] = {**found, "metadata": metadata}
        self._maybe_gone(uid)

    def _maybe_gone(self, uid: str) -> None:
        found = self.pods[uid]
        if meta.is_deleting(found) and pods.is_finished(found) and not is_tracked(found):
            del self.pods[uid]

    def end(self, uid: str, how: str) -> None:
        """The kubelet: the pod runs, or ends."""
        found = self.pods[uid]
        if pods.is_finished(found):
            return
        if how == "Running" and not meta.is_deleting(found):
            self.pods[uid] = {**found, "status": {"phase": "Running"}}
            return
        if how == "Running":
            how = "Failed"
        code = 0 if how == "Succeeded" else 1
        ended = {"terminated": {"exitCode": code, "finishedAt": meta.format_time(self.now)}}
        statuses = [{"name": "c", "state": ended}]
        self.pods[uid] = {**found, "status": {"phase": how, "containerStatuses": statuses}}
        if is_tracked(found):
            (self.good if how == "Succeeded" else self.bad).add(uid)
        self._maybe_gone(uid)

    # -- what must hold

    @property
    def per_index(self) -> bool:
        return self.job["spec"].get("backoffLimitPerIndex") is not None

    def _check_pods(self, found: Any) -> None:
        spec = self.job["spec"]
        active = [p for p in self.pods.values() if pods.is_active(p)]
        if spec.get("suspend") or is_finished(self.job):
            assert not found.create
            return
        if found.create or found.withdraw:
            assert not (found.create and found.withdraw)
            assert len(active) <= spec["parallelism"]
            if spec["podReplacementPolicy"] == "Failed":
                leaving = [p for p in self.pods.values() if pods.is_terminating(p)]
                assert not found.create or len(active) + len(leaving) <= spec["parallelism"]
        if spec["completionMode"] == "Indexed":
            numbers = [index_of(p) for p in active]
            assert len(set(numbers)) == len(numbers), "an index has one pod"
            assert all(n is not None and n < spec["completions"] for n in numbers)
            if self.per_index:
                limit = spec["backoffLimitPerIndex"]
                assert all(failure_count(p) <= limit for p in active)
        elif "completions" in spec and found.create:
            assert len(active) + len(self.good) <= spec["completions"]

    def settle(self) -> None:
        """All pods end well, in time."""
        self.change(suspend=False)
        for _ in range(120):
            self.now += timedelta(seconds=601)
            busy = self.step()
            for uid in list(self.pods):
                if uid in self.pods and not pods.is_finished(self.pods[uid]):
                    self.end(uid, "Succeeded")
                    busy = True
            if not busy:
                return
        raise AssertionError("it never settles")


def specs(parallelism: int, completions: int | None, indexed: bool, **more: Any) -> Object:
    spec = {"parallelism": parallelism, "completions": completions, **more}
    if indexed and completions is not None:
        spec["completionMode"] = "Indexed"
    else:
        for name in ("backoffLimitPerIndex", "maxFailedIndexes"):
            spec.pop(name, None)
    if spec.get("backoffLimitPerIndex") is None:
        spec.pop("backoffLimitPerIndex", None)
        spec.pop("maxFailedIndexes", None)
    else:
        spec["backoffLimit"] = 2**31 - 1
        spec["podReplacementPolicy"] = spec["podReplacementPolicy"]
    return spec


SPECS = st.builds(
    specs,
    st.integers(0, 4),
    st.one_of(st.none(), st.integers(0, 6)),
    st.booleans(),
    backoffLimit=st.sampled_from([0, 1, 3, 99]),
    backoffLimitPerIndex=st.one_of(st.none(), st.none(), st.integers(0, 2)),
    podReplacementPolicy=st.sampled_from(["TerminatingOrFailed", "Failed"]),
    suspend=st.sampled_from([False, False, False, True]),
)
ACTS = st.one_of(
    st.tuples(st.just("step"), st.sampled_from([EVERYTHING, EVERYTHING, EVERYTHING, 0, 1, 2, 3])),
    st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from(["Succeeded", "Failed"])),
    st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from(["Running", "Succeeded"])),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from([1, 9, 30, 700])),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("parallelism"), st.integers(0, 4)),
)


@settings(max_examples=100, deadline=None)
@given(SPECS, st.lists(ACTS, max_size=40))
def test_every_pod_is_counted_once_and_none_too_many_runs_whoever_acts_next(
    spec: Object, acts: list
):
    model = Model(spec)
    for name, *how in acts:
        if name == "step":
            model.step(*how)
        elif name == "wait":
            model.now += timedelta(seconds=how[0])
        elif name in ("suspend", "parallelism"):
            model.change(**{name: how[0]})
        elif model.pods:
            present = sorted(model.pods)
            getattr(model, name)(present[how[0] % len(present)], *how[1:])
    model.settle()
    state, spec = model.job["status"], model.job["spec"]
    if not is_finished(model.job):
        assert spec["parallelism"] == 0, "what may run comes to its end"
        return
    assert not any(is_tracked(p) for p in model.pods.values()), "nothing is held for ever"
    done = state.get("succeeded", 0)
    if spec["completionMode"] == "Indexed":
        completed = indexes.parse(state.get("completedIndexes", ""))
        lost = indexes.parse(state.get("failedIndexes", ""))
        assert len(completed) == done and not completed & lost
        if condition(state, "Complete"):
            assert completed == set(range(spec["completions"]))
    else:
        assert done == len(model.good - model.bad) or condition(state, "Failed")
        assert done <= len(model.good)
        if condition(state, "Complete"):
            assert done >= spec.get("completions", 1)
    if condition(state, "Failed") and not model.per_index:
        assert state["failed"] > spec["backoffLimit"]
    if condition(state, "Complete"):
        assert state["completionTime"]
