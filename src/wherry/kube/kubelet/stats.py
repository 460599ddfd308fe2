"""What containers and the node use: ``/metrics/resource``.

Format of pkg/kubelet/metrics/collectors/resource_metrics.go.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from wherry.engine.cri.types import ContainerStats
from wherry.kube.kubelet import pods


def node_usage() -> tuple[int, int]:
    """CPU nanoseconds that the machine has spent working, and bytes of memory in use."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = (int(w) for w in words[:7])
    ticks = user + nice + system + irq + softirq
    meminfo = dict(
        line.partition(":")[::2] for line in Path("/proc/meminfo").read_text().splitlines()
    )
    total, available = (int(meminfo[k].split()[0]) * 1024 for k in ("MemTotal", "MemAvailable"))
    return ticks * 10**9 // os.sysconf("SC_CLK_TCK"), total - available


def resource_metrics(stats: Sequence[ContainerStats], now: float) -> str:
    """The metrics that the metrics server reads, in Prometheus' text format."""
    stamp = int(now * 1000)
    cpu, memory = node_usage()
    lines = [
        "# HELP node_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the node in "
        "core-seconds",
        "# TYPE node_cpu_usage_seconds_total counter",
        f"node_cpu_usage_seconds_total {cpu / 10**9:g} {stamp}",
        "# HELP node_memory_working_set_bytes [STABLE] Current working set of the node in bytes",
        "# TYPE node_memory_working_set_bytes gauge",
        f"node_memory_working_set_bytes {memory} {stamp}",
    ]
    containers = [s for s in stats if s.labels.get(pods.CONTAINER_NAME)]
    families: tuple[tuple[str, str, str, list[tuple[str, float]]], ...] = (
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the container in core-seconds",
            [(_labels(s), s.cpu_usage / 10**9) for s in containers],
        ),
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set of the container in bytes",
            [(_labels(s), s.memory_working_set) for s in containers],
        ),
        (
            "pod_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the pod in core-seconds",
            _by_pod(stats, "cpu_usage", 10**9),
        ),
        (
            "pod_memory_working_set_bytes",
            "gauge",
            "Current working set of the pod in bytes",
            _by_pod(stats, "memory_working_set", 1),
        ),
    )
    for name, kind, text, values in families:
        if values:
            lines += [f"# HELP {name} [STABLE] {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{{{labels}}} {value:.12g} {stamp}" for labels, value in values]
    return "\n".join(lines) + "\n"


def _labels(stats: ContainerStats) -> str:
    return (
        f'container="{stats.labels.get(pods.CONTAINER_NAME, "")}",'
        f'namespace="{stats.labels.get(pods.POD_NAMESPACE, "")}",'
        f'pod="{stats.labels.get(pods.POD_NAME, "")}"'
    )


def _by_pod(stats: Sequence[ContainerStats], what: str, unit: int) -> list[tuple[str, float]]:
    sums: dict[str, float] = {}
    for one in stats:
        name = one.labels.get(pods.POD_NAME)
        if name:
            key = f'namespace="{one.labels.get(pods.POD_NAMESPACE, "")}",pod="{name}"'
            sums[key] = sums.get(key, 0) + getattr(one, what) / unit
    return list(sums.items())
