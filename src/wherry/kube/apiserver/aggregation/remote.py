"""Speaking to aggregated API servers: as ourselves, in a user's name, to whoever is behind the
Service.

Who asks is said in headers (``X-Remote-User`` …), which count because of the certificate that we
show: https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import SERVICES
from wherry.kube.apiserver.aggregation.services import Remote
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.proxying.carrier import Carrier, unreachable
from wherry.kube.apiserver.proxying.places import backends_of
from wherry.kube.apiserver.proxying.raw import Target, Unreachable
from wherry.kube.apiserver.request import User
from wherry.kube.client.https import HTTPSTransport

AGGREGATOR = User("system:kube-aggregator", ("system:masters",))
_PATIENCE = 5.0  # seconds for a request of our own
_MOST = 64 << 20  # bytes of a document that we read
_PARKED = 32  # connections of components that are kept
_KEY_CHARACTERS = "!#$&'*+-.^_`|~"


_Who = tuple[str, str, ssl.SSLContext, tuple[tuple[str, str], ...]]
"""Where a server is, its name, how it is believed, and in whose name it is asked."""


class NoBackend(Exception):
    """Nobody is behind the Service; ``str()`` says why."""


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """What we show to aggregated servers."""

    certificate: Path | None = None
    key: Path | None = None


def identity(user: User) -> Iterator[tuple[str, str]]:
    """The headers that say in whose name we ask."""
    yield "X-Remote-User", user.name
    if user.uid:
        yield "X-Remote-Uid", user.uid
    for group in user.groups:
        yield "X-Remote-Group", group
    extra = getattr(user, "extra", None) or {}
    for key, values in extra.items():
        name = f"X-Remote-Extra-{quote(key.lower(), safe=_KEY_CHARACTERS)}"
        for value in values:
            yield name, value


class Remotes:
    """Finds aggregated servers and asks them."""

    def __init__(self, cache: Cache, carrier: Carrier, front_proxy: FrontProxy) -> None:
        self._cache = cache
        self.carrier = carrier
        self._front_proxy = front_proxy
        self._contexts: dict[tuple[bytes, bool], ssl.SSLContext] = {}
        self._parked: dict[_Who, HTTPSTransport] = {}
        self.mounted: dict[tuple[str, str], tuple[str, int]] = {}
        """By namespace and name of a Service that need not exist: where a server is that came with
        us. A Service of that name goes before it."""

    def address(self, remote: Remote) -> tuple[str, int]:
        """One of the ready backends of its Service.

        Raises:
            NoBackend: there is none.
        """
        where = f'service/{remote.service} in "{remote.namespace}"'
        found = self._cache.of(SERVICES).get(remote.namespace, remote.service)
        if found is None:
            mounted = self.mounted.get((remote.namespace, remote.service))
            if mounted is None:
                raise NoBackend(f'service "{remote.service}" not found')
            return mounted
        spec = found.object["spec"]
        if spec.get("type") == "ExternalName":
            return spec["externalName"], remote.port
        for port in spec.get("ports") or ():
            if port["port"] == remote.port:
                backends = list(
                    backends_of(self._cache, remote.namespace, remote.service, port.get("name", ""))
                )
                if not backends:
                    raise NoBackend(f"no endpoints available for {where}")
                return random.choice(backends)  # noqa: S311 - not a secret
        raise NoBackend(f"{where} is not listening on port {remote.port}")

    def target(self, remote: Remote, path: str) -> Target:
        """Where a path (encoded, with query) of it is. Raises NoBackend."""
        host, port = self.address(remote)
        return Target(host, port, path, name=remote.host)

    def context(self, remote: Remote, *, believing: bool = False) -> ssl.SSLContext:
        """The TLS for it; ``believing``: whatever certificate it shows.

        Raises:
            ValueError: its authority is none.
        """
        key = (b"", True) if believing or remote.insecure else (remote.authority, False)
        found = self._contexts.get(key)
        if found is None:
            found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            authority, any_will_do = key
            if any_will_do:
                found.check_hostname = False
                found.verify_mode = ssl.CERT_NONE
            elif authority:
                try:
                    found.load_verify_locations(cadata=authority.decode("ascii"))
                except (ssl.SSLError, ValueError) as error:
                    raise ValueError("unable to load root certificates") from error
            else:
                found.load_default_certs()
            shown = self._front_proxy
            if shown.certificate and shown.key:
                found.load_cert_chain(shown.certificate, shown.key)
            if len(self._contexts) >= 256:
                self._contexts.clear()
            self._contexts[key] = found
        return found

    async def get(
        self, remote: Remote, path: str, accept: str, *, believing: bool = False
    ) -> tuple[int, str, bytes]:
        """Ask for a document as the aggregator: code, media type, body.

        Raises:
            NoBackend, Unreachable, ValueError: there is no answer.
        """
        target = self.target(remote, path)
        try:
            async with (
                asyncio.timeout(_PATIENCE),
                self.carrier.session.get(
                    URL(target.url, encoded=True),
                    headers=[*identity(AGGREGATOR), ("Accept", accept)],
                    ssl=self.context(remote, believing=believing),
                    server_hostname=target.name,
                    allow_redirects=False,
                ) as response,
            ):
                body = await response.content.read(_MOST)
                while more := await response.content.read(_MOST - len(body)):
                    body += more
                return response.status, response.headers.get("Content-Type", ""), body
        except TimeoutError as error:
            raise Unreachable(
                f'Get "{target.url}": context deadline exceeded '
                "(Client.Timeout exceeded while awaiting headers)"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            why = unreachable(target, error)
            raise Unreachable(f'Get "{target.url}": {why}') from error

    @asynccontextmanager
    async def transport(self, remote: Remote, user: User) -> AsyncIterator[HTTPSTransport]:
        """For components of this process, which ask by paths and get values. Its connection is
        kept for the next one who asks in the same name.

        Raises:
            ConnectionError: it cannot be asked.
        """
        try:
            host, port = self.address(remote)
            context = self.context(remote)
        except (NoBackend, ValueError) as error:
            raise ConnectionError(f"{remote.group_version}: {error}") from error
        who = Target(host, port, "").url, remote.host, context, tuple(identity(user))
        transport = self._parked.pop(who, None) or HTTPSTransport(
            who[0], context=context, server_name=remote.host, headers=who[3]
        )
        try:
            yield transport
        except BaseException as error:
            if not isinstance(error, StatusError):
                await transport.close()
                raise
            await self._park(who, transport)
            raise
        else:
            await self._park(who, transport)

    async def _park(self, who: _Who, transport: HTTPSTransport) -> None:
        """Keep it for the next, in the place of the one that has waited longest."""
        over = [self._parked.pop(who)] if who in self._parked else []
        while len(self._parked) >= _PARKED:
            over.append(self._parked.pop(next(iter(self._parked))))
        self._parked[who] = transport
        for each in over:
            await each.close()

    async def close(self) -> None:
        """Give connections back."""
        parked = list(self._parked.values())
        self._parked.clear()
        for each in parked:
            await each.close()


def decoded(body: bytes) -> Object:
    """A JSON object. Raises ValueError."""
    value = orjson.loads(body)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
