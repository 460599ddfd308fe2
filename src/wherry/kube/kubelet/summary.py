"""``/stats/summary``: the node and its pods, with all that they use. No I/O.

Format of k8s.io/kubelet/pkg/apis/stats/v1alpha1. Kubelet, engine and proxy are one process here,
so one system container stands for them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.engine.cri.types import ContainerStats
from wherry.kube.api import meta
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.disks import PodDisk, Space
from wherry.kube.kubelet.machine import Usage
from wherry.kube.kubelet.volumes.claims import claim_name

Object = dict[str, Any]


class Rates:
    """How fast processor time is used: what was used since it was last asked."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}

    def of(self, key: str, used: int, now: float) -> int | None:
        """Nanoseconds of processor time a second; None where there is nothing to compare with.

        ``used`` is in nanoseconds, ``now`` in seconds of any clock that only goes forward.
        """
        before = self._seen.get(key)
        self._seen[key] = (now, used)
        if before is None or now <= before[0] or used < before[1]:
            return None
        return int((used - before[1]) / (now - before[0]))

    def forget(self, present: set[str]) -> None:
        """Only these are left."""
        for key in set(self._seen) - present:
            del self._seen[key]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is read of the machine.

    ``interfaces`` by name, with the counters of /proc/net/dev; the first is the node's own.
    """

    name: str
    started: str
    use: Usage
    swap_free: int
    own: Usage  # our own process
    own_started: str
    disk: Space
    images: int  # bytes of all images
    interfaces: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    most_processes: int = 0
    processes: int = 0


def summary(
    node: NodeFacts,
    running: Sequence[Object],
    containers: Sequence[ContainerStats],
    sandboxes: Sequence[ContainerStats],
    disks: Mapping[str, PodDisk],
    rates: Rates,
    *,
    time: str,
    clock: float,
) -> Object:
    """The whole answer.

    Args:
        disks: by the pods' uids.
        time: the moment as the API writes it.
        clock: the same moment in seconds of a clock that only goes forward.
    """
    told = _Teller(rates, time, clock)
    by_pod: dict[str, list[ContainerStats]] = {}
    for one in containers:
        by_pod.setdefault(one.labels.get(pods.POD_UID, ""), []).append(one)
    pauses = {one.labels.get(pods.POD_UID, ""): one for one in sandboxes}
    every = [_use(s) for s in (*containers, *sandboxes)]
    system = [
        {"name": "kubelet", "startTime": node.own_started, **told.use("/kubelet", node.own)},
        {"name": "pods", "startTime": node.started, **told.use("/pods", total(every))},
    ]
    images = Space(
        node.disk.capacity,
        node.disk.available,
        node.images,
        node.disk.inodes,
        node.disk.inodes_free,
        node.disk.inodes_used,
    )
    answer: Object = {
        "nodeName": node.name,
        "systemContainers": system,
        "startTime": node.started,
        **told.use("/", node.use),
        "network": told.network(node.interfaces),
        "fs": told.space(node.disk),
        "runtime": {"imageFs": told.space(images), "containerFs": told.space(images)},
        "rlimit": {"time": time, "maxpid": node.most_processes, "curproc": node.processes},
        "swap": {
            "time": time,
            "swapAvailableBytes": node.swap_free,
            "swapUsageBytes": node.use.swap,
        },
    }
    described = [
        told.pod(
            pod,
            by_pod.get(meta.uid(pod), []),
            pauses.get(meta.uid(pod)),
            disks.get(meta.uid(pod), PodDisk()),
        )
        for pod in running
    ]
    rates.forget(told.keys)
    return {"node": answer, "pods": described}


def total(uses: Sequence[Usage]) -> Usage:
    """All of them together."""
    return Usage(
        cpu=sum(u.cpu for u in uses),
        working_set=sum(u.working_set for u in uses),
        usage=sum(u.usage for u in uses),
        rss=sum(u.rss for u in uses),
        faults=sum(u.faults for u in uses),
        major_faults=sum(u.major_faults for u in uses),
        swap=sum(u.swap for u in uses),
    )


def _use(one: ContainerStats) -> Usage:
    return Usage(
        cpu=one.cpu_usage,
        working_set=one.memory_working_set,
        usage=one.memory_usage,
        rss=one.memory_rss,
        faults=one.page_faults,
        major_faults=one.major_page_faults,
        swap=one.memory_swap,
    )


class _Teller:
    """Writes the parts of one answer."""

    def __init__(self, rates: Rates, time: str, clock: float) -> None:
        self._rates = rates
        self._time = time
        self._clock = clock
        self.keys: set[str] = set()

    def use(self, key: str, use: Usage) -> Object:
        """``cpu`` and ``memory``."""
        self.keys.add(key)
        cpu: Object = {"time": self._time, "usageCoreNanoSeconds": use.cpu}
        rate = self._rates.of(key, use.cpu, self._clock)
        if rate is not None:
            cpu["usageNanoCores"] = rate
        memory: Object = {"time": self._time}
        if use.available is not None:
            memory["availableBytes"] = use.available
        memory |= {
            "usageBytes": use.usage,
            "workingSetBytes": use.working_set,
            "rssBytes": use.rss,
            "pageFaults": use.faults,
            "majorPageFaults": use.major_faults,
        }
        return {"cpu": cpu, "memory": memory}

    def space(self, space: Space) -> Object:
        """A file system."""
        return {
            "time": self._time,
            "availableBytes": space.available,
            "capacityBytes": space.capacity,
            "usedBytes": space.used,
            "inodesFree": space.inodes_free,
            "inodes": space.inodes,
            "inodesUsed": space.inodes_used,
        }

    def network(self, interfaces: Mapping[str, Mapping[str, int]]) -> Object:
        """Interfaces, the first of them above the others."""
        every = [
            {
                "name": name,
                "rxBytes": counters.get("rx_bytes", 0),
                "rxErrors": counters.get("rx_errors", 0),
                "txBytes": counters.get("tx_bytes", 0),
                "txErrors": counters.get("tx_errors", 0),
            }
            for name, counters in interfaces.items()
        ]
        return {"time": self._time, **(every[0] if every else {}), "interfaces": every}

    def pod(
        self,
        pod: Object,
        containers: Sequence[ContainerStats],
        pause: ContainerStats | None,
        disk: PodDisk,
    ) -> Object:
        """One pod."""
        uses = [_use(s) for s in (*containers, *([pause] if pause else []))]
        whole = total(uses)
        described: Object = {
            "podRef": {
                "name": meta.name(pod),
                "namespace": meta.namespace(pod),
                "uid": meta.uid(pod),
            },
            "startTime": (pod.get("status") or {}).get("startTime"),
            "containers": [self._container(one, disk) for one in containers],
            **self.use(meta.uid(pod), whole),
        }
        if pause is not None and pause.interfaces:
            described["network"] = self.network(pause.interfaces)
        volumes = [
            self._volume(pod, volume, disk.volumes[volume["name"]])
            for volume in pod["spec"].get("volumes") or ()
            if volume["name"] in disk.volumes
        ]
        if volumes:
            described["volume"] = volumes
        if disk.ephemeral.capacity:
            described["ephemeral-storage"] = self.space(disk.ephemeral)
        running = sum(s.processes for s in containers) + (pause.processes if pause else 0)
        described["process_stats"] = {"process_count": running}
        described["swap"] = {"time": self._time, "swapUsageBytes": whole.swap}
        return described

    def _container(self, one: ContainerStats, disk: PodDisk) -> Object:
        name = one.labels.get(pods.CONTAINER_NAME, "")
        described: Object = {
            "name": name,
            "startTime": meta.format_nanoseconds(one.started_at),
            **self.use(one.id, _use(one)),
        }
        for key, spaces in (("rootfs", disk.layers), ("logs", disk.logs)):
            if name in spaces:
                described[key] = self.space(spaces[name])
        described["swap"] = {"time": self._time, "swapUsageBytes": one.memory_swap}
        return described

    def _volume(self, pod: Object, volume: Object, space: Space) -> Object:
        described = {**self.space(space), "name": volume["name"]}
        claim = claim_name(pod, volume)
        if claim is not None:
            described["pvcRef"] = {"name": claim, "namespace": meta.namespace(pod)}
        return described
