"""Whether aggregated API servers can be used, written into the condition Available.

Looked at whenever an APIService, its Service or its EndpointSlices change, and every half minute,
for what no watch tells: that a server has stopped to answer.
Upstream: kube-aggregator/pkg/controllers/status/remote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from wherry.kube.api.endpoint_slices import SERVICE_NAME, is_ready
from wherry.kube.api.meta import now
from wherry.kube.api.resources import API_SERVICES, ENDPOINT_SLICES, SERVICES
from wherry.kube.apiserver.aggregation.documents import Fetched
from wherry.kube.apiserver.aggregation.remote import NoBackend, Remotes
from wherry.kube.apiserver.aggregation.services import Remote, Services
from wherry.kube.apiserver.cache import Cache, Event
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.proxying.places import slices_of
from wherry.kube.apiserver.proxying.raw import Unreachable
from wherry.kube.client.queue import WorkQueue, work
from wherry.kube.client.transport import Transport

PERIOD = 30.0  # seconds
_ATTEMPTS = 5
_PATIENCE = 6.0  # seconds, after which no further attempt begins
_WORKERS = 5

Verdict = tuple[str, str, str]
"""Status, reason and message of the condition."""

PASSED: Verdict = ("True", "Passed", "all checks passed")


def judge(
    remote: Remote, service: Object | None, slices: Sequence[Object], *, mounted: bool = False
) -> Verdict | None:
    """What can be said without asking the server; None: it must be asked. One that is ``mounted``
    needs no Service."""
    where = f'service/{remote.service} in "{remote.namespace}"'
    if service is None:
        if mounted:
            return None
        return "False", "ServiceNotFound", f"{where} is not present"
    spec = service["spec"]
    if spec.get("type", "ClusterIP") != "ClusterIP":
        return None
    port = next((p for p in spec.get("ports") or () if p["port"] == remote.port), None)
    if port is None:
        return "False", "ServicePortError", f"{where} is not listening on port {remote.port}"
    if not slices:
        return "False", "EndpointsNotFound", f"cannot find endpointslices for {where}"
    name = port.get("name", "")
    if any(_serves(each, name) for each in slices):
        return None
    message = f'endpointslices for {where} have no addresses with port name "{name}"'
    return "False", "MissingEndpoints", message


def _serves(piece: Object, port_name: str) -> bool:
    return any(is_ready(endpoint) for endpoint in piece.get("endpoints") or ()) and any(
        (p.get("name") or "") == port_name and p.get("port") for p in piece.get("ports") or ()
    )


def with_condition(o: Object, verdict: Verdict, moment: str) -> Object | None:
    """The APIService with the verdict in its status; None where it says that already."""
    state, reason, message = verdict
    conditions = list((o.get("status") or {}).get("conditions") or ())
    condition = {
        "type": "Available",
        "status": state,
        "lastTransitionTime": moment,
        "reason": reason,
        "message": message,
    }
    for i, found in enumerate(conditions):
        if found.get("type") == "Available":
            if found.get("status") == state:
                condition["lastTransitionTime"] = found.get("lastTransitionTime")
            if condition == found:
                return None
            conditions[i] = condition
            break
    else:
        conditions.append(condition)
    return {**o, "status": {**(o.get("status") or {}), "conditions": conditions}}


class Availability:
    """Keeps the condition of every APIService that is served elsewhere."""

    def __init__(
        self,
        cache: Cache,
        services: Services,
        remotes: Remotes,
        fetched: Fetched,
        transport: Transport,
    ) -> None:
        self._cache = cache
        self._services = services
        self._remotes = remotes
        self._fetched = fetched
        self._transport = transport
        self.queue: WorkQueue[str] = WorkQueue(cap=PERIOD)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._services.listen(self.queue.add)
        self._cache.of(SERVICES).listen(self._service_changed)
        self._cache.of(ENDPOINT_SLICES).listen(self._slice_changed)
        for o in self._services.list():
            self.queue.add(o["metadata"]["name"])
        loop = asyncio.get_running_loop()
        working = work(self.queue, self.sync, workers=_WORKERS, name="apiservice-availability")
        self._tasks = [loop.create_task(working), loop.create_task(self._again())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _again(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            for name in self._services.by_name:
                self.queue.add(name)

    def _service_changed(self, event: Event) -> None:
        self._concern(lambda remote: event.key == f"{remote.namespace}/{remote.service}")

    def _slice_changed(self, event: Event) -> None:
        if not self._services.by_name:
            return
        stored = event.current or event.previous
        assert stored is not None
        metadata = stored.object["metadata"]
        name = (metadata.get("labels") or {}).get(SERVICE_NAME)
        self._concern(lambda r: (r.namespace, r.service) == (metadata["namespace"], name))

    def _concern(self, concerned: Callable[[Remote], bool]) -> None:
        for name, remote in self._services.by_name.items():
            if concerned(remote):
                self.queue.add(name)

    async def sync(self, name: str) -> None:
        """Look at one. Raises ConnectionError where it is to be looked at again soon."""
        o, remote = self._services.get(name), self._services.by_name.get(name)
        if o is None or remote is None:
            self._fetched.forget(name)
            if o is not None:
                local = ("True", "Local", "Local APIServices are always available")
                await self._write(o, local)
            return
        service = self._cache.of(SERVICES).get(remote.namespace, remote.service)
        slices = slices_of(self._cache, remote.namespace, remote.service)
        mounted = (remote.namespace, remote.service) in self._remotes.mounted
        verdict = judge(remote, service.object if service else None, slices, mounted=mounted)
        fault = ""
        if verdict is None:
            fault = await self._ask(remote)
            verdict = ("False", "FailedDiscoveryCheck", fault) if fault else PASSED
        if verdict is PASSED:
            await self._fetched.refresh(remote)
        else:
            self._fetched.stale(remote)
        await self._write(o, verdict)
        if fault:
            raise ConnectionError(fault)

    async def _ask(self, remote: Remote) -> str:
        """Why its discovery document is not to be had, "" where it is: of several requests, which
        may meet several backends, one is enough."""
        fault = ""
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        for _ in range(_ATTEMPTS):
            fault = await self._discover(remote)
            if not fault or asyncio.get_running_loop().time() > deadline:
                break
        return fault

    async def _discover(self, remote: Remote) -> str:
        path = f"/apis/{remote.group_version}"
        try:
            url = self._remotes.target(remote, path).url
            code, _, _ = await self._remotes.get(remote, path, "application/json", believing=True)
        except (NoBackend, ValueError) as error:
            return str(error)
        except Unreachable as error:
            return f"failing or missing response from {url}: {error}"
        if 200 <= code < 300:
            return ""
        why = f"bad status from {url}: {code}"
        return f"failing or missing response from {url}: {why}"

    async def _write(self, o: Object, verdict: Verdict) -> None:
        changed = with_condition(o, verdict, now())
        if changed is not None:
            path = API_SERVICES.path(None, o["metadata"]["name"], "status")
            await self._transport.request("PUT", path, body=changed)
