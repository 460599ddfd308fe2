"""Where clients reach the controller: what it writes into the status of Ingresses.

On a machine of its own it is told; in a pod it follows the Service in front of it, or the nodes on
which it and its like run.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from wherry.kube.api import conditions, meta
from wherry.kube.api.resources import NODES, PODS, SERVICES
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer

Object = dict[str, Any]
Ingress = dict[str, str]
"""One address: ``{"ip": …}`` or ``{"hostname": …}``."""

Changed = Callable[[Object], None]


class Addresses(Protocol):
    """A source of addresses."""

    def current(self) -> list[Ingress] | None:
        """Those of now; None: nobody knows, which is no reason to take away what was told."""

    async def follow(self, changed: Changed) -> None:
        """Know them, and call ``changed`` when they may be others."""

    async def stop(self) -> None:
        """Follow no longer."""


class Fixed:
    """Addresses that somebody told."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self._addresses = [_named(address) for address in addresses]

    def current(self) -> list[Ingress] | None:
        return self._addresses or None

    async def follow(self, changed: Changed) -> None:
        """They never change."""

    async def stop(self) -> None:
        """There is nothing to stop."""


class OfService:
    """Those of the Service ``namespace/name`` that leads to us."""

    def __init__(self, client: Client, key: str) -> None:
        namespace, _, name = key.partition("/")
        selector = f"metadata.name={name}"
        self._services = Informer(client, SERVICES, namespace=namespace, field_selector=selector)

    def current(self) -> list[Ingress] | None:
        return [found for service in self._services.list() for found in of_service(service)]

    async def follow(self, changed: Changed) -> None:
        await _follow((self._services,), changed)

    async def stop(self) -> None:
        await self._services.stop()


class OfNodes:
    """Those of the nodes on which pods with these labels run; the nodes' internal ones, if told."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        labels: Mapping[str, str],
        *,
        internal: bool = False,
    ) -> None:
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        self._pods = Informer(client, PODS, namespace=namespace, label_selector=selector)
        self._nodes = Informer(client, NODES)
        self._internal = internal

    def current(self) -> list[Ingress] | None:
        # (While this is asked at least one runs, whether it is seen or not.)
        found = of_nodes(self._pods.list(), self._nodes.list(), internal=self._internal)
        return found or None

    async def follow(self, changed: Changed) -> None:
        await _follow((self._pods, self._nodes), changed)

    async def stop(self) -> None:
        await self._pods.stop()
        await self._nodes.stop()


_CHANGING = "pod-template-hash", "controller-revision-hash", "pod-template-generation"


def own_labels(pod: Object) -> dict[str, str]:
    """Those that a pod has in common with all that are like it, of former templates too."""
    return {key: value for key, value in meta.labels(pod).items() if key not in _CHANGING}


async def _follow(informers: Sequence[Informer], changed: Changed) -> None:
    for informer in informers:
        informer.add_handlers(
            on_add=changed, on_update=lambda _, new: changed(new), on_delete=changed
        )
        informer.start()
    for informer in informers:
        await informer.wait_synced()


def of_service(service: Object) -> list[Ingress]:
    """A load balancer's addresses; else the external ones, else the Service's own."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return [{"hostname": spec["externalName"]}]
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    if spec.get("type") == "LoadBalancer":
        found = [
            {key: entry[key]} for entry in balancer.get("ingress") or () for key in _kind(entry)
        ]
        return found + [_named(address) for address in spec.get("externalIPs") or ()]
    own = [a for a in spec.get("clusterIPs") or [spec.get("clusterIP")] if a and a != "None"]
    return [_named(address) for address in spec.get("externalIPs") or own]


def of_nodes(
    pods: Iterable[Object], nodes: Iterable[Object], *, internal: bool = False
) -> list[Ingress]:
    """The address of each node that has a ready pod: the external one, else the internal; or the
    latter alone."""
    used = {(pod.get("spec") or {}).get("nodeName") for pod in pods if _serves(pod)}
    kinds = ("InternalIP",) if internal else ("ExternalIP", "InternalIP")
    found = set()
    for node in nodes:
        if meta.name(node) not in used:
            continue
        listed = (node.get("status") or {}).get("addresses") or ()
        for kind in kinds:
            if addresses := [a["address"] for a in listed if a.get("type") == kind]:
                found.add(addresses[0])
                break
    return [_named(address) for address in sorted(found)]


def _serves(pod: Object) -> bool:
    running = (pod.get("status") or {}).get("phase") == "Running"
    return running and conditions.is_true(pod, "Ready") and not meta.is_deleting(pod)


def _kind(entry: Mapping[str, Any]) -> Iterable[str]:
    return [key for key in ("ip", "hostname") if entry.get(key)][:1]


def _named(address: str) -> Ingress:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return {"hostname": address}
    return {"ip": address}
