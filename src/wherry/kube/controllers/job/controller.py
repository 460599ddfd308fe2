"""The loop around ``plan``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import JOBS, PODS
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, now, split_key
from wherry.kube.controllers.job.plan import (
    Backoff,
    Plan,
    condition,
    expires_in,
    is_finished,
    plan,
)
from wherry.kube.controllers.job.pod import FINALIZER, is_tracked
from wherry.kube.controllers.pod_owners import PodOwnerController, first_error

_ORPHAN = "orphan "
"""Begins the keys of pods whose Job is gone."""

_MANAGER = "kubernetes.io/job-controller"


def is_ours(job: Object) -> bool:
    """Whether no controller of somebody else's keeps the Job."""
    return (job["spec"].get("managedBy") or _MANAGER) == _MANAGER


class JobController(PodOwnerController):
    """Runs the pods of Jobs to completion."""

    name = "job-controller"
    component = "job-controller"
    resource = JOBS

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._backoffs: dict[str, Backoff] = {}
        self.owners.add_handlers(on_delete=self._job_gone)
        self.pods.add_handlers(
            on_add=self._look_for_owner, on_update=lambda _, pod: self._look_for_owner(pod)
        )

    def _job_gone(self, job: Object) -> None:
        self._backoffs.pop(meta.uid(job), None)
        for pod in self.pods.by_index("controller", meta.uid(job)):
            self._look_for_owner(pod)

    def _look_for_owner(self, pod: Object) -> None:
        """A pod that we track and whose Job is no more is let go."""
        if not is_tracked(pod):
            return
        controller = meta.controller_of(pod)
        if controller is None or not self.owners.by_index("uid", controller["uid"]):
            self.queue.add(_ORPHAN + meta.key(pod))

    # -- acting

    async def sync(self, key: str) -> None:
        if key.startswith(_ORPHAN):
            await self._let_orphan_go(key.removeprefix(_ORPHAN))
            return
        job = self.owners.get(*split_key(key))
        await self.settle_doubt(key, job)
        if job is None or not is_ours(job):
            return
        owned = await self.claim(job)
        backoff = self._backoffs.get(meta.uid(job), Backoff())
        step = plan(job, owned, self.removed, backoff, now())
        before = job
        if step.delete:
            # Why the Job ends is written down first: without its pods one could not tell any more.
            job, backoff = await self.report(job, step.status), step.backoff
        error = await self._act(job, step)
        if step.create or step.withdraw or step.delete:
            step = plan(job, self.owned(job), self.removed, backoff, now())
        job = await self.report(job, step.status)
        if not is_finished(job):
            self._backoffs[meta.uid(job)] = step.backoff
        else:
            self._backoffs.pop(meta.uid(job), None)
        self._tell_changes(before, job)
        await self._release(step.release)
        if step.check_after is not None:
            self.queue.add_after(key, step.check_after + 0.01)
        if error is not None:
            raise error

    async def _act(self, job: Object, step: Plan) -> Exception | None:
        await self._release([pod for pod in step.withdraw if is_tracked(pod)])
        error = await self.remove(job, [*step.withdraw, *step.delete])
        return await self.make(job, step.create) or error

    async def _release(self, pods: Sequence[Object]) -> None:
        """Take the finalizer from the pods."""
        results = await asyncio.gather(*map(self._untrack, pods), return_exceptions=True)
        error = first_error(results)
        if error is not None:
            raise error

    async def _untrack(self, pod: Object) -> None:
        rest = [finalizer for finalizer in meta.finalizers(pod) if finalizer != FINALIZER]
        patch = {
            "metadata": {
                "uid": meta.uid(pod),
                "resourceVersion": meta.resource_version(pod),
                "finalizers": rest or None,
            }
        }
        try:
            written = await self.client.patch(PODS, meta.name(pod), patch, meta.namespace(pod))
        except StatusError as error:
            if error.code == 404:
                return
            raise
        await self.seen(PODS, written)

    async def _let_orphan_go(self, key: str) -> None:
        pod = self.pods.get(*split_key(key))
        if pod is None or not is_tracked(pod):
            return
        controller = meta.controller_of(pod)
        if controller is not None and await self._is_there(controller, meta.namespace(pod)):
            return
        await self._untrack(pod)

    async def _is_there(self, controller: Object, namespace: str) -> bool:
        """Whether the Job is there, by the server's word: our copy may be the older."""
        if controller.get("kind") != self.resource.kind:
            return True
        try:
            job = await self.client.get(JOBS, controller["name"], namespace)
        except StatusError as error:
            if error.code == 404:
                return False
            raise
        return bool(meta.uid(job) == controller["uid"])

    def _tell_changes(self, old: Object, new: Object) -> None:
        """Events for the conditions that came to hold."""
        before, after = old.get("status") or {}, new.get("status") or {}
        for type, level, reason in (
            ("Complete", NORMAL, "Completed"),
            ("Failed", WARNING, ""),
            ("Suspended", NORMAL, "Suspended"),
        ):
            found = condition(after, type)
            if found is None or condition(before, type) is not None:
                continue
            message = "Job completed" if type == "Complete" else found.get("message", "")
            self.tell(new, level, reason or found.get("reason", ""), message)
        if condition(before, "Suspended") is not None and condition(after, "Suspended") is None:
            self.tell(new, NORMAL, "Resumed", "Job resumed")


class TTLAfterFinishedController(Controller):
    """Removes finished Jobs when their time is over."""

    name = "ttl-after-finished-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.jobs = self.watch(JOBS)
        self.jobs.add_handlers(on_add=self.enqueue, on_update=self.enqueue_update)

    async def sync(self, key: str) -> None:
        job = self.jobs.get(*split_key(key))
        wait = expires_in(job, now()) if job is not None else None
        if job is None or wait is None:
            return
        if wait > 0:
            self.queue.add_after(key, wait + 0.01)
            return
        # Not on the word of a copy: the time may have been extended just now.
        fresh = await self.client.get(JOBS, meta.name(job), meta.namespace(job))
        if meta.uid(fresh) != meta.uid(job) or expires_in(fresh, now()) != 0:
            return
        await self.client.delete(
            JOBS,
            meta.name(job),
            meta.namespace(job),
            uid=meta.uid(fresh),
            resource_version=meta.resource_version(fresh),
            propagation="Foreground",
        )
