"""Write pod statuses to the API: only what changed, never two writes of one pod at a time.

A status that is replaced before it was sent is never sent. One that tells of nothing yet (the pod
is still being made) waits a moment, because most often the pod runs before that moment has passed,
and one write then tells all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PODS
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.client import STRATEGIC_MERGE_PATCH, Client
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.status import status_changes

log = logging.getLogger(__name__)

Object = dict[str, Any]
PATIENCE = 0.25  # seconds that a status without news waits for a better one
CONCURRENT = 10


@dataclass(slots=True)
class _Record:
    pod: Object  # the newest that the API has shown
    wanted: Object | None = None
    sending: Object | None = None  # on its way to the API, which does not show it yet
    gone: bool = False  # to be deleted behind the last status
    kick: asyncio.Event = field(default_factory=asyncio.Event)
    urgent: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class StatusManager:
    """The statuses of this node's pods on their way to the API."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._records: dict[str, _Record] = {}
        self._slots = asyncio.Semaphore(CONCURRENT)

    def set(self, pod: Object, status: Object, *, urgent: bool) -> None:
        """Have the API say ``status`` of ``pod``; at once if ``urgent``, else soon."""
        record = self._record(pod)
        if not status_changes(record.sending or record.pod.get("status") or {}, status):
            record.wanted = None
            return
        record.wanted = status
        record.idle.clear()
        record.kick.set()
        if urgent:
            record.urgent.set()

    def newest(self, pod: Object) -> Object:
        """``pod``, or the newer state of it that the API answered to our last write."""
        record = self._records.get(meta.uid(pod))
        if record is None or _version(record.pod) <= _version(pod):
            return pod
        return record.pod

    def mirrored(self, uid: str, mirror: Object) -> None:
        """``mirror`` stands in the API for the static pod ``uid``, and shows its status.

        A mirror that is not in the API (any more) has no resourceVersion; what is told meanwhile
        waits for the next one.
        """
        record = self._record(mirror, uid)
        record.pod = mirror
        if record.wanted is not None:
            record.kick.set()
            record.urgent.set()

    async def finish(self, pod: Object, status: Object) -> None:
        """Write the last status of a pod that is being deleted, then remove it from the API.

        Returns when it is done or the pod is no longer there; goes on trying while the API is away.
        """
        record = self._record(pod)
        record.gone = True
        record.wanted = status
        record.idle.clear()
        record.kick.set()
        record.urgent.set()
        await record.idle.wait()
        self.forget(meta.uid(pod))

    def forget(self, uid: str) -> None:
        """The pod is no longer there."""
        record = self._records.pop(uid, None)
        if record is not None and record.task is not None:
            record.task.cancel()

    async def flush(self, uid: str) -> None:
        """Return once everything that was set for a pod has been written."""
        record = self._records.get(uid)
        if record is None:
            return
        if record.wanted is not None:
            record.urgent.set()
        if record.wanted is not None or record.sending is not None:
            await record.idle.wait()

    async def close(self) -> None:
        """Stop writing."""
        tasks = [r.task for r in self._records.values() if r.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _record(self, pod: Object, uid: str = "") -> _Record:
        uid = uid or meta.uid(pod)
        record = self._records.get(uid)
        if record is None:
            record = self._records[uid] = _Record(pod)
            record.idle.set()
            name = f"status of {pods.describe(pod)}"
            record.task = asyncio.create_task(self._write_all(uid, record), name=name)
        elif _version(pod) > _version(record.pod):
            record.pod = pod
        return record

    async def _write_all(self, uid: str, record: _Record) -> None:
        backoff = Backoff(0.1, 10)
        while True:
            await record.kick.wait()
            record.kick.clear()
            if not record.urgent.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(record.urgent.wait(), PATIENCE)
            record.urgent.clear()
            try:
                async with self._slots:
                    await self._write(uid, record)
                backoff.reset()
            except (StatusError, ConnectionError, TimeoutError) as error:
                log.warning("status of %s: %s", pods.describe(record.pod), error)
                await asyncio.sleep(backoff.next())
                record.kick.set()
                record.urgent.set()
                continue
            if record.wanted is None and not record.gone:
                record.idle.set()

    async def _write(self, uid: str, record: _Record) -> None:
        pod = record.pod
        if not meta.resource_version(pod):
            return  # a static pod without its mirror
        wanted, record.wanted = record.wanted, None
        record.sending = wanted
        try:
            changes = status_changes(pod.get("status") or {}, wanted) if wanted else {}
            if changes:
                patch = {"metadata": {"uid": meta.uid(pod)}, "status": _as_patch(pod, changes)}
                await self._patch(pod, record, patch)
            if record.gone and record.wanted is None:
                await self._client.delete(
                    PODS, meta.name(pod), meta.namespace(pod), uid=meta.uid(pod), grace=0
                )
                record.gone = False
        except BaseException as error:
            if isinstance(error, StatusError) and await self._is_another(
                error, meta.uid(pod), record
            ):
                record.gone = False
                return
            if record.wanted is None:
                record.wanted = wanted
            raise
        finally:
            record.sending = None

    async def _patch(self, pod: Object, record: _Record, patch: Object) -> None:
        try:
            answer = await self._client.patch(
                PODS,
                meta.name(pod),
                patch,
                meta.namespace(pod),
                content_type=STRATEGIC_MERGE_PATCH,
                subresource="status",
            )
        except StatusError as error:
            if error.code != 422 or not record.gone:
                raise
            # What nobody takes must not keep a pod of which nothing is left.
            log.warning("last status of %s: %s", pods.describe(pod), error)
            return
        if _version(answer) > _version(record.pod):
            record.pod = answer

    async def _is_another(self, error: StatusError, uid: str, record: _Record) -> bool:
        """Whether a refusal means that the pod is no longer there (or another of its name is)."""
        if error.code == 404:
            return True
        if error.code != 409:
            return False
        try:
            current = await self._client.get(
                PODS, meta.name(record.pod), meta.namespace(record.pod)
            )
        except StatusError as missing:
            return missing.code == 404
        if meta.uid(current) != uid:
            return True
        record.pod = current
        return False


def _as_patch(pod: Object, changes: Object) -> Object:
    """``changes`` with what a strategic merge of ``podIPs`` (by address) would leave behind."""
    if "podIPs" not in changes:
        return changes
    kept = {entry["ip"] for entry in changes["podIPs"]}
    old = (pod.get("status") or {}).get("podIPs") or ()
    removed = [{"$patch": "delete", "ip": e["ip"]} for e in old if e["ip"] not in kept]
    return {**changes, "podIPs": [*changes["podIPs"], *removed]}


def _version(pod: Object) -> int:
    text = meta.resource_version(pod)
    return int(text) if text.isdigit() else 0
