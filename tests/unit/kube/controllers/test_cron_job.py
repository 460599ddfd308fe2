from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cluster import Cluster

from wherry.kube.api import meta
from wherry.kube.api.resources import CRON_JOBS, EVENTS, JOBS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.cron_job import SCHEDULED_AT, job_name, make_job, plan

NOW = datetime(2026, 3, 1, 12, 0, 20, tzinfo=UTC)
NOON = NOW.replace(second=0)


def cron_job(created: timedelta = timedelta(minutes=5), **spec: Any) -> Object:
    status = spec.pop("status", {})
    return {
        "metadata": {
            "name": "tick",
            "namespace": "default",
            "uid": "tick",
            "creationTimestamp": meta.format_time(NOW - created),
        },
        "spec": {
            "schedule": "*/1 * * * *",
            "concurrencyPolicy": "Allow",
            "suspend": False,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}},
            **spec,
        },
        "status": status,
    }


def served(minutes: int = 1) -> Object:
    return {"lastScheduleTime": meta.format_time(NOON - timedelta(minutes=minutes))}


def job(name: str, end: str = "", started: int = 0, *, by_hand: bool = False) -> Object:
    status: Object = {"startTime": meta.format_time(NOW + timedelta(seconds=started))}
    if end:
        status["conditions"] = [{"type": end, "status": "True"}]
        status["completionTime"] = meta.format_time(NOW)
    metadata: Object = {"name": name, "namespace": "default", "uid": name}
    if not by_hand:
        metadata["annotations"] = {SCHEDULED_AT: meta.format_time(NOW)}
    return {"metadata": metadata, "status": status}


def reasons(found: Any) -> list[str]:
    return [reason for _, reason, _ in found.events]


def test_the_last_time_that_was_missed_is_served_and_the_next_awaited():
    found = plan(cron_job(status=served()), [], NOW)
    assert found.due == NOON and found.wait == 40
    assert plan(cron_job(status=served(0)), [], NOW).due is None
    assert plan(cron_job(), [], NOW).due == NOON  # of five, the last
    assert plan(cron_job(suspend=True), [], NOW).due is None


def test_a_job_is_named_after_its_time():
    made = make_job(cron_job(), NOON)
    assert meta.name(made) == f"tick-{int(NOON.timestamp()) // 60}"
    assert meta.labels(made) == {"a": "b"}
    key = "batch.kubernetes.io/cronjob-scheduled-timestamp"
    assert meta.annotations(made)[key] == "2026-03-01T12:00:00Z"
    assert plan(cron_job(), [job(job_name(cron_job(), NOON))], NOW).due is None


def test_a_time_that_is_past_its_deadline_is_not_served():
    late = cron_job(startingDeadlineSeconds=10, status=served(3))
    assert plan(late, [], NOW).due is None
    assert plan(cron_job(startingDeadlineSeconds=30, status=served(3)), [], NOW).due == NOON


def test_many_missed_times_are_told_and_the_last_is_served():
    found = plan(cron_job(created=timedelta(days=30)), [], NOW)
    assert reasons(found) == ["TooManyMissedTimes"]
    assert found.due == NOON


def test_what_happens_while_one_is_running():
    running = [job("old")]
    forbidden = plan(cron_job(concurrencyPolicy="Forbid"), running, NOW)
    assert forbidden.due is None and reasons(forbidden) == ["JobAlreadyActive"]
    replaced = plan(cron_job(concurrencyPolicy="Replace"), running, NOW)
    assert replaced.due == NOON and replaced.replace == running
    assert plan(cron_job(), running, NOW).due == NOON


def test_a_job_that_was_made_by_hand_is_told_and_in_nobodys_way():
    found = plan(cron_job(concurrencyPolicy="Forbid"), [job("mine", by_hand=True)], NOW)
    assert found.due == NOON and reasons(found) == ["UnexpectedJob"]
    assert "active" not in found.status


def test_times_are_those_of_the_zone():
    daily = cron_job(schedule="0 13 * * *", timeZone="Europe/Berlin", status=served(60 * 20))
    assert plan(daily, [], NOW).due == NOON
    unknown = cron_job(timeZone="Nowhere/Land")
    assert reasons(plan(unknown, [], NOW)) == ["UnknownTimeZone"]


@pytest.mark.parametrize("schedule", ["x", "99 * * * *"])
def test_a_schedule_that_is_none_is_told(schedule: str):
    assert reasons(plan(cron_job(schedule=schedule), [], NOW)) == ["UnparseableSchedule"]


def test_history_is_kept_to_its_limits():
    jobs = [job(f"g{n}", "Complete", n) for n in range(5)]
    jobs += [job(f"b{n}", "Failed", n) for n in range(3)]
    names = [meta.name(j) for j in plan(cron_job(suspend=True), jobs, NOW).forget]
    assert names == ["g0", "g1", "b0", "b1"]


def test_active_jobs_are_followed_to_their_end():
    active = [{"uid": "a", "name": "a"}, {"uid": "gone", "name": "gone"}]
    found = plan(cron_job(suspend=True, status={"active": active}), [job("a", "Complete")], NOW)
    assert reasons(found) == ["SawCompletedJob", "MissingJob"]
    assert found.status == {"lastSuccessfulTime": meta.format_time(NOW)}


async def test_jobs_are_made_once():
    async with Cluster("cronjob-controller", kubelet=False) as cluster:
        # A time that was missed, of a schedule that has no other today.
        due = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)
        body = cron_job(schedule=f"{due.minute} {due.hour} * * *")
        past = due - timedelta(minutes=1)
        body["status"] = {"lastScheduleTime": meta.format_time(past)}
        await cluster.client.create(CRON_JOBS, body)
        await cluster.until(lambda: cluster.api.find(JOBS))
        await cluster.settle()
        (made,) = cluster.api.find(JOBS)
        found = cluster.api.get(CRON_JOBS, "tick", "default")["status"]
        assert [entry["name"] for entry in found["active"]] == [meta.name(made)]
        assert found["lastScheduleTime"] > meta.format_time(past)
        assert any(e["reason"] == "SuccessfulCreate" for e in cluster.api.find(EVENTS))
