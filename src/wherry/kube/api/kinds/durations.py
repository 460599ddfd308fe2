"""Time spans as people read them in tables: ``90s``, ``2m5s``, ``5d12h``.

Upstream: k8s.io/apimachinery/pkg/util/duration, HumanDuration.
"""

from __future__ import annotations

from datetime import datetime

from wherry.kube.api.meta import parse_time

UNKNOWN = "<unknown>"


def human(seconds: float) -> str:
    """A span in at most two units, coarser the longer it is. Up to two seconds into the future
    count as zero (clocks differ); further is ``<invalid>``."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 0:
        return "0s"
    if total < 120:
        return f"{total}s"
    minutes = total // 60
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    hours = total // 3600
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return _two(days, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{days}d"
    years = hours // (24 * 365)
    if hours < 24 * 365 * 8:
        return _two(years, "y", days % 365, "d")
    return f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def age(timestamp: str | None, now: datetime) -> str:
    """How long ago that was, or ``<unknown>``."""
    return human((now - parse_time(timestamp)).total_seconds()) if timestamp else UNKNOWN
