"""The shape of a driver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from wherry.engine.container.container import Endpoint
from wherry.engine.errors import BadParameter
from wherry.engine.network import endpoints
from wherry.engine.network.network import MTU, Network
from wherry.net.firewall.rules import Segment
from wherry.net.link.cables import Inner


class Driver(Protocol):
    """What a kind of network does. ``up``, ``down``, ``plug`` and ``unplug`` block."""

    addressed: bool  # its networks have ranges, and its endpoints addresses of them
    interface: str  # how interfaces in containers are called, before their number

    def judge(self, network: Network, others: Sequence[Network]) -> None:
        """Judge a new network's options beside the networks that are there, and choose its link.

        Raises:
            BadParameter: an option's value is wrong.
            Forbidden: it conflicts with what is there.
        """
        ...

    def segment(self, network: Network) -> Segment | None:
        """What the firewall should know of it."""
        ...

    def publishes(self, network: Network) -> bool:
        """Whether ports of its containers can be published on the host."""
        ...

    def up(self, network: Network) -> None:
        """Make its link, or make it right; may be repeated.

        Raises:
            OSError: the kernel refuses.
        """
        ...

    def down(self, network: Network) -> None:
        """Take its link away; may be repeated."""
        ...

    def plug(
        self, network: Network, endpoint: Endpoint, namespace: Path, gateways: Sequence[str]
    ) -> None:
        """Give the namespace its interface, which leads all else by ``gateways``.

        Raises:
            OSError: the kernel refuses.
        """
        ...

    def unplug(self, network: Network, endpoint: Endpoint, namespace: Path) -> None:
        """Take the interface away; nothing where there is none."""
        ...


def inner(network: Network, endpoint: Endpoint, gateways: Sequence[str]) -> Inner:
    """The interface that an endpoint stands for."""
    addresses = []
    if endpoint.address:
        addresses.append(f"{endpoint.address}/{endpoint.prefix_length}")
    if endpoint.address6:
        addresses.append(f"{endpoint.address6}/{endpoint.prefix_length6}")
    addresses += [f"{a}/{64 if ':' in a else 16}" for a in endpoint.link_local]
    return Inner(
        name=endpoint.interface,
        addresses=addresses,
        gateways=gateways,
        mac=endpoint.mac_address,
        mtu=mtu(network),
        sysctls=endpoints.sysctls(endpoint),
    )


def mtu(network: Network) -> int:
    """Bytes a packet may have; 0 leaves it to the kernel.

    Raises:
        BadParameter: the option is no such number.
    """
    text = network.options.get(MTU, "")
    if not text:
        return 0
    if not text.isdigit():
        raise BadParameter(
            f'failed to parse {MTU} value: {text} (strconv.Atoi: parsing "{text}": invalid syntax)'
        )
    return int(text)
