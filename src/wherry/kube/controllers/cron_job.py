"""CronJobs: a Job at each time of a schedule (https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/).

Behaviour, names and events follow kube-controller-manager's cronjob controller.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from wherry.kube.api import meta
from wherry.kube.api.cron import Schedule, ScheduleError, parse_schedule
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import CRON_JOBS, JOBS
from wherry.kube.client.recorder import NORMAL, WARNING, reference
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import (
    Context,
    Controller,
    namespace_is_leaving,
    now,
    split_key,
)
from wherry.kube.controllers.job.plan import condition, is_finished
from wherry.kube.controllers.ownership import by_controller, controller_reference

SCHEDULED_AT: Final = "batch.kubernetes.io/cronjob-scheduled-timestamp"

_MANY_MISSED: Final = 100
_LONGEST_NAME: Final = 52  # characters; the Job's name adds a dash and ten digits to it


@dataclass(slots=True)
class Plan:
    """What is to be done now."""

    status: Object
    due: datetime | None = None
    """The time whose Job is to be made."""
    replace: list[Object] = field(default_factory=list)
    """Jobs that make room for it."""
    forget: list[Object] = field(default_factory=list)
    """Finished Jobs beyond the history that is kept."""
    events: list[tuple[str, str, str]] = field(default_factory=list)
    wait: float | None = None
    """Seconds until the next time is due."""


def times(
    cron_job: Object, schedule: Schedule, now: datetime
) -> tuple[datetime | None, int, datetime | None]:
    """The last time that was due and not served, how many such there are, and the next to come.

    Only times within ``startingDeadlineSeconds`` count; more than a hundred are not counted on.
    """
    spec, status = cron_job["spec"], cron_job.get("status") or {}
    zone = zoneinfo.ZoneInfo(spec["timeZone"]) if spec.get("timeZone") else UTC
    since = meta.creation_time(cron_job) or now
    if status.get("lastScheduleTime"):
        since = meta.parse_time(status["lastScheduleTime"])
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        since = max(since, now - timedelta(seconds=deadline))
    last: datetime | None = None
    missed = 0
    at = schedule.after(since.astimezone(zone))
    while at is not None and at <= now:
        last, missed = at, missed + 1
        if missed > _MANY_MISSED:
            last = _latest(schedule, at, now)
            at = schedule.after(last)
            break
        at = schedule.after(at)
    return last, missed, at


def _latest(schedule: Schedule, known: datetime, now: datetime) -> datetime:
    """The last time due up to ``now``, after ``known``, found by looking back ever further."""
    span = timedelta(minutes=2)
    while True:
        at = max(known, now.astimezone(known.tzinfo) - span)
        found = None
        following = schedule.after(at)
        while following is not None and following <= now:
            found, following = following, schedule.after(following)
        if found is not None:
            return found
        if at == known:
            return known
        span *= 8


def plan(cron_job: Object, jobs: Sequence[Object], now: datetime) -> Plan:
    """The next step for ``cron_job``, which owns ``jobs``."""
    spec, old = cron_job["spec"], cron_job.get("status") or {}
    known = {entry.get("uid") for entry in old.get("active") or ()}
    unfinished = [job for job in jobs if not is_finished(job)]
    running = [job for job in unfinished if meta.uid(job) in known or _is_scheduled(job)]
    status: Object = {k: v for k, v in old.items() if k != "active"}
    step = Plan(status)
    for job in jobs:
        if is_finished(job) and meta.uid(job) in known:
            good = condition(job.get("status") or {}, "Complete") is not None
            how = "Complete" if good else "Failed"
            step.events.append(
                (
                    NORMAL,
                    "SawCompletedJob",
                    f"Saw completed job: {meta.name(job)}, condition: {how}",
                )
            )
            ended = (job.get("status") or {}).get("completionTime")
            if good and ended and ended > (status.get("lastSuccessfulTime") or ""):
                status["lastSuccessfulTime"] = ended
    for job in unfinished:
        if job not in running:  # somebody made it by hand: it counts for nobody
            text = f"Saw a job that the controller did not create or forgot: {meta.name(job)}"
            step.events.append((WARNING, "UnexpectedJob", text))
    if running:
        status["active"] = [reference(JOBS, job) for job in sorted(running, key=meta.name)]
    step.forget = _history(spec, jobs)
    present = {meta.uid(job) for job in jobs}
    for entry in old.get("active") or ():
        if entry.get("uid") not in present:
            message = f"Active job went missing: {entry.get('name')}"
            step.events.append((NORMAL, "MissingJob", message))
    if meta.is_deleting(cron_job) or spec.get("suspend"):
        return step
    try:
        schedule = parse_schedule(spec["schedule"])
    except ScheduleError as error:
        text = f'unparseable schedule: "{spec["schedule"]}" : {error}'
        step.events.append((WARNING, "UnparseableSchedule", text))
        return step
    try:
        last, missed, following = times(cron_job, schedule, now)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        text = f'invalid timeZone: "{spec["timeZone"]}" : {error}'
        step.events.append((WARNING, "UnknownTimeZone", text))
        return step
    if following is not None:
        step.wait = max(0.0, (following - now).total_seconds())
    if missed > _MANY_MISSED:
        text = (
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check "
            "clock skew"
        )
        step.events.append((WARNING, "TooManyMissedTimes", text))
    if last is None:
        return step
    made = job_name(cron_job, last)
    if any(made == meta.name(job) for job in jobs):
        # Made, but not written down: it stays until it is, or it would be made again.
        status["lastScheduleTime"] = meta.format_time(last)
        step.forget = [job for job in step.forget if meta.name(job) != made]
        return step
    policy = spec.get("concurrencyPolicy") or "Allow"
    if policy == "Forbid" and running:
        text = (
            "Not starting job because prior execution is running and concurrency policy is Forbid"
        )
        step.events.append((NORMAL, "JobAlreadyActive", text))
        return step
    if policy == "Replace":
        step.replace = running
    step.due = last
    return step


def _is_scheduled(job: Object) -> bool:
    """Whether it was made by us: it may not be in the status yet."""
    return SCHEDULED_AT in meta.annotations(job)


def _history(spec: Object, jobs: Sequence[Object]) -> list[Object]:
    """The oldest finished Jobs beyond the limits."""
    surplus: list[Object] = []
    for type, limit in (
        ("Complete", spec.get("successfulJobsHistoryLimit", 3)),
        ("Failed", spec.get("failedJobsHistoryLimit", 1)),
    ):
        ended = [job for job in jobs if condition(job.get("status") or {}, type) is not None]
        ended.sort(key=lambda job: ((job["status"].get("startTime") or ""), meta.name(job)))
        surplus += ended[: max(0, len(ended) - limit)]
    return surplus


def job_name(cron_job: Object, due: datetime) -> str:
    """The name of the Job for a time: the same whoever makes it, so that none is made twice."""
    return f"{meta.name(cron_job)[:_LONGEST_NAME]}-{int(due.timestamp()) // 60}"


def make_job(cron_job: Object, due: datetime) -> Object:
    """The Job for the time ``due``."""
    template = cron_job["spec"]["jobTemplate"]
    given = template.get("metadata") or {}
    metadata: Object = {
        "name": job_name(cron_job, due),
        "namespace": meta.namespace(cron_job),
        "annotations": {**(given.get("annotations") or {}), SCHEDULED_AT: due.isoformat()},
        "ownerReferences": [controller_reference(cron_job, CRON_JOBS)],
    }
    if due.utcoffset() == timedelta(0):
        metadata["annotations"][SCHEDULED_AT] = meta.format_time(due)
    if given.get("labels"):
        metadata["labels"] = given["labels"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}


class CronJobController(Controller):
    """Makes a Job whenever a CronJob's time has come."""

    name = "cronjob-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("cronjob-controller")
        self.cron_jobs = self.watch(CRON_JOBS)
        self.cron_jobs.add_indexer("uid", lambda c: (meta.uid(c),))
        self.cron_jobs.add_handlers(on_add=self.enqueue, on_update=self.enqueue_update)
        self.jobs = self.watch(JOBS)
        self.jobs.add_indexer("controller", by_controller)
        self.jobs.add_handlers(
            on_add=self._job_changed,
            on_update=lambda _, job: self._job_changed(job),
            on_delete=self._job_changed,
        )

    def _job_changed(self, job: Object) -> None:
        controller = meta.controller_of(job)
        if controller is not None:
            for cron_job in self.cron_jobs.by_index("uid", controller["uid"]):
                self.enqueue(cron_job)

    async def sync(self, key: str) -> None:
        cron_job = self.cron_jobs.get(*split_key(key))
        if cron_job is None:
            return
        jobs = self.jobs.by_index("controller", meta.uid(cron_job))
        step = plan(cron_job, jobs, now())
        for type, reason, message in step.events:
            self.recorder.event(CRON_JOBS, cron_job, type, reason, message)
        for job in step.forget:
            await self._delete(cron_job, job)
        for job in step.replace:
            await self._delete(cron_job, job)
        if step.due is not None:
            made = await self._create(cron_job, step.due)
            if made is not None:
                step.status["lastScheduleTime"] = meta.format_time(step.due)
                kept = [
                    entry
                    for entry in step.status.get("active") or ()
                    if entry["uid"] not in {meta.uid(job) for job in step.replace}
                ]
                step.status["active"] = [*kept, reference(JOBS, made)]
        if step.status != (cron_job.get("status") or {}):
            body = {**cron_job, "status": step.status}
            await self.seen(CRON_JOBS, await self.client.update_status(CRON_JOBS, body))
        if step.wait is not None:
            self.queue.add_after(key, step.wait + 0.01)

    async def _create(self, cron_job: Object, due: datetime) -> Object | None:
        body = make_job(cron_job, due)
        try:
            made = await self.client.create(JOBS, body)
        except StatusError as error:
            if error.reason == "AlreadyExists":
                made = await self.client.get(JOBS, meta.name(body), meta.namespace(body))
                return made if meta.is_controlled_by(made, cron_job) else None
            if namespace_is_leaving(error):
                return None
            message = f"Error creating job: {error}"
            self.recorder.event(CRON_JOBS, cron_job, WARNING, "FailedCreate", message)
            raise
        message = f"Created job {meta.name(made)}"
        self.recorder.event(CRON_JOBS, cron_job, NORMAL, "SuccessfulCreate", message)
        return await self.seen(JOBS, made)

    async def _delete(self, cron_job: Object, job: Object) -> None:
        try:
            await self.client.delete(
                JOBS,
                meta.name(job),
                meta.namespace(job),
                uid=meta.uid(job),
                propagation="Background",
            )
        except StatusError as error:
            if error.code == 404:
                return
            message = f"Deleted job: {error}"
            self.recorder.event(CRON_JOBS, cron_job, WARNING, "FailedDelete", message)
            raise
        message = f"Deleted job {meta.name(job)}"
        self.recorder.event(CRON_JOBS, cron_job, NORMAL, "SuccessfulDelete", message)
