"""A CronJob's promises over random histories: time passes by fits and starts, Jobs take as long as
they like and end well or badly, and the controller dies before it has written what it did."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st
from test_cron_job import NOW, cron_job

from wherry.kube.api import meta
from wherry.kube.api.cron import parse_schedule
from wherry.kube.client.transport import Object
from wherry.kube.controllers.cron_job import SCHEDULED_AT, make_job, plan
from wherry.kube.controllers.job.plan import is_finished


class Model:
    def __init__(self, spec: Object) -> None:
        self.cron_job = cron_job(timedelta(0), **spec)
        self.jobs: dict[str, Object] = {}
        self.now = NOW
        self.served: list[datetime] = []

    @property
    def spec(self) -> Object:
        return self.cron_job["spec"]

    def step(self, writes: bool) -> None:
        """One turn of the controller; where it does not write, it dies before the status."""
        found = plan(self.cron_job, list(self.jobs.values()), self.now)
        running = {n for n, job in self.jobs.items() if not is_finished(job)}
        for old in (*found.forget, *found.replace):
            del self.jobs[meta.name(old)]
        status = dict(found.status)
        if found.due is not None:
            self.check_due(found, running)
            job = make_job(self.cron_job, found.due)
            name = meta.name(job)
            if name not in self.jobs:
                begun = {"startTime": meta.format_time(self.now)}
                metadata = {**job["metadata"], "uid": name}
                self.jobs[name] = {**job, "metadata": metadata, "status": begun}
                assert found.due not in self.served, "a time is served once"
                self.served.append(found.due)
            status["lastScheduleTime"] = meta.format_time(found.due)
        for kind, limit in (("Complete", "successful"), ("Failed", "failed")):
            ended = [j for j in self.jobs.values() if self.ended(j) == kind]
            most = self.spec[f"{limit}JobsHistoryLimit"]
            assert len(ended) <= most + (status != self.cron_job["status"])
        if not self.spec.get("suspend"):
            following = parse_schedule(self.spec["schedule"]).after(self.now.astimezone(self.zone))
            assert following is not None
            assert found.wait == (following - self.now).total_seconds()
        if writes:
            self.cron_job = {**self.cron_job, "status": status}

    def check_due(self, found: Any, running: set[str]) -> None:
        due = found.due
        assert due <= self.now and not self.spec.get("suspend")
        schedule = parse_schedule(self.spec["schedule"])
        before = (due - timedelta(seconds=1)).astimezone(self.zone)
        assert schedule.after(before) == due, "it is a time of the schedule"
        following = schedule.after(due.astimezone(self.zone))
        assert following is not None and following > self.now, "the last that was missed"
        deadline = self.spec.get("startingDeadlineSeconds")
        assert deadline is None or (self.now - due).total_seconds() <= deadline
        policy = self.spec["concurrencyPolicy"]
        left = running - {meta.name(j) for j in found.replace}
        assert policy == "Allow" or not left, "one at a time"
        assert policy == "Replace" or not found.replace

    @staticmethod
    def ended(job: Object) -> str:
        held = job["status"].get("conditions") or [{"type": ""}]
        return held[0]["type"]

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.spec.get("timeZone") or "UTC")

    def end(self, number: int, how: str) -> None:
        names = sorted(n for n, job in self.jobs.items() if not is_finished(job))
        if names:
            name = names[number % len(names)]
            held = {"conditions": [{"type": how, "status": "True"}]}
            held["completionTime"] = meta.format_time(self.now)
            job = self.jobs[name]
            self.jobs[name] = {**job, "status": {**job["status"], **held}}


SPECS = st.fixed_dictionaries(
    {
        "schedule": st.sampled_from(
            ["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "15 1-3 * * 0", "@daily"]
        ),
        "concurrencyPolicy": st.sampled_from(["Allow", "Forbid", "Replace"]),
        "startingDeadlineSeconds": st.sampled_from([None, None, 30, 4000]),
        "timeZone": st.sampled_from([None, "Europe/Berlin", "Asia/Kathmandu", "America/New_York"]),
        "successfulJobsHistoryLimit": st.integers(0, 2),
        "failedJobsHistoryLimit": st.integers(0, 2),
    }
)
ACTS = st.one_of(
    st.tuples(st.just("step"), st.sampled_from([True, True, False])),
    st.tuples(st.just("step"), st.just(True)),
    st.tuples(st.just("wait"), st.sampled_from([1, 41, 60, 300, 3600, 90_000, 2_000_000])),
    st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from(["Complete", "Failed"])),
    st.tuples(st.just("suspend"), st.booleans()),
)


@settings(max_examples=100, deadline=None)
@given(SPECS, st.lists(ACTS, max_size=30))
def test_no_time_is_served_twice_and_none_too_late_whatever_happens(spec: Object, acts: list):
    model = Model(spec)
    for name, *how in acts:
        before = len(model.served), len(model.jobs)
        if name == "wait":
            model.now += timedelta(seconds=how[0])
        elif name == "suspend":
            model.spec["suspend"] = how[0]
        else:
            getattr(model, name)(*how)
        assert len(model.served) - before[0] <= 1
    times = [meta.annotations(job)[SCHEDULED_AT] for job in model.jobs.values()]
    assert len(set(times)) == len(times)
    again = plan(model.cron_job, list(model.jobs.values()), model.now)
    if again.due is not None and model.cron_job["status"].get("lastScheduleTime"):
        last = meta.parse_time(model.cron_job["status"]["lastScheduleTime"])
        assert again.due > last, "what was served is not served again"
