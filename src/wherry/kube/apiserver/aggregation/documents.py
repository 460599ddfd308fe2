"""What aggregated servers tell of themselves, kept at hand: resources and OpenAPI.

Fetched whenever a server was found available. What a server said last stays when it is not, marked
as stale.
"""

from __future__ import annotations

import gzip
import logging
from dataclasses import dataclass, field
from hashlib import sha512
from typing import Any

import orjson

from wherry.kube.api.catalogue import Served
from wherry.kube.api.discovery import Discovery
from wherry.kube.apiserver.aggregation import openapi
from wherry.kube.apiserver.aggregation.discovery import (
    ACCEPT,
    Merged,
    from_list,
    resources_in,
    version_entry,
)
from wherry.kube.apiserver.aggregation.remote import NoBackend, Remotes, decoded
from wherry.kube.apiserver.aggregation.services import Remote, Services
from wherry.kube.apiserver.proxying.raw import Unreachable

log = logging.getLogger(__name__)

Document = dict[str, Any]


@dataclass(slots=True)
class Told:
    """What one server said of one group version. OpenAPI is kept compressed; ``v3`` only where we
    made it ourselves, for a server that has none."""

    remote: Remote
    resources: list[Document] = field(default_factory=list)
    stale: bool = True
    v3_url: str = ""
    v3: bytes = b""
    v2: bytes = b""


class Fetched:
    """What all aggregated servers said, merged with our own."""

    def __init__(self, services: Services, remotes: Remotes) -> None:
        self._services = services
        self._remotes = remotes
        self._told: dict[str, Told] = {}
        self._merged: tuple[Discovery, Merged] | None = None
        self._v2: tuple[Served, bytes] | None = None
        services.listen(lambda name: self._changed())

    @property
    def active(self) -> bool:
        """Whether anything is served elsewhere."""
        return bool(self._services.by_name)

    def _changed(self) -> None:
        self._merged = self._v2 = None

    # --- being told ------------------------------------------------------------------------------

    def forget(self, name: str) -> None:
        """It is no more."""
        if self._told.pop(name, None) is not None:
            self._changed()

    def stale(self, remote: Remote) -> None:
        """It does not answer."""
        told = self._told.setdefault(remote.name, Told(remote))
        if not told.stale:
            told.stale = True
            self._changed()

    async def refresh(self, remote: Remote) -> None:
        """Ask it again."""
        before = self._told.get(remote.name)
        try:
            told = Told(remote, await self._resources(remote), stale=False)
        except (NoBackend, Unreachable, ValueError) as error:
            log.warning("%s: what it serves is not to be had: %s", remote.group_version, error)
            self.stale(remote)
            return
        try:
            await self._openapi(told)
        except (NoBackend, Unreachable, ValueError) as error:
            log.info("%s has no OpenAPI document: %s", remote.group_version, error)
        if told != before:
            self._told[remote.name] = told
            self._changed()

    async def _resources(self, remote: Remote) -> list[Document]:
        code, media_type, body = await self._remotes.get(remote, "/apis", ACCEPT)
        if code == 200 and "as=APIGroupDiscoveryList" in media_type:
            found = resources_in(decoded(body), remote.group, remote.version)
            if found is not None:
                return found
        path = f"/apis/{remote.group_version}"
        code, _, body = await self._remotes.get(remote, path, "application/json")
        if code != 200:
            raise ValueError(f"{path} answered {code}")
        return from_list(decoded(body), remote.group, remote.version)

    async def _openapi(self, told: Told) -> None:
        remote, accept = told.remote, "application/json"
        code, _, body = await self._remotes.get(remote, "/openapi/v3", accept)
        if code == 200:
            paths = decoded(body).get("paths") or {}
            entry = paths.get(f"apis/{remote.group_version}") or {}
            told.v3_url = str(entry.get("serverRelativeURL") or "")
        code, _, body = await self._remotes.get(remote, "/openapi/v2", accept)
        if code != 200:
            return
        told.v2 = gzip.compress(body, 1, mtime=0)
        if not told.v3_url:
            told.v3 = orjson.dumps(openapi.v3_of_v2(decoded(body), remote.group_version))
            mark = sha512(told.v3).hexdigest().upper()
            told.v3_url = f"/openapi/v3/apis/{remote.group_version}?hash={mark}"

    # --- telling ---------------------------------------------------------------------------------

    def discovery(self, local: Discovery) -> Discovery:
        """All that is served, here and elsewhere."""
        if self._merged is None or self._merged[0] is not local:
            elsewhere = {}
            for remote in self._services.by_name.values():
                told = self._told.get(remote.name) or Told(remote)
                elsewhere[remote.group_version] = version_entry(
                    remote.version, told.resources, stale=told.stale
                )
            self._merged = local, Merged(local, self._services.list(), elsewhere)
        return self._merged[1]

    def v3_paths(self) -> Document:
        """Their entries in ``/openapi/v3``."""
        return {
            f"apis/{told.remote.group_version}": {"serverRelativeURL": told.v3_url}
            for told in self._told.values()
            if told.v3_url and told.remote.name in self._services.by_name
        }

    def v3_made(self, remote: Remote) -> bytes:
        """The OpenAPI 3 document that we made for one that has none; empty where it has."""
        told = self._told.get(remote.name)
        return told.v3 if told is not None else b""

    def v2(self, served: Served) -> Document:
        """The OpenAPI 2 document of everything."""
        document: Document = orjson.loads(served.openapi.v2_json())
        for told in self._told.values():
            if told.v2 and told.remote.name in self._services.by_name:
                theirs = orjson.loads(gzip.decompress(told.v2))
                document = openapi.merge_v2(document, theirs, told.remote.group_version)
        return document

    def v2_gzip(self, served: Served) -> bytes:
        """The same as JSON, compressed."""
        if self._v2 is None or self._v2[0] is not served:
            self._v2 = served, gzip.compress(orjson.dumps(self.v2(served)), 1, mtime=0)
        return self._v2[1]
