"""Asks all kubelets what is used, at a steady pace.

At the start it asks again after two, four and eight seconds: a figure needs two samples.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import NODES
from wherry.kube.client.client import Client
from wherry.kube.client.transport import Object
from wherry.kube.metrics import samples
from wherry.kube.metrics.usage import Usages

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds for one kubelet
_AT_ONCE = 32
_MOST = 32 << 20  # bytes of one answer
_FIRST_PAUSE = 2.0


@dataclass(frozen=True, slots=True)
class Kubelets:
    """Who we are to kubelets, and whose certificates theirs must be; without ``authority`` any."""

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority)
        if self.authority is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


def address(node: Object) -> tuple[str, int] | None:
    """Where the kubelet of a node listens; None where it has not said."""
    status = node.get("status") or {}
    by_kind = {each["type"]: each["address"] for each in status.get("addresses") or ()}
    endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    for kind in ("InternalIP", "ExternalIP", "Hostname"):
        if kind in by_kind:
            return by_kind[kind], endpoint.get("Port") or 10250
    return None


class Scraper:
    """Keeps ``usages``. ``resolution`` is the time between samples, in seconds."""

    def __init__(
        self, client: Client, usages: Usages, kubelets: Kubelets, resolution: float
    ) -> None:
        self._client = client
        self._usages = usages
        self._kubelets = kubelets
        self._resolution = resolution
        self._silent: set[str] = set()
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Scrape until cancelled."""
        connector = aiohttp.TCPConnector(
            ssl=self._kubelets.context(), limit=0, keepalive_timeout=3 * self._resolution
        )
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=_PATIENCE),
        ) as session:
            pause = min(_FIRST_PAUSE, self._resolution)
            while True:
                begun = loop.time()
                try:
                    await self.scrape(session)
                except (StatusError, ConnectionError, TimeoutError) as error:
                    log.warning("the nodes are not to be had: %s", error)
                await asyncio.sleep(max(0.0, begun + pause - loop.time()))
                pause = min(2 * pause, self._resolution)

    async def scrape(self, session: aiohttp.ClientSession) -> None:
        """Ask every node once. Raises StatusError, ConnectionError where these are not known."""
        nodes = (await self._client.list(NODES)).get("items") or ()
        self._usages.keep({meta.name(node) for node in nodes})
        self._silent &= {meta.name(node) for node in nodes}
        await asyncio.gather(*(self._ask(session, node) for node in nodes))

    async def _ask(self, session: aiohttp.ClientSession, node: Object) -> None:
        name, where = meta.name(node), address(node)
        if where is None:
            return
        host = f"[{where[0]}]" if ":" in where[0] else where[0]
        url = f"https://{host}:{where[1]}/metrics/resource"
        try:
            async with self._gate, session.get(url) as response:
                body = await response.content.read(_MOST)
                while more := await response.content.read(_MOST - len(body)):
                    body += more
                if response.status != 200:
                    raise ConnectionError(
                        f"{response.status} {body[:200].decode(errors='replace')}"
                    )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # The figures of before would be taken for those of now.
            self._usages.forget(name)
            if name not in self._silent:
                self._silent.add(name)
                log.warning("node %s does not tell what it uses: %s", name, error or "timed out")
            return
        self._silent.discard(name)
        self._usages.put(name, samples.parse(body.decode(errors="replace"), time.time()))
