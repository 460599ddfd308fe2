"""The aggregation layer as a whole."""

from __future__ import annotations

from wherry.kube.api.catalogue import Catalogue
from wherry.kube.apiserver.aggregation.availability import Availability
from wherry.kube.apiserver.aggregation.documents import Fetched
from wherry.kube.apiserver.aggregation.proxy import Aggregated
from wherry.kube.apiserver.aggregation.registration import Registration
from wherry.kube.apiserver.aggregation.remote import FrontProxy, Remotes
from wherry.kube.apiserver.aggregation.services import Services
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.proxying.carrier import Carrier
from wherry.kube.client.transport import Transport


class Aggregator:
    """What is served elsewhere, and what is done about it. ``follow`` routes to those that are
    there; ``start`` begins to write."""

    def __init__(
        self, catalogue: Catalogue, cache: Cache, carrier: Carrier, front_proxy: FrontProxy
    ) -> None:
        self._catalogue = catalogue
        self._cache = cache
        self.services = Services(cache)
        self.remotes = Remotes(cache, carrier, front_proxy)
        self.fetched = Fetched(self.services, self.remotes)
        self.front = Aggregated(self.services, self.remotes, self.fetched)
        self._registration: Registration | None = None
        self._availability: Availability | None = None

    def follow(self) -> None:
        """Route to those that are there, and keep to their events."""
        self.services.follow()

    def start(self, transport: Transport) -> None:
        """Begin to write, by ``transport``."""
        self._registration = Registration(self._catalogue, self.services, transport)
        self._registration.start()
        self._availability = Availability(
            self._cache, self.services, self.remotes, self.fetched, transport
        )
        self._availability.start()

    async def close(self) -> None:
        for each in (self._registration, self._availability):
            if each is not None:
                await each.close()
        await self.remotes.close()

    def registration_fault(self) -> str:
        """Why not all that is served here has its APIService yet, "" where it has."""
        done = self._registration is not None and self._registration.complete
        return "" if done else "missing APIService"
