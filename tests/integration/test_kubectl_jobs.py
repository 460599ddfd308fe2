"""What Jobs and CronJobs can be told, with kubectl on a live cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import Instance, eventually
from kubectl_space import FOREVER, Space, new_space, shell

UNREADY = {"readinessProbe": {"exec": {"command": ["false"]}}}


@pytest.fixture(scope="module")
def kubectl(cluster: Instance) -> Iterator[Space]:
    with new_space(cluster) as space:
        yield space


def job(name: str, command: str, restart: str = "Never", **spec: Any) -> dict[str, Any]:
    pod = {
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": 1,
        "containers": [shell(command)],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {**spec, "template": {"spec": pod}},
    }


def pods(kubectl: Space, name: str) -> list[Any]:
    return kubectl.pods(f"job-name={name}")


def indexes(found: list[Any]) -> list[int]:
    key = "batch.kubernetes.io/job-completion-index"
    return sorted(int(pod["metadata"]["labels"][key]) for pod in found)


def test_pods_have_their_index_as_name_label_and_variable(kubectl: Space) -> None:
    body = job("numbered", "echo $(hostname) $JOB_COMPLETION_INDEX", completions=3, parallelism=2)
    body["spec"]["completionMode"] = "Indexed"
    kubectl.apply(body)
    kubectl.wait("job/numbered", "Complete")
    assert kubectl.get("job/numbered")["status"]["completedIndexes"] == "0-2"
    said = kubectl("logs", "-l", "job-name=numbered", "--tail=-1").out.splitlines()
    assert sorted(said) == ["numbered-0 0", "numbered-1 1", "numbered-2 2"]
    assert "Completed Indexes:  0-2" in kubectl.describe("job/numbered")


def test_exit_codes_decide_what_a_failure_means(kubectl: Space) -> None:
    rules = [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]},
        },
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
    ]
    kubectl.apply(job("policy", "exit 42", backoffLimit=6, podFailurePolicy={"rules": rules}))
    kubectl.wait("job/policy", "Failed")
    found = kubectl.condition("job/policy", "Failed")
    assert found["reason"] == "PodFailurePolicy"
    (pod,) = pods(kubectl, "policy")
    assert found["message"] == (
        f"Container c for pod {kubectl.namespace}/{pod['metadata']['name']} failed with exit code "
        "42 matching FailJob rule at index 0"
    )
    assert kubectl.get("job/policy")["status"]["failed"] == 1


def test_an_evicted_pod_does_not_count_where_the_policy_ignores_it(kubectl: Space) -> None:
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    body = job("evicted", "sleep 100000", backoffLimit=0, podFailurePolicy={"rules": rules})
    kubectl.apply(body)
    first = eventually(lambda: [p for p in pods(kubectl, "evicted") if phase(p) == "Running"])[0]
    name = first["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{name}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    eventually(lambda: not kubectl("get", "pod", name, "--ignore-not-found").out)
    eventually(lambda: kubectl.get("job/evicted")["status"].get("terminating") == 0)
    status = kubectl.get("job/evicted")["status"]
    assert status.get("failed", 0) == 0 and "conditions" not in status


def phase(pod: Any) -> str:
    return str((pod.get("status") or {}).get("phase"))


def test_enough_indexes_may_be_less_than_all(kubectl: Space) -> None:
    command = f'if [ "$JOB_COMPLETION_INDEX" = 1 ]; then exit 0; fi; {FOREVER}'
    body = job("enough", command, completions=3, parallelism=3, completionMode="Indexed")
    body["spec"]["successPolicy"] = {"rules": [{"succeededIndexes": "1", "succeededCount": 1}]}
    kubectl.apply(body)
    kubectl.wait("job/enough", "Complete")
    for type in ("SuccessCriteriaMet", "Complete"):
        found = kubectl.condition("job/enough", type)
        assert (found["reason"], found["message"]) == ("SuccessPolicy", "Matched rules at index 0")
    status = kubectl.get("job/enough")["status"]
    assert (status["succeeded"], status["completedIndexes"]) == (1, "1")
    eventually(lambda: not [p for p in pods(kubectl, "enough") if phase(p) == "Running"])


def test_each_index_may_fail_on_its_own(kubectl: Space) -> None:
    command = '[ "$JOB_COMPLETION_INDEX" != 1 ]'
    body = job("each", command, completions=3, parallelism=3, completionMode="Indexed")
    body["spec"]["backoffLimitPerIndex"] = 0
    kubectl.apply(body)
    kubectl.wait("job/each", "Failed")
    assert kubectl.condition("job/each", "Failed")["reason"] == "FailedIndexes"
    status = kubectl.get("job/each")["status"]
    assert (status["completedIndexes"], status["failedIndexes"]) == ("0,2", "1")
    assert (status["succeeded"], status["failed"]) == (2, 1)


def test_too_many_failed_indexes_end_the_job_and_a_rule_fails_an_index_at_once(
    kubectl: Space,
) -> None:
    rule = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [3]}}
    body = job("many", "exit 3", completions=5, parallelism=2, completionMode="Indexed")
    body["spec"] |= {
        "backoffLimitPerIndex": 4,
        "maxFailedIndexes": 1,
        "podFailurePolicy": {"rules": [rule]},
    }
    kubectl.apply(body)
    kubectl.wait("job/many", "Failed")
    assert kubectl.condition("job/many", "Failed")["reason"] == "MaxFailedIndexesExceeded"
    assert kubectl.get("job/many")["status"]["failed"] <= 4


def test_an_indexed_job_grows_and_shrinks(kubectl: Space) -> None:
    body = job("elastic", FOREVER, completions=2, parallelism=2, completionMode="Indexed")
    kubectl.apply(body)
    eventually(lambda: indexes(pods(kubectl, "elastic")) == [0, 1])
    kubectl.patch("job/elastic", {"spec": {"completions": 4, "parallelism": 4}})
    eventually(lambda: indexes(pods(kubectl, "elastic")) == [0, 1, 2, 3])
    kubectl.patch("job/elastic", {"spec": {"completions": 1, "parallelism": 1}})
    eventually(lambda: indexes(pods(kubectl, "elastic")) == [0])
    refused = kubectl(
        "patch", "job/elastic", "--type=merge", "-p", '{"spec": {"completions": 3}}', ok=False
    )
    assert "can only be modified in tandem with spec.parallelism" in refused.err


def test_a_suspended_job_has_no_pods_and_goes_on_when_resumed(kubectl: Space) -> None:
    kubectl.apply(job("pause", FOREVER, parallelism=2, suspend=True))
    eventually(lambda: kubectl.condition("job/pause", "Suspended").get("status") == "True")
    assert not pods(kubectl, "pause")
    kubectl.patch("job/pause", {"spec": {"suspend": False}})
    eventually(lambda: len(pods(kubectl, "pause")) == 2)
    eventually(lambda: kubectl.condition("job/pause", "Suspended")["reason"] == "JobResumed")
    kubectl.patch("job/pause", {"spec": {"suspend": True}})
    eventually(lambda: not pods(kubectl, "pause"))
    eventually(lambda: {"Suspended", "Resumed"} <= kubectl.reasons("pause"))
    eventually(lambda: "startTime" not in kubectl.get("job/pause")["status"])
    assert kubectl.get("job/pause")["status"].get("failed", 0) == 0


def test_a_job_over_its_time_is_stopped_and_removed_after_its_ttl(kubectl: Space) -> None:
    kubectl.apply(job("late", FOREVER, activeDeadlineSeconds=1))
    kubectl.wait("job/late", "Failed")
    found = kubectl.condition("job/late", "Failed")
    assert found["reason"] == "DeadlineExceeded"
    assert found["message"] == "Job was active longer than specified deadline"
    eventually(lambda: ("DeadlineExceeded", found["message"]) in kubectl.told("late"))
    kubectl.patch("job/late", {"spec": {"ttlSecondsAfterFinished": 1}})
    eventually(lambda: not kubectl("get", "job/late", "--ignore-not-found").out)


def test_restarts_in_place_count_towards_the_limit(kubectl: Space) -> None:
    kubectl.apply(job("again", "exit 1", restart="OnFailure", backoffLimit=1))
    kubectl.wait("job/again", "Failed")
    assert kubectl.condition("job/again", "Failed")["reason"] == "BackoffLimitExceeded"


# -- CronJobs


def cron_job(name: str, schedule: str, command: str = "true", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {
            "schedule": schedule,
            **spec,
            "jobTemplate": {"spec": job("x", command)["spec"]},
        },
    }


def last_served(kubectl: Space, name: str, ago: timedelta) -> None:
    """Pretend the last Job was made so long ago: what is due since is made at once."""
    moment = (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%SZ")
    change = {"status": {"lastScheduleTime": moment}}
    kubectl.patch(f"cronjob/{name}", change, "--subresource=status")


def at(minutes_ago: int, zone: timedelta = timedelta()) -> str:
    """The schedule of one minute of each day, so long ago today."""
    moment = datetime.now(UTC) + zone - timedelta(minutes=minutes_ago)
    return f"{moment.minute} {moment.hour} * * *"


def jobs(kubectl: Space, cron_job: str) -> list[Any]:
    found = kubectl.get("jobs")["items"]
    return [
        job
        for job in found
        if any(o["name"] == cron_job for o in job["metadata"].get("ownerReferences") or ())
    ]


def test_a_schedule_is_that_of_its_zone(kubectl: Space) -> None:
    tokyo = timedelta(hours=9)
    kubectl.apply(
        cron_job("tokyo", at(5, tokyo), timeZone="Asia/Tokyo"),
        cron_job("utc", at(5, tokyo), timeZone="Etc/UTC"),
    )
    last_served(kubectl, "tokyo", timedelta(hours=1))
    last_served(kubectl, "utc", timedelta(hours=1))
    (made,) = eventually(lambda: jobs(kubectl, "tokyo"))
    note = made["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
    assert note.endswith("+09:00")
    assert "Asia/Tokyo" in kubectl("get", "cronjob/tokyo").out
    assert not jobs(kubectl, "utc")
    bad = cron_job("bad", "* * * * *", timeZone="Mars/Olympus")
    refused = kubectl("apply", "-f", "-", stdin=json.dumps(bad), ok=False)
    assert "unknown time zone Mars/Olympus" in refused.err


@pytest.mark.parametrize("policy", ["Allow", "Forbid", "Replace"])
def test_what_happens_while_one_is_running_is_the_policys(kubectl: Space, policy: str) -> None:
    name = policy.lower()
    kubectl.apply(cron_job(name, at(30), FOREVER, concurrencyPolicy=policy))
    last_served(kubectl, name, timedelta(hours=1))
    (first,) = eventually(lambda: jobs(kubectl, name))
    kubectl.patch(f"cronjob/{name}", {"spec": {"schedule": at(10)}})

    def uids() -> set[str]:
        return {j["metadata"]["uid"] for j in jobs(kubectl, name)}

    if policy == "Allow":
        eventually(lambda: len(uids()) == 2)
    elif policy == "Replace":
        eventually(lambda: len(uids()) == 1 and first["metadata"]["uid"] not in uids())
        eventually(lambda: "SuccessfulDelete" in kubectl.reasons(name))
    else:
        eventually(lambda: "JobAlreadyActive" in kubectl.reasons(name))
        assert uids() == {first["metadata"]["uid"]}
        kubectl("delete", "job", first["metadata"]["name"])
        eventually(lambda: uids() and first["metadata"]["uid"] not in uids())
    kubectl("delete", "cronjob", name)


def test_what_is_too_late_is_left_out(kubectl: Space) -> None:
    kubectl.apply(cron_job("strict", at(10), startingDeadlineSeconds=300))
    last_served(kubectl, "strict", timedelta(hours=1))
    kubectl.apply(cron_job("lenient", at(10), startingDeadlineSeconds=1200))
    last_served(kubectl, "lenient", timedelta(hours=1))
    eventually(lambda: jobs(kubectl, "lenient"))
    assert not jobs(kubectl, "strict")


def test_a_suspended_schedule_makes_nothing_until_it_is_resumed(kubectl: Space) -> None:
    kubectl.apply(cron_job("resting", at(10), suspend=True))
    last_served(kubectl, "resting", timedelta(hours=1))
    assert "True" in kubectl("get", "cronjob/resting", "--no-headers").out
    kubectl("create", "job", "by-hand", "--from=cronjob/resting")
    kubectl.wait("job/by-hand", "Complete")
    assert [j["metadata"]["name"] for j in jobs(kubectl, "resting")] == ["by-hand"]
    (note,) = jobs(kubectl, "resting")
    assert note["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] == "manual"
    kubectl.patch("cronjob/resting", {"spec": {"suspend": False}})
    eventually(lambda: len(jobs(kubectl, "resting")) == 2)


def test_finished_jobs_are_kept_as_many_as_history_allows(kubectl: Space) -> None:
    kubectl.apply(
        cron_job(
            "kept", at(40), successfulJobsHistoryLimit=1, failedJobsHistoryLimit=1, suspend=False
        )
    )
    last_served(kubectl, "kept", timedelta(hours=1))

    def ended(type: str) -> list[str]:
        return [
            j["metadata"]["name"]
            for j in jobs(kubectl, "kept")
            for c in (j.get("status") or {}).get("conditions") or ()
            if c["type"] == type
        ]

    (first,) = eventually(lambda: ended("Complete"))
    kubectl.patch("cronjob/kept", {"spec": {"schedule": at(30)}})
    eventually(lambda: len(ended("Complete")) == 1 and first not in ended("Complete"))
    failing = job("x", "exit 1", backoffLimit=0)["spec"]
    for minutes in (20, 10):
        before = ended("Failed")
        kubectl.patch(
            "cronjob/kept", {"spec": {"schedule": at(minutes), "jobTemplate": {"spec": failing}}}
        )
        eventually(lambda before=before: len(ended("Failed")) == 1 and ended("Failed") != before)
    assert len(ended("Complete")) == 1
    described = lambda: kubectl.describe("cronjob/kept")  # noqa: E731
    eventually(lambda: "Saw completed job" in described() and "Deleted job" in described())
    status = lambda: kubectl.get("cronjob/kept")["status"]  # noqa: E731
    eventually(lambda: status().get("lastSuccessfulTime") and not status().get("active"))
