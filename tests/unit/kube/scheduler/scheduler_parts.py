"""Pieces for tests of the scheduler's parts without a server."""

from __future__ import annotations

from typing import Any

from wherry.kube.client.informer import Informer
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.framework import Cycle, Handle
from wherry.kube.scheduler.nominations import Nominations
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo, Snapshot


class HandFed(Informer):
    """An informer that a test tells what there is."""

    def put(self, object: Object) -> None:
        self._put(object)

    def drop(self, object: Object) -> None:
        self._drop(object)


class IdleInformers:
    """Informers that follow nothing."""

    def __init__(self) -> None:
        self._all: dict[Any, HandFed] = {}

    def informer(self, resource: Any) -> HandFed:
        if resource not in self._all:
            self._all[resource] = HandFed(None, resource)
        return self._all[resource]


def idle_informers() -> Any:
    return IdleInformers()


def handle(snapshot: Snapshot | None = None, informers: Any = None) -> Handle:
    """What plugins get, where they are asked on their own."""
    return Handle(
        None,
        snapshot if snapshot is not None else Snapshot(),
        informers if informers is not None else idle_informers(),
        Nominations(),
        lambda cycle, pod, node: None,
        lambda change, old, new: None,
    )


__all__ = ["Cycle", "HandFed", "NodeInfo", "PodInfo", "handle", "idle_informers"]
