"""Finished Jobs and their time to live over random histories: the time is changed, taken away and
given anew, the Job is made anew under its name, and the controller looks at an old copy of it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

from fake_api import FakeAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.api.resources import JOBS
from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context
from wherry.kube.controllers.job import controller
from wherry.kube.controllers.job.controller import TTLAfterFinishedController
from wherry.kube.controllers.job.plan import expires_in

START = datetime.fromisoformat("2026-03-01T12:00:00+00:00")
KEY = "default/once"
ACTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["look", "look", "sync", "sync", "make", "finish"]), st.just(0)),
        st.tuples(st.sampled_from(["ttl", "quicker"]), st.none() | st.integers(0, 60)),
        st.tuples(st.just("wait"), st.integers(0, 60)),
    ),
    max_size=30,
)


class History:
    def __init__(self) -> None:
        self.api = FakeAPI()
        self.client = Client(self.api)
        self.now = START
        context = Context(self.client, SharedInformers(self.client))
        self.controller = TTLAfterFinishedController(context)
        self.copy: Object | None = None
        """What the controller's informer shows."""
        self.controller.jobs.get = lambda namespace, name: self.copy  # type: ignore[method-assign]
        self.asked: list[float] = []
        """After how many seconds it wants to look again."""
        self.controller.queue.add_after = lambda key, delay: self.asked.append(delay)  # type: ignore[method-assign]

    @property
    def job(self) -> Object | None:
        return self.api.get(JOBS, "once", "default")

    async def act(self, what: str, value: Any) -> None:
        if what == "make":
            if self.job is None or meta.is_deleting(self.job):
                self.api.objects.pop((JOBS, "default", "once"), None)
                metadata = {"name": "once", "namespace": "default"}
                await self.client.create(JOBS, {"metadata": metadata, "spec": {}})
        elif what == "wait":
            self.now += timedelta(seconds=value)
        elif what == "look":
            self.copy = self.job
        elif what == "sync":
            await self.sync()
        elif what == "quicker":  # somebody changes it after the controller has looked
            for each in ("look", "ttl", "sync"):
                await self.act(each, value)
        elif self.job is not None and what == "ttl":
            spec = {"ttlSecondsAfterFinished": value}
            await self.client.patch(JOBS, "once", {"spec": spec}, "default")
        elif self.job is not None and what == "finish" and not self.job.get("status"):
            when = meta.format_time(self.now)
            done = {"type": "Complete", "status": "True", "lastTransitionTime": when}
            status = {"status": {"conditions": [done]}}
            await self.client.patch(JOBS, "once", status, "default", subresource="status")

    async def sync(self) -> None:
        """One turn of the controller; nothing goes before its time."""
        before = self.job
        due = before is not None and expires_in(before, self.now) == 0
        self.asked.clear()
        try:
            await self.controller.sync(KEY)
        except controller.StatusError as error:
            assert error.code in (404, 409)
        after = self.job
        if before is not after:
            assert due, "it was removed before its time"
            assert after is None or meta.is_deleting(after)

    async def settle(self) -> None:
        """The controller sees what there is, and is asked again when it wished."""
        for _ in range(3):
            self.copy = self.job
            await self.sync()
            if not self.asked:
                break
            self.now += timedelta(seconds=min(self.asked))


@settings(max_examples=150)
@given(ACTS)
def test_a_job_goes_after_its_time_and_not_before(acts: list[tuple[str, Any]]) -> None:
    async def run() -> None:
        history = History()
        with patch.object(controller, "now", lambda: history.now):
            for what, value in (("make", 0), ("finish", 0), *acts):
                await history.act(what, value)
            kept = history.job
            due = kept is not None and expires_in(kept, history.now) is not None
            await history.settle()
            left = history.job
            assert left is None or meta.is_deleting(left) or not due, "it stayed"
            assert due or left is kept, "it went without having an end"

    asyncio.run(run())
