"""What the cluster says, put into words for the process that answers: the node's side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from wherry.host.resolv_conf import PATH
from wherry.kube.api import cluster_dns, meta
from wherry.kube.api.endpoint_slices import service_key
from wherry.kube.api.resources import CONFIG_MAPS, ENDPOINT_SLICES, NAMESPACES, NODES, SERVICES
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer, SharedInformers
from wherry.kube.dns import settings
from wherry.kube.dns.names import Described, describe
from wherry.kube.dns.telling import (
    Begin,
    NamespaceTold,
    ServiceTold,
    SettingsTold,
    Told,
    Whole,
)

log = logging.getLogger(__name__)

Object = dict[str, Any]
Tell = Callable[[Told], None]


class Follower:
    """Follows Services, their endpoints, namespaces and settings, and tells of their changes.

    Args:
        client: whom to ask for Services and their like.
        informers: where those of the process are shared.
        domain: of the cluster.
        node_name: of the node it is on; its ranges say where to listen.
        service_addresses: where clients ask.
        ranges: addresses of services and pods.
        resolv_conf: where this machine says whom it asks.
    """

    def __init__(
        self,
        client: Client,
        informers: SharedInformers,
        *,
        domain: str,
        node_name: str,
        service_addresses: Sequence[str],
        ranges: Sequence[str] = (),
        resolv_conf: str = PATH,
    ) -> None:
        self._begin = Begin(domain, tuple(service_addresses), tuple(ranges))
        self._resolv_conf = resolv_conf
        self._settings = settings.read(None, resolv_conf)
        self._described: dict[str, Described] = {}
        self._tell: Tell | None = None
        self._services = informers.informer(SERVICES)
        self._slices = informers.informer(ENDPOINT_SLICES)
        self._slices.add_indexer("service", lambda slice_: (service_key(slice_),))
        self._namespaces = informers.informer(NAMESPACES)
        self._config = Informer(
            client,
            CONFIG_MAPS,
            namespace=cluster_dns.NAMESPACE,
            field_selector=f"metadata.name={cluster_dns.NAME}",
        )
        self._node = Informer(client, NODES, field_selector=f"metadata.name={node_name}")
        self.addresses: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        """Where to listen."""
        self._follow()

    async def run(self) -> None:
        """Follow until cancelled."""
        self._config.start()
        self._node.start()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.gather(self._config.stop(), self._node.stop())

    async def synced(self) -> None:
        """Return once all names are known, and whom to ask for others: late beats wrong."""
        for informer in (self._services, self._slices, self._namespaces, self._config):
            await informer.wait_synced()

    def attach(self, tell: Tell | None) -> None:
        """Tell everything, now, and from now on each change; None: tell nobody."""
        self._tell = tell
        if tell is not None:
            for told in self.everything():
                tell(told)

    def everything(self) -> Iterator[Told]:
        """The state of now, from the beginning."""
        yield self._begin
        yield SettingsTold(self._settings)
        for namespace in self._namespaces.list():
            yield NamespaceTold(meta.name(namespace), True)
        for key, described in self._described.items():
            yield ServiceTold(key, described)
        yield Whole()

    # -- changes

    def _follow(self) -> None:
        self._services.add_handlers(
            on_add=self._service_changed,
            on_update=lambda _, service: self._service_changed(service),
            on_delete=self._service_gone,
        )
        self._slices.add_handlers(
            on_add=self._slice_changed,
            on_update=self._slice_updated,
            on_delete=self._slice_changed,
        )
        self._namespaces.add_handlers(
            on_add=lambda namespace: self._say(NamespaceTold(meta.name(namespace), True)),
            on_delete=lambda namespace: self._say(NamespaceTold(meta.name(namespace), False)),
        )
        self._config.add_handlers(
            on_add=self._configure,
            on_update=lambda _, config: self._configure(config),
            on_delete=lambda _: self._configure(None),
        )
        self._node.add_handlers(
            on_add=self._node_changed, on_update=lambda _, node: self._node_changed(node)
        )

    def _say(self, told: Told) -> None:
        if self._tell is not None:
            self._tell(told)

    def _node_changed(self, node: Object) -> None:
        addresses = cluster_dns.listening_addresses(node)
        if addresses and not self.addresses.done():
            self.addresses.set_result(addresses)

    def _service_changed(self, service: Object) -> None:
        self._describe(meta.key(service))

    def _service_gone(self, service: Object) -> None:
        key = meta.key(service)
        if self._described.pop(key, None) is not None:
            self._say(ServiceTold(key, None))

    def _slice_changed(self, slice_: Object) -> None:
        self._describe(service_key(slice_))

    def _slice_updated(self, old: Object, new: Object) -> None:
        self._slice_changed(new)
        if service_key(new) != service_key(old):
            self._slice_changed(old)

    def _describe(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        service = self._services.get(namespace, name)
        if service is None:
            return
        slices = self._slices.by_index("service", key)
        described = describe(service, slices, self._begin.domain)
        if described != self._described.get(key):
            self._described[key] = described
            self._say(ServiceTold(key, described))

    def _configure(self, config_map: Object | None) -> None:
        self._settings = settings.read(config_map, self._resolv_conf)
        self._say(SettingsTold(self._settings))
