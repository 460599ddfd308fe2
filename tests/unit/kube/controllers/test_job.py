from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cluster import Cluster
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.api.resources import EVENTS, JOBS, PODS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.job import indexes
from wherry.kube.controllers.job.plan import Backoff, condition, expires_in, plan
from wherry.kube.controllers.job.pod import FINALIZER, INDEX, is_tracked, make_indexed_pod
from wherry.kube.controllers.job.policies import meaning, success_rule

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAME = "job-controller"


def job(status: Object | None = None, **spec: Any) -> Object:
    template = {
        "metadata": {"labels": {"job-name": "j"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
    }
    return {
        "metadata": {"name": "j", "namespace": "default", "uid": "j"},
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 6,
            "completionMode": "NonIndexed",
            "suspend": False,
            "podReplacementPolicy": "TerminatingOrFailed",
            "selector": {"matchLabels": {"job-name": "j"}},
            "template": template,
            **spec,
        },
        "status": {"startTime": meta.format_time(NOW), **(status or {})},
    }


def pod(name: str, phase: str = "Running", **how: Any) -> Object:
    metadata: Object = {"name": name, "namespace": "default", "uid": name, "labels": {}}
    metadata["creationTimestamp"] = meta.format_time(NOW - timedelta(seconds=100))
    if how.get("tracked", True):
        metadata["finalizers"] = [FINALIZER]
    annotations = {}
    if "index" in how:
        annotations[INDEX] = str(how["index"])
    if "failures" in how:
        annotations["batch.kubernetes.io/job-index-failure-count"] = str(how["failures"])
    metadata["annotations"] = annotations
    ended = meta.format_time(NOW - timedelta(seconds=how.get("ago", 1000)))
    if how.get("deleting"):
        metadata["deletionTimestamp"] = ended
    status: Object = {"phase": phase}
    if phase in ("Succeeded", "Failed"):
        code = how.get("code", 0 if phase == "Succeeded" else 1)
        state = {"terminated": {"exitCode": code, "finishedAt": ended}}
        status["containerStatuses"] = [{"name": "c", "state": state}]
    status["conditions"] = how.get("conditions", [])
    return {"metadata": metadata, "spec": {"nodeName": "n"}, "status": status}


def step(job: Object, pods: list[Object], backoff: Backoff | None = None):
    return plan(job, pods, (), backoff or Backoff(), NOW)


def reason(status: Object, type: str) -> str:
    found = condition(status, type)
    return found["reason"] if found else ""


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", set()),
        ("1", {1}),
        ("0,1", {0, 1}),
        ("1,3-5,7", {1, 3, 4, 5, 7}),
        ("0-2,5,6", {0, 1, 2, 5, 6}),
    ],
)
def test_indexes_as_text(text: str, numbers: set):
    assert indexes.parse(text) == numbers
    assert indexes.format(numbers) == text


@given(st.sets(st.integers(0, 60)))
def test_indexes_come_back(numbers: set):
    assert indexes.parse(indexes.format(numbers)) == numbers
    assert indexes.parse(indexes.format(numbers), 10) == {n for n in numbers if n < 10}


def test_as_many_pods_as_may_run_beside_each_other_and_are_still_needed():
    assert len(step(job(parallelism=3, completions=5), []).create) == 3
    done = [pod("a", "Succeeded"), pod("b", "Succeeded"), pod("c")]
    found = step(job(parallelism=3, completions=4), done)
    assert len(found.create) == 1
    assert [meta.name(p) for p in found.release] == ["a", "b"]
    assert found.status["uncountedTerminatedPods"] == {"succeeded": ["a", "b"]}
    assert "succeeded" not in found.status


def test_a_pod_is_counted_when_its_finalizer_is_gone():
    noted = {"uncountedTerminatedPods": {"succeeded": ["a", "b"], "failed": ["x"]}}
    found = step(job(noted, completions=5), [pod("a", "Succeeded")])
    assert found.status["succeeded"] == 1 and found.status["failed"] == 1
    assert found.status["uncountedTerminatedPods"] == {"succeeded": ["a"]}


