"""How many seats a request takes: a list as many as it is long.

Upstream: k8s.io/apiserver/pkg/util/flowcontrol/request/list_work_estimator.go.
"""

from __future__ import annotations

_OBJECTS_A_SEAT = 100
_MOST = 10


def of_list(objects: int, limit: str) -> int:
    """Seats of a list, or of a watch that begins with one. ``limit`` is the query parameter."""
    if limit.isdecimal() and 0 < int(limit[:9]) < objects:
        objects = int(limit[:9])
    return min(max(1, -(-objects // _OBJECTS_A_SEAT)), _MOST)
