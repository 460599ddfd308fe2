"""``/metrics/cadvisor``: what containers and pods use, with cAdvisor's names and labels. No I/O.

https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wherry.engine.cri.types import ContainerStats
from wherry.kube.kubelet import pods

Value = Callable[[ContainerStats], float]

_FAMILIES: tuple[tuple[str, str, str, Value], ...] = (
    ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.",
     lambda s: s.cpu_usage / 10**9),
    ("container_cpu_user_seconds_total", "counter", "Cumulative user cpu time consumed in seconds.",
     lambda s: s.cpu_user / 10**9),
    ("container_cpu_system_seconds_total", "counter",
     "Cumulative system cpu time consumed in seconds.", lambda s: s.cpu_system / 10**9),
    ("container_cpu_cfs_periods_total", "counter",
     "Number of elapsed enforcement period intervals.",
     lambda s: s.cpu_periods),
    ("container_cpu_cfs_throttled_periods_total", "counter",
     "Number of throttled period intervals.", lambda s: s.cpu_throttled_periods),
    ("container_cpu_cfs_throttled_seconds_total", "counter",
     "Total time duration the container has been throttled.", lambda s: s.cpu_throttled / 10**9),
    ("container_memory_usage_bytes", "gauge",
     "Current memory usage in bytes, including all memory regardless of when it was accessed",
     lambda s: s.memory_usage),
    ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.",
     lambda s: s.memory_working_set),
    ("container_memory_rss", "gauge", "Size of RSS in bytes.", lambda s: s.memory_rss),
    ("container_memory_cache", "gauge", "Number of bytes of page cache memory.",
     lambda s: s.memory_cache),
    ("container_memory_mapped_file", "gauge", "Size of memory mapped files in bytes.",
     lambda s: s.memory_mapped),
    ("container_memory_swap", "gauge", "Container swap usage in bytes.", lambda s: s.memory_swap),
    ("container_memory_failcnt", "counter", "Number of memory usage hits limits",
     lambda s: s.memory_failures),
    ("container_memory_max_usage_bytes", "gauge", "Maximum memory usage recorded in bytes",
     lambda s: s.memory_maximum),
    ("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.",
     lambda s: s.memory_limit),
    ("container_processes", "gauge", "Number of processes running inside the container.",
     lambda s: s.processes),
    ("container_start_time_seconds", "gauge",
     "Start time of the container since unix epoch in seconds.", lambda s: s.started_at / 10**9),
)  # fmt: skip
_NETWORK = (
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", "rx_bytes"),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", "tx_bytes"),
    (
        "container_network_receive_packets_total",
        "Cumulative count of packets received",
        "rx_packets",
    ),
    (
        "container_network_transmit_packets_total",
        "Cumulative count of packets transmitted",
        "tx_packets",
    ),
    (
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        "rx_errors",
    ),
    (
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        "tx_errors",
    ),
    (
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving",
        "rx_dropped",
    ),
    (
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        "tx_dropped",
    ),
)


def metrics(
    containers: Sequence[ContainerStats], sandboxes: Sequence[ContainerStats], now: float
) -> str:
    """The page; ``now`` is in seconds since the epoch."""
    stamp = int(now * 1000)
    lines: list[str] = []
    every = [(s, _labels(s, s.labels.get(pods.CONTAINER_NAME, ""))) for s in containers]
    pauses = [(s, _labels(s, "")) for s in sandboxes]
    for name, kind, text, value in _FAMILIES:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{{{labels}}} {value(s):.12g} {stamp}" for s, labels in every + pauses]
    for name, text, counter in _NETWORK:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} counter"]
        lines += [
            f'{name}{{{labels},interface="{interface}"}} {counters.get(counter, 0)} {stamp}'
            for s, labels in pauses
            for interface, counters in s.interfaces.items()
        ]
    return "\n".join(lines) + "\n"


def _labels(stats: ContainerStats, container: str) -> str:
    return (
        f'container="{container}",id="{stats.cgroup}",image="{stats.image}",name="{stats.name}",'
        f'namespace="{stats.labels.get(pods.POD_NAMESPACE, "")}",'
        f'pod="{stats.labels.get(pods.POD_NAME, "")}"'
    )
