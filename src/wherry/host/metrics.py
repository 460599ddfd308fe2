"""Numbers about this process, in Prometheus' text format.

To count costs a look into a dictionary: no locks (all counting happens on the event loop), and no
text until somebody asks for it. A family is made once, at import, and lists itself.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
import resource
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

Labels = tuple[str, ...]
"""The values of a family's labels, in the family's order."""

_FAMILIES: list[Family] = []


def text_of(value: float) -> str:
    """A number as the format has it."""
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def sample(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    """One line."""
    inside = ",".join(f'{key}="{_escaped(each)}"' for key, each in labels)
    return f"{name}{{{inside}}} {text_of(value)}" if inside else f"{name} {text_of(value)}"


class Family:
    """What is counted under one name. ``listed``: part of what `render` tells."""

    kind = "untyped"

    def __init__(self, name: str, help: str, labels: Labels = (), *, listed: bool = True) -> None:
        self.name, self.help, self.labels = name, help, labels
        if listed:
            _FAMILIES.append(self)

    def samples(self) -> Iterator[str]:
        """The lines below the head."""
        raise NotImplementedError

    def render(self) -> Iterator[str]:
        """All lines; none where nothing was counted yet."""
        head = (f"# HELP {self.name} {self.help}", f"# TYPE {self.name} {self.kind}")
        for number, line in enumerate(self.samples()):
            if not number:
                yield from head
            yield line


class Counter(Family):
    """What only grows."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Labels = (), *, listed: bool = True) -> None:
        super().__init__(name, help, labels, listed=listed)
        self.values: dict[Labels, float] = {}

    def add(self, labels: Labels = (), by: float = 1) -> None:
        """Count."""
        self.values[labels] = self.values.get(labels, 0) + by

    def forget(self, which: Callable[[Labels], bool]) -> None:
        """Take series away: what they tell of is no longer there."""
        self.values = {labels: v for labels, v in self.values.items() if not which(labels)}

    def samples(self) -> Iterator[str]:
        for labels, value in list(self.values.items()):
            yield sample(self.name, zip(self.labels, labels, strict=True), value)


class Gauge(Counter):
    """What goes up and down; ``read`` tells all values, where they are not counted here."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        help: str,
        labels: Labels = (),
        read: Callable[[], Iterable[tuple[Labels, float]]] | None = None,
        *,
        listed: bool = True,
    ) -> None:
        super().__init__(name, help, labels, listed=listed)
        self._read = read

    def samples(self) -> Iterator[str]:
        if self._read is not None:
            self.values = dict(self._read())
        return super().samples()


class ReadCounter(Gauge):
    """A counter that somebody else counts."""

    kind = "counter"


class Histogram(Family):
    """How values are spread over ``buckets``, upper bounds in growing order."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help: str,
        labels: Labels,
        buckets: Sequence[float],
        *,
        listed: bool = True,
    ) -> None:
        super().__init__(name, help, labels, listed=listed)
        self._buckets = tuple(buckets)
        self._bounds = (*map(text_of, buckets), "+Inf")
        self._counts: dict[Labels, list[float]] = {}

    def counts(self, labels: Labels) -> list[float]:
        """The counts of a series, for those who count in it themselves: one for each bucket, one
        for what is above them, and last the sum."""
        found = self._counts.get(labels)
        if found is None:
            found = self._counts[labels] = [0.0] * (len(self._buckets) + 2)
        return found

    def observe(self, labels: Labels, value: float) -> None:
        """Count a value."""
        counts = self.counts(labels)
        counts[bisect_left(self._buckets, value)] += 1
        counts[-1] += value

    def forget(self, which: Callable[[Labels], bool]) -> None:
        """Take series away: what they tell of is no longer there."""
        self._counts = {labels: c for labels, c in self._counts.items() if not which(labels)}

    def samples(self) -> Iterator[str]:
        for labels, counts in list(self._counts.items()):
            pairs = list(zip(self.labels, labels, strict=True))
            if not any(counts):
                continue
            so_far = 0.0
            for bound, count in zip(self._bounds, counts, strict=False):
                so_far += count
                yield sample(f"{self.name}_bucket", [*pairs, ("le", bound)], so_far)
            yield sample(f"{self.name}_sum", pairs, counts[-1])
            yield sample(f"{self.name}_count", pairs, so_far)


def render(more: Iterable[Family] = ()) -> bytes:
    """Everything that is counted in this process, and ``more``."""
    return lines_of(sorted((*_FAMILIES, *more), key=lambda family: family.name))


def lines_of(families: Iterable[Family]) -> bytes:
    """These families alone, as text."""
    lines = [line for family in families for line in family.render()]
    return ("\n".join(lines) + "\n").encode() if lines else b""


# --- the process ---------------------------------------------------------------------------------

_PAGE = resource.getpagesize()
_STARTED = time.time()


def _processor() -> Iterable[tuple[Labels, float]]:
    used = os.times()
    yield (), used.user + used.system


def _memory(field: int) -> Callable[[], Iterable[tuple[Labels, float]]]:
    def read() -> Iterable[tuple[Labels, float]]:
        yield (), int(Path("/proc/self/statm").read_text().split()[field]) * _PAGE

    return read


def _open_files() -> Iterable[tuple[Labels, float]]:
    yield (), sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1


def _most_files() -> Iterable[tuple[Labels, float]]:
    yield (), resource.getrlimit(resource.RLIMIT_NOFILE)[0]


ReadCounter(
    "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", (), _processor
)
Gauge("process_resident_memory_bytes", "Resident memory size in bytes.", (), _memory(1))
Gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", (), _memory(0))
Gauge("process_open_fds", "Number of open file descriptors.", (), _open_files)
Gauge("process_max_fds", "Maximum number of open file descriptors.", (), _most_files)
Gauge(
    "process_start_time_seconds",
    "Start time of the process since unix epoch in seconds.",
    (),
    lambda: [((), _STARTED)],
)
