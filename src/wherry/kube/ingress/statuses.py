"""What Ingresses say of where they are reached: told, and taken back when nobody serves them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    DAEMON_SETS,
    INGRESSES,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    Resource,
)
from wherry.kube.client.client import Client
from wherry.kube.ingress.addresses import Ingress, own_labels

log = logging.getLogger(__name__)

Object = dict[str, Any]

_OWNERS: dict[str, tuple[Resource, str, str]] = {
    "ReplicaSet": (REPLICA_SETS, "spec", "replicas"),
    "DaemonSet": (DAEMON_SETS, "status", "desiredNumberScheduled"),
}
"""Of pods like ours, and where it says how many of them are wanted."""


def told(ingress: Object) -> list[Ingress]:
    """The addresses in an Ingress's status."""
    found: list[Ingress] = ((ingress.get("status") or {}).get("loadBalancer") or {}).get(
        "ingress"
    ) or []
    return found


async def report(client: Client, ingress: Object, addresses: Sequence[Ingress]) -> None:
    """Write the addresses into an Ingress's status, where they are not there."""
    if told(ingress) == addresses:
        return
    status = {"loadBalancer": {"ingress": addresses} if addresses else {}}
    try:
        await client.update_status(INGRESSES, {**ingress, "status": status})
    except StatusError as error:
        if error.code >= 500:
            raise
        if error.code not in (404, 409):  # it is gone, or comes again
            log.warning("the status of %s is refused: %s", meta.key(ingress), error)


async def take_back(
    client: Client, ingresses: Iterable[Object], only: Sequence[Ingress] | None = None
) -> None:
    """Nobody serves these any longer; what cannot be said is left.

    Args:
        client: to write with.
        ingresses: as they were known last: what they say now is asked.
        only: those that say just these addresses; None: whatever they say.
    """
    for ingress in ingresses:
        try:
            while not await _clear(client, ingress, only):
                pass  # somebody else wrote in between
        except (StatusError, ConnectionError) as error:
            log.warning("the status of %s stays: %s", meta.key(ingress), error)


async def _clear(client: Client, ingress: Object, only: Sequence[Ingress] | None) -> bool:
    """Whether there is nothing more to do."""
    held = await _find(client, INGRESSES, meta.name(ingress), meta.namespace(ingress))
    said = told(held or {})
    if held is None or not said or (only is not None and said != only):
        return True
    try:
        await client.update_status(INGRESSES, {**held, "status": {"loadBalancer": {}}})
    except StatusError as error:
        if error.code not in (404, 409):
            raise
        return error.code == 404
    return True


async def is_followed(client: Client, namespace: str, name: str) -> bool:
    """Whether another pod serves on when the pod ``name`` of a controller ends, or soon will."""
    own = await _find(client, PODS, name, namespace)
    if own is None:
        return False
    selector = ",".join(f"{key}={value}" for key, value in sorted(own_labels(own).items()))
    pods = await client.list(PODS, namespace=namespace, label_selector=selector)
    reference = meta.controller_of(own) or {}
    owner = None
    if reference.get("kind") in _OWNERS:
        resource = _OWNERS[reference["kind"]][0]
        owner = await _find(client, resource, reference["name"], namespace)
    place = await _find(client, NAMESPACES, namespace)
    return serves_on(own, pods.get("items") or (), owner, place)


async def _find(
    client: Client, resource: Resource, name: str, namespace: str | None = None
) -> Object | None:
    try:
        return await client.get(resource, name, namespace)
    except StatusError as error:
        if error.code != 404:
            raise
        return None


def serves_on(
    own: Object, pods: Iterable[Object], owner: Object | None, namespace: Object | None
) -> bool:
    """The same, as a judgement of what is seen.

    Args:
        own: the pod that ends.
        pods: those like it, with itself.
        owner: the ReplicaSet or DaemonSet whose pod it is, None where that is gone.
        namespace: where all of them are.
    """
    if namespace is None or meta.is_deleting(namespace):
        return False
    if any(meta.uid(pod) != meta.uid(own) and not meta.is_deleting(pod) for pod in pods):
        return True
    if owner is None or meta.is_deleting(owner):
        return False
    _, part, number = _OWNERS[owner["kind"]]
    return bool((owner.get(part) or {}).get(number))