def test_complete_when_all_are_counted():
    first = step(job(), [pod("a", "Succeeded")])
    assert reason(first.status, "SuccessCriteriaMet") == "CompletionsReached"
    assert condition(first.status, "Complete") is None
    last = step(job(first.status), [pod("a", "Succeeded", tracked=False)])
    assert reason(last.status, "Complete") == "CompletionsReached"
    assert last.status["completionTime"] and last.status["succeeded"] == 1


def test_a_work_queue_ends_with_its_last_pod():
    queue = job(parallelism=3)
    del queue["spec"]["completions"]
    running = step(queue, [pod("a", "Succeeded"), pod("b"), pod("c")])
    assert (running.create, condition(running.status, "SuccessCriteriaMet")) == ([], None)
    assert condition(step(queue, [pod("a", "Succeeded")]).status, "SuccessCriteriaMet")


def test_failed_pods_are_replaced_later_and_later():
    found = step(job(), [pod("a", "Failed", ago=3)])
    assert found.backoff.failures == 1
    assert found.create == [] and found.check_after == 7
    assert step(job(), [pod("a", "Failed", ago=11)]).create
    twice = Backoff(1, NOW - timedelta(seconds=50))
    assert step(job(), [pod("b", "Failed", ago=15)], twice).check_after == 5


def test_the_limit_of_failures_ends_the_job_with_its_pods():
    failed = [pod(str(n), "Failed") for n in range(3)]
    found = step(job(backoffLimit=2, parallelism=2, completions=9), [*failed, pod("r")])
    assert reason(found.status, "FailureTarget") == "BackoffLimitExceeded"
    assert [meta.name(p) for p in found.delete] == ["r"] and found.create == []
    gone = [pod(str(n), "Failed", tracked=False) for n in range(3)]
    last = step(job(found.status, backoffLimit=2, completions=9), gone)
    assert reason(last.status, "Failed") == "BackoffLimitExceeded"
    assert last.status["failed"] == 3
    assert "completionTime" not in last.status


