"""Ports for servers of tests."""

from __future__ import annotations

import os
import random
import socket

# Test processes that run side by side each have ports of their own, every eighth.
_SIDE_BY_SIDE = 8
_OFFSET = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SIDE_BY_SIDE
_left: list[int] = []


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """One that nobody has, on any address, and that nobody else will get from here soon.

    It lies below those that the kernel gives to outgoing connections, and those of NodePorts: there
    somebody else would have it before the server that it is for.
    """
    while True:
        if not _left:
            _left.extend(range(20000 + _OFFSET, 30000, _SIDE_BY_SIDE))
            random.SystemRandom().shuffle(_left)
        port = _left.pop()
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
