"""``macvlan`` and ``ipvlan``: containers on the wire of an interface of this machine.

They are neighbours of whatever else is there, with hardware addresses of their own (macvlan) or
with the interface's (ipvlan); this machine itself they do not reach. Without a parent there is no
wire: containers of the network reach each other alone.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path

from wherry.engine.container.container import Endpoint
from wherry.engine.errors import BadParameter, EngineError, Forbidden
from wherry.engine.network.drivers.base import inner, mtu
from wherry.engine.network.network import Network
from wherry.net.firewall.rules import Segment
from wherry.net.link import cables, links


class SharedWire:
    """The driver of networks of ``kind``."""

    addressed = True
    interface = "eth"

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._modes = cables.MACVLAN_MODES if kind == "macvlan" else cables.IPVLAN_MODES
        self._default = "bridge" if kind == "macvlan" else "l2"

    def _mode(self, network: Network) -> str:
        return network.options.get(f"{self._kind}_mode") or self._default

    def judge(self, network: Network, others: Sequence[Network]) -> None:
        """A network without a parent gets one that leads nowhere."""
        mode = self._mode(network)
        if mode not in self._modes:
            raise BadParameter(
                f"requested {self._kind} mode '{mode}' is not valid, '{self._default}' mode is the "
                f"{self._kind} driver default"
            )
        mtu(network)
        parent = network.options.get("parent", "")
        if parent == "lo":
            raise BadParameter(f"loopback interface is not a valid {self._kind} parent link")
        if not links.knows_kind(self._kind):
            raise EngineError(f"the kernel of this machine has no {self._kind} links")
        # One interface is shared out in one way: the kernel has one such port for each.
        sharing = [other for other in others if parent and other.link == parent]
        if any(o.driver != self._kind or "passthru" in (mode, self._mode(o)) for o in sharing):
            raise Forbidden(f"network already using parent interface {parent}")
        network.link = parent or f"d{'m' if self._kind == 'macvlan' else 'i'}-{network.id[:12]}"
        network.made_link = not (parent and links.exists(parent))
        if parent and network.made_link:
            _tagged(parent)

    def segment(self, network: Network) -> Segment | None:
        return None

    def publishes(self, network: Network) -> bool:
        return False

    def up(self, network: Network) -> None:
        if links.exists(network.link):
            return
        if not network.options.get("parent"):
            # A bridge with nothing on it: whatever goes there goes nowhere else.
            links.ensure_bridge(network.link)
            return
        parent, number = _tagged(network.link)
        try:
            links.ensure_vlan(network.link, parent, number)
        except OSError as error:
            reason = "the kernel has no 802.1Q links" if error.errno == errno.EOPNOTSUPP else error
            raise EngineError(
                f"failed to create {network.link} vlan link on {parent}: {reason}"
            ) from error

    def down(self, network: Network) -> None:
        if network.made_link:
            links.remove_link(network.link)

    def plug(
        self, network: Network, endpoint: Endpoint, namespace: Path, gateways: Sequence[str]
    ) -> None:
        mode = self._mode(network)
        made = inner(network, endpoint, () if mode in ("l3", "l3s") else gateways)
        if mode in ("l3", "l3s") and gateways:
            made = cables.Inner(
                made.name,
                made.addresses,
                mac=made.mac,
                mtu=made.mtu,
                routed=True,
                sysctls=made.sysctls,
            )
        cables.split_off(
            namespace, made, parent=network.link, kind=self._kind, mode=self._modes[mode]
        )

    def unplug(self, network: Network, endpoint: Endpoint, namespace: Path) -> None:
        cables.remove_inner(namespace, endpoint.interface)


def _tagged(name: str) -> tuple[str, int]:
    """The parent and the tag that ``eth0.10`` names.

    Raises:
        BadParameter: the interface is not there, and the name is no such one.
    """
    match = re.fullmatch(r"(.+)\.(\d+)", name)
    if not match or not links.exists(match[1]):
        raise BadParameter(f"invalid subinterface vlan name {name}, example formatting is eth0.10")
    number = int(match[2])
    if not 0 < number < 4095:
        raise BadParameter(f"vlan id must be between 1-4094, received: {number}")
    return match[1], number
