"""What a NetworkPolicy says, read once: whom it is about, and who is let through.

https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.selectors import EVERYTHING, LabelSelector, labels_from_object

Object = Mapping[str, Any]
PROTOCOLS = ("tcp", "udp", "sctp")
ALL_PORTS = (0, 65535)


@dataclass(frozen=True, slots=True)
class Group:
    """Pods by their labels: of one ``namespace``, or of those whose labels ``namespaces`` selects.

    ``local`` ones are those on this node alone.
    """

    pods: LabelSelector
    namespace: str = ""
    namespaces: LabelSelector | None = None
    local: bool = False

    @property
    def everywhere(self) -> bool:
        """Whether it means all namespaces, those, too, that nothing is known of yet."""
        return self.namespaces == EVERYTHING


EVERY_POD = Group(EVERYTHING, namespaces=EVERYTHING)


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of one protocol: ranges with both ends, and names that pods give to theirs."""

    protocol: str
    ranges: tuple[tuple[int, int], ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """Connections that are let through: with these peers, to these ports.

    ``everyone``: the rule names no peers. ``ports`` is None where it names none.
    """

    everyone: bool
    groups: tuple[Group, ...]
    blocks: tuple[str, ...]  # ranges without their exceptions, both versions of IP
    ports: tuple[Ports, ...] | None


@dataclass(frozen=True, slots=True)
class Policy:
    """A NetworkPolicy; ``ingress`` or ``egress`` is None where it has nothing to say of it."""

    key: str
    target: Group
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None


def read(policy: Object) -> Policy:
    """What ``policy`` says.

    Raises:
        Exception: of any kind: the object is none that an API server lets pass.
    """
    namespace = meta.namespace(policy)
    types = _types(policy)

    def rules(kind: str, peers: str) -> tuple[Rule, ...] | None:
        if kind not in types:
            return None
        listed = (policy.get("spec") or {}).get(kind.lower()) or ()
        return tuple(_rule(rule, peers, namespace) for rule in listed)

    ingress, egress = rules("Ingress", "from"), rules("Egress", "to")
    return Policy(meta.key(policy), _target(policy), ingress, egress)


def read_or_close(policy: Object) -> tuple[Policy, Exception | None]:
    """What ``policy`` says; where that cannot be told: that nothing is let through, and why."""
    try:
        return read(policy), None
    except Exception as error:
        unreadable = error
    try:
        target, types = _target(policy), _types(policy)
    except Exception:
        target = Group(EVERYTHING, meta.namespace(policy), local=True)
        types = ("Ingress", "Egress")
    ingress, egress = (() if kind in types else None for kind in ("Ingress", "Egress"))
    return Policy(meta.key(policy), target, ingress, egress), unreadable


def _types(policy: Object) -> Sequence[str]:
    spec = policy.get("spec") or {}
    return spec.get("policyTypes") or (
        ("Ingress", "Egress") if spec.get("egress") else ("Ingress",)
    )


def _target(policy: Object) -> Group:
    selector = (policy.get("spec") or {}).get("podSelector") or {}
    return Group(labels_from_object(selector), meta.namespace(policy), local=True)


def _rule(rule: Object, peers: str, namespace: str) -> Rule:
    groups: list[Group] = []
    blocks: list[str] = []
    listed = rule.get(peers) or ()
    for peer in listed:
        if peer.get("ipBlock"):
            blocks += _block(peer["ipBlock"])
            continue
        selector = peer.get("podSelector")
        pods = EVERYTHING if selector is None else labels_from_object(selector)
        if peer.get("namespaceSelector") is None:
            groups.append(Group(pods, namespace))
        else:
            namespaces = labels_from_object(peer["namespaceSelector"])
            groups.append(Group(pods, namespaces=namespaces))
    ports = tuple(_ports(rule["ports"])) if rule.get("ports") else None
    return Rule(not listed, tuple(dict.fromkeys(groups)), tuple(_collapsed(blocks)), ports)


def _ports(ports: Sequence[Object]) -> Iterator[Ports]:
    for protocol in PROTOCOLS:
        ranges: list[tuple[int, int]] = []
        names: list[str] = []
        for port in ports:
            if (port.get("protocol") or "TCP").lower() != protocol:
                continue
            number = port.get("port")
            if number is None:
                ranges.append(ALL_PORTS)
            elif isinstance(number, str):
                names.append(number)
            else:
                ranges.append((number, port.get("endPort") or number))
        if ranges or names:
            yield Ports(protocol, tuple(_merged(ranges)), tuple(dict.fromkeys(names)))


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _block(block: Object) -> Iterator[str]:
    """The ranges that are left of a block without its exceptions."""
    left: list[Any] = [ipaddress.ip_interface(block["cidr"]).network]
    for text in block.get("except") or ():
        out = ipaddress.ip_interface(text).network
        kept: list[Any] = []
        for network in left:
            if network.version != out.version or not network.overlaps(out):
                kept.append(network)
            elif out.prefixlen > network.prefixlen:
                kept += network.address_exclude(out)
        left = kept
    yield from map(str, left)


def _collapsed(blocks: list[str]) -> Iterator[str]:
    networks = [ipaddress.ip_network(block) for block in blocks]
    for version in (4, 6):
        same: list[Any] = [network for network in networks if network.version == version]
        yield from map(str, ipaddress.collapse_addresses(same))
