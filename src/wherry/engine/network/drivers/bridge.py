"""``bridge``: a switch of this machine, with the machine itself as the way out."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from wherry.engine.container.container import Endpoint
from wherry.engine.errors import BadParameter, Forbidden
from wherry.engine.network import endpoints
from wherry.engine.network.creation import parse_bool
from wherry.engine.network.drivers.base import inner, mtu
from wherry.engine.network.network import BRIDGE_PREFIX, POD_NETWORK, Network
from wherry.net.firewall.rules import Segment
from wherry.net.link import cables, links, shaping

_NAME = f"{BRIDGE_PREFIX}name"
_ICC = f"{BRIDGE_PREFIX}enable_icc"
_MASQUERADE = f"{BRIDGE_PREFIX}enable_ip_masquerade"
HOST_BINDING = f"{BRIDGE_PREFIX}host_binding_ipv4"
_MODES = {4: f"{BRIDGE_PREFIX}gateway_mode_ipv4", 6: f"{BRIDGE_PREFIX}gateway_mode_ipv6"}
_GATEWAY_MODES = ("", "nat", "nat-unprotected", "routed", "isolated")


class Bridge:
    """The driver of bridge networks."""

    addressed = True
    interface = "eth"

    def judge(self, network: Network, others: Sequence[Network]) -> None:
        """Options are judged; without a name the bridge is called as Docker calls it."""
        for version in (4, 6):
            if sum(subnet.version == version for subnet in network.subnets) > 1:
                raise Forbidden("bridge driver doesn't support multiple subnets")
        for option in (_ICC, _MASQUERADE):
            _truth(network, option, default=True)
        mtu(network)
        binding = network.options.get(HOST_BINDING, "")
        if binding:
            try:
                ipaddress.ip_address(binding)
            except ValueError:
                raise BadParameter(
                    f"failed to parse {HOST_BINDING} value: {binding} (nil ip)"
                ) from None
        for option in _MODES.values():
            mode = network.options.get(option, "")
            if mode not in _GATEWAY_MODES:
                raise BadParameter(f"unknown gateway mode {mode}")
            if mode == "isolated" and not network.internal:
                raise BadParameter(
                    "gateway mode 'isolated' can only be used for an internal network"
                )
        network.link = network.options.get(_NAME) or f"br-{network.id[:12]}"
        if len(network.link) > 15 or "/" in network.link:
            raise BadParameter(f"invalid bridge name {network.link}: not a name of an interface")
        network.made_link = not links.exists(network.link)
        for other in others:
            if other.link == network.link:
                raise Forbidden(
                    f"cannot create network {network.id} ({network.link}): conflicts with network "
                    f"{other.id} ({other.link}): networks have same bridge name"
                )

    def segment(self, network: Network) -> Segment | None:
        masked = [
            subnet.cidr
            for subnet in network.subnets
            if _truth(network, _MASQUERADE, default=True)
            and gateway_mode(network, subnet.version) != "routed"
            and not (network.name == POD_NETWORK and _is_known_outside(subnet.cidr))
        ]
        return Segment(
            network.link,
            tuple(network.ranges),
            tuple(masked),
            icc=_truth(network, _ICC, default=True),
            internal=network.internal,
            exposed=network.name == POD_NETWORK
            or any(network.options.get(o) == "nat-unprotected" for o in _MODES.values()),
        )

    def publishes(self, network: Network) -> bool:
        return not network.internal

    def up(self, network: Network) -> None:
        addresses = [
            gateway
            for gateway in network.gateways
            if gateway_mode(network, 6 if ":" in gateway else 4) != "isolated"
        ]
        links.ensure_bridge(network.link, *addresses, mtu=mtu(network), only=network.made_link)

    def down(self, network: Network) -> None:
        if network.made_link:
            links.remove_link(network.link)

    def plug(
        self, network: Network, endpoint: Endpoint, namespace: Path, gateways: Sequence[str]
    ) -> None:
        cables.connect(
            namespace,
            inner(network, endpoint, gateways),
            bridge=network.link,
            host_interface=endpoint.host_interface,
        )
        to, back = endpoints.rates(endpoint)
        if to or back:
            try:
                shaping.limit(endpoint.host_interface, namespace.name, to=to, back=back)
            except BaseException:
                self.unplug(network, endpoint, namespace)
                raise

    def unplug(self, network: Network, endpoint: Endpoint, namespace: Path) -> None:
        links.remove_link(endpoint.host_interface)
        if endpoints.rates(endpoint)[1]:
            shaping.unlimit(namespace.name)


def _is_known_outside(cidr: str) -> bool:
    """Whether others may know the way to a range: one of global addresses of IPv6, which whoever
    chose it has routed here."""
    range = ipaddress.ip_network(cidr)
    return range.version == 6 and not range.is_private


def gateway_mode(network: Network, version: int) -> str:
    """How what leaves in IP ``version`` is translated: one of Docker's gateway modes."""
    return network.options.get(_MODES[version]) or "nat"


def _truth(network: Network, option: str, *, default: bool) -> bool:
    text = network.options.get(option)
    if text is None:
        return default
    try:
        return parse_bool(text)
    except ValueError as error:
        raise BadParameter(f"failed to parse {option} value: {text} ({error})") from None
