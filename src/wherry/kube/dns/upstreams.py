"""Who is asked for names that are not ours: the machine's name servers as they are now, or others
that the settings name. Never ourselves, neither directly nor by way of others.

Whether a server's questions come back is found out as by CoreDNS' plugin ``loop``
(https://coredns.io/plugins/loop/): it is asked for a name that nobody else asks for.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence

from wherry.host.resolv_conf import Latest, ResolvConf
from wherry.kube.dns.settings import PORT, Server, Settings, servers
from wherry.net.name_query import ask
from wherry.wire.dns import Question, asking, onward

log = logging.getLogger(__name__)

TIMEOUT, ATTEMPTS = 2.0, 3  # seconds for each
PATIENCE = 30.0  # seconds until a server whose questions came back is tried again
_HINFO = 13
_NOBODY = ResolvConf()

Routes = Mapping[str, Sequence[Server]]
"""The servers of each domain, that of all others being empty."""


class Upstreams:
    """Finds the servers for a name.

    Args:
        own: where we are asked ourselves.
    """

    def __init__(self, own: Iterable[Server] = ()) -> None:
        self._listening = frozenset(own)
        self._own = self._listening
        self._settings = Settings(resolv_conf="")
        self._latest: Latest | None = None
        self._seen: ResolvConf | None = None
        self._wanted: Routes = {}
        self._routes: Routes = {}
        self._looping: set[tuple[str, Server]] = set()
        self._checked = 0.0
        self._under_test: dict[str, tuple[str, Server]] = {}  # by the names that they are asked for
        self._tests: set[asyncio.Task[None]] = set()

    def configure(self, settings: Settings, addresses: Iterable[str]) -> None:
        """Do as ``settings`` say; ``addresses`` are more of our own."""
        path = "" if settings.upstreams else settings.resolv_conf
        self._settings = settings
        self._own = self._listening.union((address, PORT) for address in addresses)
        self._latest = Latest(path) if path else None
        self._seen = None

    def renew(self) -> bool:
        """Have another look at the machine's file; whether others are asked than before."""
        seen = _NOBODY if self._latest is None else self._latest.now()
        if seen is self._seen:
            if self._looping and time.monotonic() - self._checked > PATIENCE:
                self._check(self._looping)
            return False
        self._seen = seen
        everybody = self._settings.upstreams or servers(seen.servers)
        listed = {**self._settings.stubs, "": everybody}
        wanted = {
            domain: tuple(server for server in found if server not in self._own)
            for domain, found in listed.items()
        }
        if wanted == self._wanted:
            return False
        self._wanted = self._routes = wanted
        self._looping.clear()
        self._check((domain, server) for domain, found in wanted.items() for server in found)
        return True

    def servers_for(self, name: str) -> Sequence[Server]:
        """Whom to ask for ``name``, in small letters: the longest domain decides."""
        rest = name
        while rest:
            if rest in self._routes:
                return self._routes[rest]
            rest = rest.partition(".")[2]
        return self._routes.get("", ())

    def heard(self, question: Question) -> bool:
        """Whether it is ours, and has come back: who was asked it is left out from now on."""
        found = self._under_test.pop(question.name, None)
        if found is None:
            return False
        domain, server = found
        log.error(
            'Loop detected for zone "%s.": what %s:%d is asked comes back. It is left out, see '
            "https://coredns.io/plugins/loop#troubleshooting",
            domain,
            *server,
        )
        self._looping.add(found)
        self._leave_out()
        return True

    def _leave_out(self) -> None:
        self._routes = {
            domain: tuple(server for server in found if (domain, server) not in self._looping)
            for domain, found in self._wanted.items()
        }

    # -- loops

    def _check(self, whom: Iterable[tuple[str, Server]]) -> None:
        self._checked = time.monotonic()
        for domain, server in list(whom):
            task = asyncio.create_task(self._test(domain, server))
            self._tests.add(task)
            task.add_done_callback(self._tests.discard)

    async def _test(self, domain: str, server: Server) -> None:
        source = random.SystemRandom()
        labels = [str(source.getrandbits(63)) for _ in range(2)]
        name = ".".join((*labels, domain) if domain else labels)
        query = source.randbytes(2) + onward(asking(name, _HINFO))[2:]
        self._under_test[name] = domain, server
        try:
            for _ in range(ATTEMPTS):
                try:
                    async with asyncio.timeout(TIMEOUT):
                        await ask(query, server, datagram=True)
                    break
                except (OSError, EOFError, TimeoutError):
                    if name not in self._under_test:
                        break
        finally:
            came_back = self._under_test.pop(name, None) is None
        if not came_back and (domain, server) in self._looping:
            self._looping.discard((domain, server))
            self._leave_out()

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tests:
            task.cancel()
        await asyncio.gather(*self._tests, return_exceptions=True)
