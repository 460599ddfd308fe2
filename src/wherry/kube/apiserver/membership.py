"""Who serves the API: the backends of the Service ``kubernetes``.

Servers that share a store each keep a key of their own fresh
(``/registry/masterleases/ADDRESS:PORT``); one whose key stands still is dead, and leaves the list.
Whether a key stands still is judged by the revision it is at and one's own clock, so clocks need
not agree. A server alone on its store is the only one.
Upstream: pkg/controlplane/reconcilers/lease.go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

import orjson

from wherry.kube.api.endpoint_slices import SERVICE_NAME
from wherry.kube.api.errors import StatusError
from wherry.kube.api.families import family_of
from wherry.kube.api.resources import ENDPOINT_SLICES, ENDPOINTS, Resource
from wherry.kube.apiserver.objects import Object
from wherry.kube.client.transport import Transport
from wherry.kube.store.types import (
    KeyExists,
    KeyNotFound,
    RevisionMismatch,
    Store,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

PREFIX = "/registry/masterleases/"
PERIOD = 10.0
"""Seconds between two signs of life."""
LIFETIME = 15.0
"""Seconds after which a server that gave none is dead."""
_FAREWELL = 2.0
_NAME, _NAMESPACE = "kubernetes", "default"

Member = tuple[str, int]
"""Address and port."""


def endpoints(members: Iterable[Member]) -> Object:
    """The Endpoints of those servers."""
    by_port: dict[int, list[str]] = {}
    for address, port in sorted(members):
        by_port.setdefault(port, []).append(address)
    return {
        "apiVersion": ENDPOINTS.api_version,
        "kind": ENDPOINTS.kind,
        "metadata": {
            "name": _NAME,
            "namespace": _NAMESPACE,
            # The slice below is ours as well: nobody must mirror it from here.
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [
            {
                "addresses": [{"ip": address} for address in addresses],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }
            for port, addresses in sorted(by_port.items())
        ],
    }


def endpoint_slice(members: Iterable[Member]) -> Object:
    """Their EndpointSlice. It has one port: of servers on several, those on the first are in it."""
    found = sorted(members)
    first, port = found[0] if found else ("", 0)
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": {
            "name": _NAME,
            "namespace": _NAMESPACE,
            "labels": {SERVICE_NAME: _NAME},
        },
        "addressType": family_of(first),
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True}}
            for address, each in found
            if each == port and family_of(address) == family_of(first)
        ],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}] if found else [],
    }


class Membership:
    """One server's part in the list. Times are in seconds."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        member: Member,
        *,
        period: float = PERIOD,
        lifetime: float = LIFETIME,
    ) -> None:
        self._store = store
        self._transport = transport
        self._member = member
        self._key = f"{PREFIX}{member[0]}:{member[1]}"
        self._period, self._lifetime = period, lifetime
        self._seen: dict[str, tuple[int, float]] = {}
        self._task: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Be in the list, and stay there."""
        if not self._store.shared:
            await self._publish({self._member})
            return
        await self._round()
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def leave(self) -> None:
        """Be in the list no more."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        try:
            async with asyncio.timeout(_FAREWELL):
                await self._store.delete(self._key)
                await self._publish(await self._alive())
        except (KeyNotFound, StoreUnavailable, StatusError, ConnectionError, TimeoutError) as error:
            log.info("the list of servers keeps this one until its time is over: %s", error)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            try:
                await self._round()
            except (StoreUnavailable, StatusError, ConnectionError) as error:
                log.warning("the list of servers is not up to date: %s", error)

    async def _round(self) -> None:
        await self._renew()
        await self._publish(await self._alive())

    async def _renew(self) -> None:
        """Give a sign of life."""
        value = orjson.dumps({"renewed": time.time()})
        found = await self._store.get(self._key)
        try:
            if found is None:
                await self._store.create(self._key, value)
            else:
                await self._store.update(self._key, value, found.mod_revision)
        except (KeyExists, KeyNotFound, RevisionMismatch):
            return  # somebody else wrote it just now: that is a sign, too

    async def _alive(self) -> set[Member]:
        """Those who have given a sign lately; the keys of others are removed."""
        values, _ = await self._store.range(PREFIX)
        moment = time.monotonic()
        seen: dict[str, tuple[int, float]] = {}
        alive: set[Member] = set()
        for kv in values:
            revision, since = self._seen.get(kv.key, (0, moment))
            if revision != kv.mod_revision:
                since = moment
            seen[kv.key] = kv.mod_revision, since
            address, _, port = kv.key.removeprefix(PREFIX).rpartition(":")
            if moment - since <= self._lifetime and port.isdigit():
                alive.add((address, int(port)))
            elif kv.key != self._key:
                try:
                    await self._store.delete(kv.key, kv.mod_revision)
                except (KeyNotFound, RevisionMismatch):
                    continue
        self._seen = seen
        return alive

    async def _publish(self, members: set[Member]) -> None:
        if not members:
            return
        wanted = endpoints(members)
        await self._ensure(ENDPOINTS, wanted, ("subsets",))
        await self._ensure(ENDPOINT_SLICES, endpoint_slice(members), ("endpoints", "ports"))

    async def _ensure(self, resource: Resource, wanted: Object, parts: tuple[str, ...]) -> None:
        path = resource.path(_NAMESPACE, _NAME)
        while True:
            try:
                found = await self._transport.request("GET", path)
                if all(found.get(part) == wanted[part] for part in parts):
                    return
                body = {**found, **{part: wanted[part] for part in parts}}
                await self._transport.request("PUT", path, body=body)
                return
            except StatusError as error:
                if error.reason == "Conflict":
                    continue
                if error.code != 404:
                    raise
            try:
                await self._transport.request("POST", resource.path(_NAMESPACE), body=wanted)
                return
            except StatusError as error:
                if error.reason != "AlreadyExists":  # by another server, at the same moment
                    raise
