"""NodePorts: no two pods on the same port of one node."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from wherry.kube.client.transport import Object
from wherry.kube.scheduler import requests
from wherry.kube.scheduler.framework import Change, Cycle, Filter, Hint, Verdict, always, reject
from wherry.kube.scheduler.requests import Port
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_REJECTED = reject("node(s) didn't have free ports for the requested pod ports")
_ANY = "0.0.0.0"


def conflict(wanted: Iterable[Port], used: Iterable[Port]) -> bool:
    """Whether a port is wanted that is in use, on the same address or on all."""
    taken = list(used)
    return any(
        number == other
        and protocol == other_protocol
        and (_ANY in (ip, other_ip) or ip == other_ip)
        for ip, protocol, number in wanted
        for other_ip, other_protocol, other in taken
    )


class NodePorts(Filter):
    name = "NodePorts"

    def signature(self, pod: PodInfo) -> Hashable:
        return tuple(pod.ports)

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        return _REJECTED if pod.ports and conflict(pod.ports, node.ports) else None

    def helped_by(self) -> Mapping[Change, Hint]:
        def freed(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            return old is not None and conflict(pod.ports, requests.host_ports(old["spec"]))

        return {Change.NODE_ADDED: always, Change.POD_REMOVED: freed}
