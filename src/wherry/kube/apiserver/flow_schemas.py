"""FlowSchemas say whether the priority level they lead to exists: condition Dangling.

Upstream: k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from wherry.kube.api.errors import StatusError
from wherry.kube.api.meta import now
from wherry.kube.api.resources import FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object
from wherry.kube.client.transport import Transport

log = logging.getLogger(__name__)

_AGAIN = 1.0  # seconds until what failed is tried again


def with_condition(schema: Object, *, exists: bool, moment: str) -> Object | None:
    """The FlowSchema with the condition; None where it says so already."""
    level = ((schema.get("spec") or {}).get("priorityLevelConfiguration") or {}).get("name", "")
    subject = f'This FlowSchema references the PriorityLevelConfiguration object named "{level}"'
    wanted = {
        "type": "Dangling",
        "status": "False" if exists else "True",
        "lastTransitionTime": moment,
        "reason": "Found" if exists else "NotFound",
        "message": f"{subject} and it exists"
        if exists
        else f"{subject} but there is no such object",
    }
    status = schema.get("status") or {}
    others = []
    for found in status.get("conditions") or ():
        if found.get("type") != "Dangling":
            others.append(found)
        elif found.get("status") == wanted["status"]:
            wanted["lastTransitionTime"] = found.get("lastTransitionTime", moment)
            if found == wanted:
                return None
    return {**schema, "status": {**status, "conditions": [*others, wanted]}}


class DanglingSchemas:
    """Keeps the condition of every FlowSchema."""

    def __init__(self, cache: Cache, transport: Transport) -> None:
        self._cache = cache
        self._transport = transport
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        for resource in (FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS):
            self._cache.of(resource).listen(lambda event: self._news.set())
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        while True:
            self._news.clear()
            if all(await asyncio.gather(*map(self._write, self._wrong()))):
                await self._news.wait()
            else:
                await asyncio.sleep(_AGAIN)

    def _wrong(self) -> list[Object]:
        levels = self._cache.of(PRIORITY_LEVEL_CONFIGURATIONS)
        found = []
        for stored in self._cache.of(FLOW_SCHEMAS).list():
            spec = stored.object.get("spec") or {}
            level = (spec.get("priorityLevelConfiguration") or {}).get("name", "")
            exists = levels.get("", level) is not None
            changed = with_condition(stored.object, exists=exists, moment=now())
            if changed is not None:
                found.append(changed)
        return found

    async def _write(self, schema: Object) -> bool:
        path = FLOW_SCHEMAS.path(None, schema["metadata"]["name"], "status")
        with contextlib.suppress(ConnectionError):
            try:
                await self._transport.request("PUT", path, body=schema)
                return True
            except StatusError as error:
                if error.code in (404, 409):  # it changed: there is news of it
                    return True
                log.warning("FlowSchema %s: %s", schema["metadata"]["name"], error)
        return False
