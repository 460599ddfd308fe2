"""Kinds of networks: one module a kind, all of the shape of ``Driver``, listed in ``DRIVERS``.

A driver decides what a network's options mean and has ``wherry.net`` make its link and the
interfaces of containers on it. Which network there are, who has which address and which ports are
published is the same for all, and known elsewhere (``networks``, ``places``).
"""

from __future__ import annotations

from collections.abc import Mapping

from wherry.engine.errors import NotFound
from wherry.engine.network import cni
from wherry.engine.network.drivers.base import Driver
from wherry.engine.network.drivers.bridge import Bridge
from wherry.engine.network.drivers.none import Lone
from wherry.engine.network.drivers.shared import SharedWire

DRIVERS: Mapping[str, Driver] = {
    "bridge": Bridge(),
    "host": Lone("host"),
    "macvlan": SharedWire("macvlan"),
    "ipvlan": SharedWire("ipvlan"),
    "null": Lone("null"),
    cni.DRIVER: Lone(cni.DRIVER),
}


def driver(name: str) -> Driver:
    """The driver of that name.

    Raises:
        NotFound: there is none.
    """
    if name not in DRIVERS:
        raise NotFound(f'plugin "{name}" not found')
    return DRIVERS[name]
