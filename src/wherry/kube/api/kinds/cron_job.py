"""CronJobs.

Upstream: pkg/apis/batch/v1/defaults.go, pkg/apis/batch/validation/validation.go and
pkg/registry/batch/cronjob/strategy.go.
"""

from __future__ import annotations

import zoneinfo
from datetime import datetime
from typing import Any, Final

from wherry.kube.api.cron import ScheduleError, parse_schedule
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields, label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.job import check_job_spec
from wherry.kube.api.kinds.podspec.defaults import default_template
from wherry.kube.api.kinds.replicated import TEMPLATE_COLUMNS, template_cells

_POLICIES = ("Allow", "Forbid", "Replace")
_NAME_LIMIT: Final = 52
"""A job's name is the cron job's with eleven characters more, and at most 63 long."""

_ZONES = "must be an explicit time zone as defined in https://www.iana.org/time-zones"


class CronJob(Kind):
    """A job that is run at certain times."""

    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("Schedule", description="When it runs, as cron writes it."),
        Column("Timezone", description="Where those times are meant."),
        Column("Suspend", "boolean", description="Whether no more jobs are started."),
        Column("Active", "integer", description="Jobs that run now."),
        Column("Last Schedule", description="Time since a job was last started."),
        AGE_COLUMN,
        *TEMPLATE_COLUMNS,
    )

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        if not spec.get("concurrencyPolicy"):
            spec["concurrencyPolicy"] = "Allow"
        spec.setdefault("suspend", False)
        spec.setdefault("successfulJobsHistoryLimit", 3)
        spec.setdefault("failedJobsHistoryLimit", 1)
        job = spec.setdefault("jobTemplate", {})
        job.setdefault("metadata", {})
        default_template(job.setdefault("spec", {}).setdefault("template", {}))

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        _check_spec(o.get("spec") or {}, faults)
        name = o["metadata"].get("name", "")
        if len(name) > _NAME_LIMIT:
            why = f"must be no more than {_NAME_LIMIT} characters"
            faults.append(fields.invalid("metadata.name", name, why))
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        _check_spec(new.get("spec") or {}, faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        job = (spec.get("jobTemplate") or {}).get("spec") or {}
        last = status.get("lastScheduleTime")
        return [
            meta.get("name", ""),
            spec.get("schedule", ""),
            spec.get("timeZone") or "<none>",
            "True" if spec.get("suspend") else "False",
            len(status.get("active") or ()),
            age(last, now) if last else "<none>",
            age(meta.get("creationTimestamp"), now),
            *template_cells(job),
            label_selectors.selector_text(job.get("selector")),
        ]


def _check_spec(spec: Object, faults: Faults) -> None:
    _check_schedule(spec.get("schedule", ""), spec.get("timeZone"), faults)
    deadline = spec.get("startingDeadlineSeconds", 0)
    faults += fields.non_negative("spec.startingDeadlineSeconds", deadline)
    policy = spec.get("concurrencyPolicy", "")
    if not policy:
        faults.append(fields.required("spec.concurrencyPolicy"))
    elif policy not in _POLICIES:
        faults.append(fields.not_supported("spec.concurrencyPolicy", policy, _POLICIES))
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    check_job_spec(job, "spec.jobTemplate.spec", faults)
    if job.get("selector") is not None:
        shown = label_selectors.as_shown(job["selector"])
        why = "`selector` will be auto-generated"
        faults.append(fields.invalid("spec.jobTemplate.spec.selector", shown, why))
    if job.get("manualSelector"):
        where = "spec.jobTemplate.spec.manualSelector"
        faults.append(fields.not_supported(where, True, ("nil", "false")))
    for name in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        faults += fields.non_negative(f"spec.{name}", spec.get(name, 0))


def _check_schedule(schedule: str, zone: str | None, faults: Faults) -> None:
    where = "spec.schedule"
    if not schedule:
        faults.append(fields.required(where))
    else:
        try:
            parse_schedule(schedule)
        except ScheduleError as error:
            faults.append(fields.invalid(where, schedule, str(error)))
        if "TZ" in schedule:
            why = (
                "cannot use both timeZone field and TZ or CRON_TZ in schedule"
                if zone is not None
                else "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            )
            faults.append(fields.invalid(where, schedule, why))
    if zone is None:
        return
    if not zone:
        faults.append(
            fields.invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")
        )
    elif zone.lower() == "local":
        faults.append(fields.invalid("spec.timeZone", zone, f"timeZone {_ZONES}"))
    else:
        try:
            zoneinfo.ZoneInfo(zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            faults.append(fields.invalid("spec.timeZone", zone, f"unknown time zone {zone}"))
