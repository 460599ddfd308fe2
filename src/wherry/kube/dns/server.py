"""The way of a question: what was answered before, the cluster's names, other servers.

An answer about the cluster's names is kept as it was sent until any of them changes, so that what
is asked often costs one look into a table.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any

from wherry.kube.api import cluster_dns, meta
from wherry.kube.api.resources import (
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    NAMESPACES,
    NODES,
    SERVICES,
)
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer, SharedInformers
from wherry.kube.dns import answers, messages, settings
from wherry.kube.dns.forwarding import Forwarder, Overloaded
from wherry.kube.dns.listening import Listener
from wherry.kube.dns.messages import Code, Malformed, Question, Type
from wherry.kube.dns.names import describe
from wherry.kube.dns.settings import Server
from wherry.kube.dns.zone import Zone

log = logging.getLogger(__name__)

Object = dict[str, Any]

_SERVICE_NAME = "kubernetes.io/service-name"
_KEPT = 16_384
_VARIANTS = 8
"""So many orders of the addresses of one name are kept; one of them is given."""


class NameServer:
    """Answers for a cluster.

    Args:
        client: whom to ask for Services and their like.
        informers: where those of the process are shared.
        domain: of the cluster.
        node_name: of the node it is on; its range says where to listen.
        service_addresses: where clients ask.
        ranges: addresses of services and pods.
        port: to listen at; 0 for any.
        upstreams: name servers of this machine.
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
        port: int = 53,
        upstreams: Sequence[Server] | None = None,
    ) -> None:
        self.zone = Zone(domain, service_addresses, ranges)
        self._port = port
        found = settings.host_servers() if upstreams is None else upstreams
        self._host = [
            server
            for server in found
            if server not in [(address, settings.PORT) for address in service_addresses]
        ]
        self._settings = settings.read(None, self._host)
        self._forwarder = Forwarder()
        self._kept: dict[bytes, list[bytes]] = {}
        self.listener = Listener(self.at_once, self.answer)
        self._services = informers.informer(SERVICES)
        self._slices = informers.informer(ENDPOINT_SLICES)
        self._slices.add_indexer("service", lambda slice_: (_service_of(slice_),))
        self._namespaces = informers.informer(NAMESPACES)
        self._config = Informer(
            client,
            CONFIG_MAPS,
            namespace=cluster_dns.NAMESPACE,
            field_selector=f"metadata.name={cluster_dns.NAME}",
        )
        self._node = Informer(client, NODES, field_selector=f"metadata.name={node_name}")
        self._addresses: asyncio.Future[tuple[str, ...]] = (
            asyncio.get_running_loop().create_future()
        )
        self._follow()

    # -- following the cluster

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
        self._namespaces.add_handlers(on_add=self._namespace_came, on_delete=self._namespace_gone)
        self._config.add_handlers(
            on_add=self._configure,
            on_update=lambda _, config: self._configure(config),
            on_delete=lambda _: self._configure(None),
        )
        self._node.add_handlers(
            on_add=self._node_changed, on_update=lambda _, node: self._node_changed(node)
        )

    def _node_changed(self, node: Object) -> None:
        addresses = cluster_dns.listening_addresses(node)
        if addresses and not self._addresses.done():
            self._addresses.set_result(addresses)

    def _service_changed(self, service: Object) -> None:
        self._describe(meta.key(service))

    def _service_gone(self, service: Object) -> None:
        if self.zone.drop(meta.key(service)):
            self._kept.clear()

    def _slice_changed(self, slice_: Object) -> None:
        self._describe(_service_of(slice_))

    def _slice_updated(self, old: Object, new: Object) -> None:
        self._slice_changed(old)
        if _service_of(new) != _service_of(old):
            self._slice_changed(new)

    def _describe(self, key: str) -> None:
        namespace, _, name = key.partition("/")
        service = self._services.get(namespace, name)
        if service is None:
            return
        slices = self._slices.by_index("service", key)
        if self.zone.put(key, describe(service, slices, self.zone.domain)):
            self._kept.clear()

    def _namespace_came(self, namespace: Object) -> None:
        self.zone.put_namespace(meta.name(namespace))
        self._kept.clear()

    def _namespace_gone(self, namespace: Object) -> None:
        self.zone.drop_namespace(meta.name(namespace))
        self._kept.clear()

    def _configure(self, config_map: Object | None) -> None:
        self._settings = settings.read(config_map, self._host)
        self._forwarder.memory.clear()

    # -- life

    async def run(self) -> None:
        """Answer until cancelled. Silent until all names are known: late beats wrong.

        Raises:
            OSError: somebody else has the port.
        """
        self._config.start()
        self._node.start()
        try:
            # Bound first: questions that come before we know the answers wait in the socket.
            self.listener.bind(await self._addresses, self._port)
            for informer in (self._services, self._slices, self._namespaces):
                await informer.wait_synced()
            await self.listener.open()
            await asyncio.get_running_loop().create_future()
        finally:
            await self.listener.close()
            await self._forwarder.close()
            await asyncio.gather(self._config.stop(), self._node.stop())

    # -- answering

    def at_once(self, data: bytes) -> bytes | None:
        """The answer to a datagram where it needs no other server."""
        kept = self._kept.get(data[2:])
        if kept is None:
            try:
                question = messages.parse(data)
            except Malformed as malformed:
                return malformed.reply or b""
            if not self.zone.covers(question.name):
                return None
            first = answers.answer(question, self.zone)
            if answers.alias_of(first) is not None:
                return None
            orders = min(_VARIANTS, answers.orders(question, self.zone))
            replies = [first, *(answers.answer(question, self.zone, n) for n in range(1, orders))]
            kept = [messages.packed(reply, question, datagram=True)[2:] for reply in replies]
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[data[2:]] = kept
        if len(kept) == 1:
            return data[:2] + kept[0]
        return data[:2] + random.choice(kept)  # noqa: S311 - shares the load, no secret

    async def answer(self, data: bytes, datagram: bool) -> bytes | None:
        """The answer to any question; None where there is nobody to tell."""
        try:
            question = messages.parse(data)
        except Malformed as malformed:
            return malformed.reply
        try:
            if self.zone.covers(question.name):
                return await self._from_zone(question, datagram)
            servers = self._settings.servers_for(question.name)
            reply = await self._forwarder.ask(data, servers, datagram=datagram)
        except Overloaded:
            return messages.failure(question)
        return messages.failure(question) if reply is None else reply

    async def _from_zone(self, question: Question, datagram: bool) -> bytes:
        """What the zone says, with what an alias out of it leads to."""
        reply = answers.answer(question, self.zone, random.getrandbits(16))
        alias = answers.alias_of(reply)
        if (
            alias is not None
            and question.type in (Type.A, Type.AAAA)
            and not self.zone.covers(alias)
        ):
            asked = messages.asking(alias, question.type)
            servers = self._settings.servers_for(alias)
            found = await self._forwarder.ask(asked, servers, datagram=True)
            try:
                if found is None:
                    raise ValueError("nobody knows")
                reply.code, records = messages.answered(found)
            except ValueError:
                return messages.failure(question, Code.SERVFAIL)
            reply.answers += records
        return messages.packed(reply, question, datagram=datagram)


def _service_of(slice_: Object) -> str:
    return f"{meta.namespace(slice_)}/{meta.labels(slice_).get(_SERVICE_NAME, '')}"
