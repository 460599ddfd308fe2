"""What is in every cluster from the start: the system namespaces, the ``kubernetes`` Service by
which pods find the API server, the priority classes, flow schemas and service range of the system,
the default class of storage.

Reconciled at each start, through the same chain as everything else; what is right is left alone.
Upstream: pkg/controlplane/controller/{systemnamespaces,kubernetesservice}.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from wherry.kube.api.errors import StatusError
from wherry.kube.api.families import family_of
from wherry.kube.api.kinds.priority_class import SYSTEM_CLASSES
from wherry.kube.api.kinds.service_ranges import DEFAULT
from wherry.kube.api.resources import (
    CONFIG_MAPS,
    NAMESPACES,
    PRIORITY_CLASSES,
    SERVICE_CIDRS,
    SERVICES,
    STORAGE_CLASSES,
    Resource,
)
from wherry.kube.apiserver.authz.defaults import mended
from wherry.kube.apiserver.authz.defaults import objects as default_roles
from wherry.kube.apiserver.flow_defaults import flow_defaults
from wherry.kube.apiserver.objects import Object
from wherry.kube.client.transport import Transport

log = logging.getLogger(__name__)

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_NAME = "kubernetes"
_IMPORTANT = {
    "system-node-critical": (
        "Used for system critical pods that must not be moved from their current node."
    ),
    "system-cluster-critical": (
        "Used for system critical pods that must run in the cluster, but can be moved to another "
        "node if necessary."
    ),
}
# Directories of nodes, made when the first pod of a claim has its node.
_DEFAULT_CLASS = {
    "apiVersion": STORAGE_CLASSES.api_version,
    "kind": STORAGE_CLASSES.kind,
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "wherry.io/local-path",
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "WaitForFirstConsumer",
    "allowVolumeExpansion": True,
}
_LABELS = {"component": "apiserver", "provider": "kubernetes"}


async def reconcile(
    transport: Transport,
    service_address: str,
    service_cidr: str,
    port: int,
    authentication: Object,
) -> None:
    """Make what is missing and mend what is wrong.

    Args:
        service_address: the first address of the service range, ``service_cidr``; of the first one
            where there are two, with a comma in between.
        port: where this server listens.
        authentication: the ConfigMap that tells aggregated servers whom to believe.
    """
    await asyncio.gather(*(_namespace(transport, name) for name in SYSTEM_NAMESPACES))
    await asyncio.gather(
        _published(transport, authentication),
        _service(transport, service_address, port),
        _default_range(transport, service_cidr.split(",")),
        *(_priority_class(transport, name) for name in SYSTEM_CLASSES),
        _ensure(transport, STORAGE_CLASSES, _DEFAULT_CLASS, lambda found: None),
        *(_ensure(transport, r, o, lambda found: None) for r, o in flow_defaults()),
        *(_role(transport, resource, wanted) for resource, wanted in default_roles()),
    )


async def _published(transport: Transport, wanted: Object) -> None:
    if wanted["data"]:
        await _ensure(transport, CONFIG_MAPS, wanted, lambda found: _told(found, wanted))


def _told(found: Object, wanted: Object) -> Object | None:
    data = {**(found.get("data") or {}), **wanted["data"]}
    return None if data == found.get("data") else {**found, "data": data}


async def _role(transport: Transport, resource: Resource, wanted: Object) -> None:
    """A default role or binding. A binding cannot be turned to another role: it is made anew."""
    metadata = wanted["metadata"]

    def mend(found: Object) -> Object | None:
        made = mended(wanted, found)
        if made is not None and made.get("roleRef") != found.get("roleRef"):
            raise _MadeAnew
        return made

    try:
        await _ensure(transport, resource, wanted, mend)
    except _MadeAnew:
        path = resource.path(metadata.get("namespace"), metadata["name"])
        await transport.request("DELETE", path)
        await _ensure(transport, resource, wanted, mend)


class _MadeAnew(Exception):
    """What is there cannot become what is wanted."""


async def _namespace(transport: Transport, name: str) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await _ensure(transport, NAMESPACES, namespace, lambda found: None)


async def _priority_class(transport: Transport, name: str) -> None:
    made = {
        "apiVersion": PRIORITY_CLASSES.api_version,
        "kind": PRIORITY_CLASSES.kind,
        "metadata": {"name": name},
        "value": SYSTEM_CLASSES[name],
        "description": _IMPORTANT[name],
    }
    await _ensure(transport, PRIORITY_CLASSES, made, lambda found: None)


async def _default_range(transport: Transport, cidrs: list[str]) -> None:
    """The ServiceCIDR of the ranges this server was told. One that says others stays: its
    Services live there; one that lacks the second family gets it."""
    wanted = {
        "apiVersion": SERVICE_CIDRS.api_version,
        "kind": SERVICE_CIDRS.kind,
        "metadata": {"name": DEFAULT},
        "spec": {"cidrs": cidrs},
    }

    def mend(found: Object) -> Object | None:
        present = found["spec"]["cidrs"]
        if present != cidrs and present == cidrs[:1]:
            return {**found, "spec": {**found["spec"], "cidrs": cidrs}}
        if present != cidrs:
            log.warning("the default ServiceCIDR %s does not match the flags %s", present, cidrs)
        return None

    await _ensure(transport, SERVICE_CIDRS, wanted, mend)


async def _service(transport: Transport, address: str, port: int) -> None:
    service = _object(
        SERVICES,
        {
            "spec": {
                "type": "ClusterIP",
                "clusterIP": address,
                "clusterIPs": [address],
                "ipFamilies": [family_of(address)],
                "ipFamilyPolicy": "SingleStack",
                "sessionAffinity": "None",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
            }
        },
    )

    def mend(found: Object) -> Object | None:
        wanted = service["spec"]["ports"]
        if found["spec"].get("ports") == wanted:
            return None
        return {**found, "spec": {**found["spec"], "ports": wanted}}

    await _ensure(transport, SERVICES, service, mend)


def _object(resource: Resource, rest: dict[str, Any]) -> Object:
    metadata: Object = {"name": _NAME, "namespace": "default"}
    if resource is SERVICES:
        metadata["labels"] = dict(_LABELS)
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        **rest,
    }


async def _ensure(
    transport: Transport,
    resource: Resource,
    wanted: Object,
    mend: Callable[[Object], Object | None],
) -> None:
    metadata = wanted["metadata"]
    path = resource.path(metadata.get("namespace"), metadata["name"])
    while True:
        try:
            found = await transport.request("GET", path)
        except StatusError as error:
            if error.code != 404:
                raise
            collection = resource.path(metadata.get("namespace"))
            try:
                await transport.request("POST", collection, body=wanted)
                return
            except StatusError as refused:
                if refused.reason != "AlreadyExists":  # by another server, at the same moment
                    raise
                continue
        mended = mend(found)
        if mended is None:
            return
        try:
            await transport.request("PUT", path, body=mended)
            return
        except StatusError as error:
            if error.reason != "Conflict":
                raise
