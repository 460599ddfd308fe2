"""Ports for servers of tests."""

from __future__ import annotations

import random
import socket


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """One that nobody has, on any address.

    It lies below those that the kernel gives to outgoing connections, and those of NodePorts: there
    somebody else would have it before the server that it is for.
    """
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