def test_restarts_count_where_pods_restart_themselves():
    restarting = job(backoffLimit=2)
    restarting["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
    running = pod("a")
    running["status"]["containerStatuses"] = [{"restartCount": 1}, {"restartCount": 1}]
    assert reason(step(restarting, [running]).status, "FailureTarget") == "BackoffLimitExceeded"


def test_a_deadline_ends_the_job():
    started = {"startTime": meta.format_time(NOW - timedelta(seconds=30))}
    found = step(job(started, activeDeadlineSeconds=30), [pod("a")])
    assert reason(found.status, "FailureTarget") == "DeadlineExceeded"
    assert step(job(started, activeDeadlineSeconds=40), [pod("a")]).check_after == 10


def test_suspended_and_resumed():
    asleep = job(suspend=True, parallelism=2)
    found = step(asleep, [pod("a"), pod("b")])
    assert len(found.withdraw) == 2 and "startTime" not in found.status
    assert reason(found.status, "Suspended") == "JobSuspended"
    again = step(job(found.status, parallelism=2, completions=2), [])
    assert len(again.create) == 2
    assert condition(again.status, "Suspended") is None and again.status["startTime"]


def test_a_pod_on_its_way_out_keeps_its_place_where_failed_pods_alone_are_replaced():
    leaving = [pod("a", deleting=True, ago=3)]
    assert step(job(), leaving).check_after == 7  # it counts as failed: the back-off holds
    assert len(step(job(), [pod("a", deleting=True, ago=60)]).create) == 1
    assert step(job(podReplacementPolicy="Failed"), leaving).create == []
    assert step(job(podReplacementPolicy="Failed"), leaving).status["terminating"] == 1


def test_indexes_get_pods_of_their_own():
    indexed = job(completionMode="Indexed", completions=4, parallelism=2)
    found = step(indexed, [pod("a", "Succeeded", index=0), pod("b", index=2)])
    (made,) = found.create
    assert meta.annotations(made)[INDEX] == "1"
    assert made["spec"]["hostname"] == "j-1"
    assert made["metadata"]["generateName"] == "j-1-"
    assert found.status["completedIndexes"] == "0" and found.status["succeeded"] == 1
    env = made["spec"]["containers"][0]["env"]
    assert env[0]["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.annotations['{INDEX}']"
    twice = [pod("x", index=1), pod("y", index=1), pod("z", index=9)]
    surplus = step(job(completionMode="Indexed", completions=4, parallelism=3), twice).withdraw
    assert {meta.name(p) for p in surplus} >= {"z"} and len(surplus) == 2


def test_failures_by_index():
    spec = {
        "completionMode": "Indexed",
        "completions": 2,
        "parallelism": 2,
        "backoffLimitPerIndex": 1,
        "backoffLimit": 2**31 - 1,
    }
    first = step(job(**spec), [pod("a", "Failed", index=0, failures=0), pod("b", index=1)])
    (made,) = first.create
    assert meta.annotations(made)["batch.kubernetes.io/job-index-failure-count"] == "1"
    assert first.release == []  # kept until its successor has its count
    final = [pod("a", "Failed", index=0, failures=1), pod("b", "Succeeded", index=1)]
    lost = step(job(**spec), final)
    assert lost.status["failedIndexes"] == "0"
    assert reason(lost.status, "FailureTarget") == "FailedIndexes"
    most = step(job(**spec, maxFailedIndexes=0), [final[0], pod("b", index=1)])
    assert reason(most.status, "FailureTarget") == "MaxFailedIndexesExceeded"


def test_what_a_failure_means():
    codes = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    ruled = job(podFailurePolicy={"rules": [codes, disrupted]})
    found = step(ruled, [pod("a", "Failed", code=42)])
    (told,) = [c for c in found.status["conditions"] if c["type"] == "FailureTarget"]
    assert told["reason"] == "PodFailurePolicy"
    assert told["message"] == (
        "Container c for pod default/a failed with exit code 42 matching FailJob rule at index 0"
    )
    target = [{"type": "DisruptionTarget", "status": "True"}]
    ignored = pod("b", "Failed", conditions=target)
    assert not meaning(ruled, ignored).counts
    assert step(ruled, [ignored]).status["uncountedTerminatedPods"] == {}
    assert meaning(ruled, pod("c", "Failed")).counts


def test_enough_may_be_less_than_all():
    rules = [{"succeededIndexes": "0-1"}, {"succeededCount": 3}]
    spec = {"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": rules}}
    ruled = job(parallelism=5, **spec)
    assert success_rule(ruled, [0]) is None
    assert success_rule(ruled, [0, 1]) == 0
    assert success_rule(ruled, [2, 3, 4]) == 1
    pods = [pod(str(n), "Succeeded", index=n) for n in (0, 1)] + [pod("r", index=3)]
    found = step(ruled, pods)
    assert reason(found.status, "SuccessCriteriaMet") == "SuccessPolicy"
    assert [meta.name(p) for p in found.delete] == ["r"]


def test_a_user_s_own_variable_is_left():
    indexed = job(completionMode="Indexed")
    own = {"name": "JOB_COMPLETION_INDEX", "value": "7"}
    indexed["spec"]["template"]["spec"]["containers"][0]["env"] = [own]
    made = make_indexed_pod(indexed, 0, None, True)
    assert made["spec"]["containers"][0]["env"] == [own]


def test_time_to_live():
    finished = meta.format_time(NOW - timedelta(seconds=5))
    status = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": finished}]}
    assert expires_in(job(status, ttlSecondsAfterFinished=60), NOW) == 55
    assert expires_in(job(status, ttlSecondsAfterFinished=0), NOW) == 0
    assert expires_in(job(status), NOW) is None
    assert expires_in(job(ttlSecondsAfterFinished=0), NOW) is None


ENDS = st.sampled_from(["Running", "Succeeded", "Failed", "leaving"])


@given(st.lists(ENDS, max_size=9), st.integers(0, 8), st.integers(0, 8))
def test_never_more_pods_than_may_run_or_are_needed(ends: list, parallelism: int, completions: int):
    pods = [
        pod(str(n), "Running" if end == "leaving" else end, deleting=end == "leaving")
        for n, end in enumerate(ends)
    ]
    found = step(job(parallelism=parallelism, completions=completions, backoffLimit=99), pods)
    active = ends.count("Running") + len(found.create) - len(found.withdraw) - len(found.delete)
    needed = max(0, completions - ends.count("Succeeded"))
    assert active <= max(min(parallelism, needed), 0)
    assert not (found.create and found.withdraw)


async def run_pods(cluster: Cluster) -> None:
    """Kubelets in name only: every pod succeeds."""
    for p in cluster.api.find(PODS):
        phase = (p.get("status") or {}).get("phase")
        if phase == "Pending":
            state = {"terminated": {"exitCode": 0, "finishedAt": meta.now()}}
            status = {"phase": "Succeeded", "containerStatuses": [{"name": "c", "state": state}]}
            await cluster.client.patch(
                PODS, meta.name(p), {"status": status}, "default", subresource="status"
            )


async def test_a_job_runs_to_completion_and_counts_every_pod_once():
    async with Cluster(NAME, kubelet=False) as cluster:
        await cluster.client.create(JOBS, job(parallelism=3, completions=7))

        def complete() -> bool:
            found = cluster.api.get(JOBS, "j", "default").get("status") or {}
            return condition(found, "Complete") is not None

        for _ in range(200):
            await run_pods(cluster)
            await cluster.settle(0.01)
            if complete():
                break
        found = cluster.api.get(JOBS, "j", "default")["status"]
        assert found["succeeded"] == 7 and found["uncountedTerminatedPods"] == {}
        pods = cluster.api.find(PODS)
        assert len(pods) == 7 and not any(map(is_tracked, pods))

        def told() -> int:
            return [e["reason"] for e in cluster.api.find(EVENTS)].count("Completed")

        await cluster.until(told)
        assert told() == 1


async def test_pods_of_a_job_that_is_gone_are_let_go():
    async with Cluster(NAME, kubelet=False) as cluster:
        await cluster.client.create(JOBS, job())
        await cluster.until(lambda: cluster.api.find(PODS))
        await cluster.client.delete(JOBS, "j", "default")
        await cluster.until(lambda: not any(map(is_tracked, cluster.api.find(PODS))))


async def test_a_lost_answer_makes_no_pod_too_many():
    async with Cluster(NAME, kubelet=False) as cluster:
        broken = [True]

        def after(method: str, path: str, body: Any) -> None:
            if method == "POST" and path.endswith("/pods") and broken:
                broken.pop()
                raise ConnectionError("reset")

        cluster.api.after = after
        await cluster.client.create(JOBS, job(parallelism=2, completions=2))
        await cluster.until(lambda: len(cluster.api.find(PODS)) == 2)
        await cluster.settle()
        assert len(cluster.api.find(PODS)) == 2


async def test_a_verdict_is_not_forgotten_with_the_pods_that_led_to_it():
    async with Cluster(NAME, kubelet=False) as cluster:
        body = job(backoffLimit=1)
        body["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure"
        await cluster.client.create(JOBS, body)
        (made,) = await cluster.until(lambda: cluster.api.find(PODS))
        status = {"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 1}]}
        await cluster.client.patch(
            PODS, meta.name(made), {"status": status}, "default", subresource="status"
        )

        def found() -> Object:
            return cluster.api.get(JOBS, "j", "default").get("status") or {}

        await cluster.until(lambda: condition(found(), "FailureTarget") is not None)
        await cluster.until(lambda: condition(found(), "Failed") is not None)
        assert reason(found(), "Failed") == "BackoffLimitExceeded"
        assert found()["failed"] == 1
        assert len([e for e in cluster.api.find(EVENTS) if e["reason"] == "SuccessfulCreate"]) == 1
