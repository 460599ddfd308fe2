"""An APIService for each group version that is served here, with upstream's priorities.

Those of the static table are written once, at the start, and left to people after that; those of
custom resources follow their definitions. Who takes away the mark that says so owns the object.
Upstream: kube-aggregator/pkg/controllers/autoregister, pkg/controlplane/apiserver/aggregator.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator

from wherry.kube.api.catalogue import Catalogue, Served
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import API_SERVICES
from wherry.kube.apiserver.aggregation.services import Services
from wherry.kube.apiserver.objects import Object
from wherry.kube.client.transport import Transport

log = logging.getLogger(__name__)

MARK = "kube-aggregator.kubernetes.io/automanaged"
_AT_START, _ALWAYS = "onstart", "true"
_AGAIN = 1.0  # seconds until what failed is tried again
_CUSTOM = (1000, 100)  # group and version priority of custom resources

_GROUPS = {
    "": 18000,
    "apps": 17800,
    "events.k8s.io": 17750,
    "authentication.k8s.io": 17700,
    "authorization.k8s.io": 17600,
    "autoscaling": 17500,
    "batch": 17400,
    "certificates.k8s.io": 17300,
    "networking.k8s.io": 17200,
    "extensions": 17150,
    "policy": 17100,
    "rbac.authorization.k8s.io": 17000,
    "storage.k8s.io": 16800,
    "apiextensions.k8s.io": 16700,
    "admissionregistration.k8s.io": 16700,
    "scheduling.k8s.io": 16600,
    "coordination.k8s.io": 16500,
    "node.k8s.io": 16300,
    "discovery.k8s.io": 16200,
    "flowcontrol.apiserver.k8s.io": 16100,
    "internal.apiserver.k8s.io": 16000,
    "resource.k8s.io": 15900,
    "storagemigration.k8s.io": 15800,
}
_VERSIONS = {"v1": 15, "v1beta2": 11, "v1beta1": 9, "v1alpha1": 1}
_PARTICULAR = {
    ("", "v1"): 1,
    ("autoscaling", "v2"): 30,
    ("autoscaling", "v2beta2"): 1,
    ("events.k8s.io", "v1beta1"): 5,
    ("extensions", "v1beta1"): 1,
    ("rbac.authorization.k8s.io", "v1beta1"): 12,
    ("scheduling.k8s.io", "v1beta1"): 12,
    ("admissionregistration.k8s.io", "v1beta1"): 12,
    ("discovery.k8s.io", "v1beta1"): 12,
    ("coordination.k8s.io", "v1beta1"): 13,
    ("flowcontrol.apiserver.k8s.io", "v1"): 21,
    ("flowcontrol.apiserver.k8s.io", "v1beta3"): 18,
    ("flowcontrol.apiserver.k8s.io", "v1beta2"): 15,
    ("flowcontrol.apiserver.k8s.io", "v1beta1"): 12,
    ("resource.k8s.io", "v1"): 20,
}


def priorities(group: str, version: str) -> tuple[int, int] | None:
    """The priority of a group and of its version; None where nobody is to be told of it."""
    if group not in _GROUPS:
        return None
    return _GROUPS[group], _PARTICULAR.get((group, version), _VERSIONS.get(version, 9))


def wanted(served: Served) -> Iterator[Object]:
    """The APIServices of all that is served here."""
    seen: set[tuple[str, str]] = set()
    for resource in served.resources:
        place = resource.group, resource.version
        if resource.hidden or place in seen:
            continue
        seen.add(place)
        known = priorities(*place)
        if known is None and not resource.custom:
            continue
        yield _made(*place, *(known or _CUSTOM), _AT_START if known else _ALWAYS)


def _made(group: str, version: str, least: int, priority: int, mark: str) -> Object:
    spec = {"version": version, "groupPriorityMinimum": least, "versionPriority": priority}
    if group:
        spec["group"] = group
    return {
        "apiVersion": API_SERVICES.api_version,
        "kind": API_SERVICES.kind,
        "metadata": {"name": f"{version}.{group}", "labels": {MARK: mark}},
        "spec": spec,
    }


def plan(
    wanted: Iterable[Object], present: Iterable[Object], *, first: bool
) -> Iterator[tuple[str, Object]]:
    """What to do, as (POST, PUT or DELETE, object). ``first``: the server has just started."""
    there = {o["metadata"]["name"]: o for o in present}
    names = set()
    for o in wanted:
        name, mark = o["metadata"]["name"], o["metadata"]["labels"][MARK]
        names.add(name)
        found = there.get(name)
        if found is None:
            if first or mark == _ALWAYS:
                yield "POST", o
            continue
        held = (found["metadata"].get("labels") or {}).get(MARK)
        if held not in (_AT_START, _ALWAYS) or (held == _AT_START and not first):
            continue
        if held != mark or found.get("spec") != o["spec"]:
            labels = {**found["metadata"]["labels"], MARK: mark}
            metadata = {**found["metadata"], "labels": labels}
            yield "PUT", {**found, "metadata": metadata, "spec": o["spec"]}
    for name, found in there.items():
        held = (found["metadata"].get("labels") or {}).get(MARK)
        if name not in names and (held == _ALWAYS or (held == _AT_START and first)):
            yield "DELETE", found


class Registration:
    """Keeps the APIServices of what is served here. Begins at once; ``complete`` tells whether
    the first round is over."""

    def __init__(self, catalogue: Catalogue, services: Services, transport: Transport) -> None:
        self._catalogue = catalogue
        self._services = services
        self._transport = transport
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.complete = False

    def start(self) -> None:
        self._catalogue.listen(lambda before, now: self._news.set())
        self._services.listen(lambda name: self._news.set())
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        while True:
            self._news.clear()
            todo = list(
                plan(wanted(self._catalogue.served), self._services.list(), first=not self.complete)
            )
            done = await asyncio.gather(*(self._do(*each) for each in todo))
            if all(done):
                self.complete = True
                await self._news.wait()
            else:
                await asyncio.sleep(_AGAIN)

    async def _do(self, method: str, o: Object) -> bool:
        path = API_SERVICES.path(None, "" if method == "POST" else o["metadata"]["name"])
        try:
            body = None if method == "DELETE" else o
            await self._transport.request(method, path, body=body)
        except StatusError as error:
            if error.code not in (404, 409):  # another server was quicker
                log.warning("APIService %s: %s", o["metadata"]["name"], error)
                return False
        except ConnectionError:
            return False
        return True
