"""Reads a kubelet's ``/metrics/resource``: cumulative CPU and memory of node and containers.

The format is Prometheus' text; only five families of it count.
Upstream: metrics-server/pkg/scraper/client/resource/decode.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

_LINE = re.compile(
    r"^(node_cpu_usage_seconds_total|node_memory_working_set_bytes"
    r"|container_cpu_usage_seconds_total|container_memory_working_set_bytes"
    r"|container_start_time_seconds)(?:\{([^}\n]*)\})?[ \t]+(\S+)(?:[ \t]+(-?\d+))?[ \t]*$",
    re.MULTILINE,
)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Point(NamedTuple):
    """CPU seconds spent until ``at``, bytes of memory then; ``started``, where it is known, is when
    counting began. Times are seconds of the epoch."""

    cpu: float
    memory: int
    at: float
    started: float = 0.0


Pod = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one kubelet told."""

    node: Point | None = None
    pods: dict[Pod, dict[str, Point]] = field(default_factory=dict)
    """By container. A pod one of whose containers lacks a figure is left out."""


@dataclass(slots=True)
class _Partial:
    cpu: float | None = None
    memory: float | None = None
    started: float = 0.0
    at: float = 0.0

    def point(self) -> Point | None:
        if self.cpu is None or self.memory is None:
            return None
        return Point(self.cpu, int(self.memory), self.at, self.started)


def parse(text: str, now: float) -> Sample:
    """What the text tells; ``now`` holds for what has no time of its own. Malformed lines count
    as absent."""
    node = _Partial()
    pods: dict[Pod, dict[str, _Partial]] = {}
    for family, labels, number, stamp in _LINE.findall(text):
        try:
            value = float(number)
        except ValueError:
            continue
        at = int(stamp) / 1000 if stamp else now
        if family.startswith("node_"):
            _put(node, family, value, at)
            continue
        names = dict(_LABEL.findall(labels))
        pod, container = names.get("pod"), names.get("container")
        if pod and container:
            of = pods.setdefault((names.get("namespace", ""), pod), {})
            _put(of.setdefault(container, _Partial()), family, value, at)
    whole: dict[Pod, dict[str, Point]] = {}
    for key, containers in pods.items():
        points = {name: partial.point() for name, partial in containers.items()}
        complete = {name: point for name, point in points.items() if point is not None}
        if len(complete) == len(points):
            whole[key] = complete
    return Sample(node.point(), whole)


def _put(partial: _Partial, family: str, value: float, at: float) -> None:
    if family.endswith("_cpu_usage_seconds_total"):
        partial.cpu, partial.at = value, at
    elif family.endswith("_memory_working_set_bytes"):
        partial.memory = value
    else:
        partial.started = value
