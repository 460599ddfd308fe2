"""Services, Ingresses, NetworkPolicies."""

from __future__ import annotations

import ipaddress
from typing import Any

Object = dict[str, Any]

_INGRESS_CLASS = "kubernetes.io/ingress.class"
_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"


def service(new: Object, old: Object | None) -> list[str]:
    spec = new.get("spec") or {}
    told: list[str] = []
    if _HINTS in (new["metadata"].get("annotations") or {}):
        told.append(f"annotation {_HINTS} is deprecated, please use {_MODE} instead")
    kind, outside = spec.get("type", ""), spec.get("externalIPs") or ()
    headless = kind == "ClusterIP" and spec.get("clusterIP") == "None"
    if spec.get("clusterIP", "None") not in ("", "None"):
        for i, address in enumerate(spec.get("clusterIPs") or ()):
            told += address_warnings(address, f"spec.clusterIPs[{i}]")
    if headless:
        if spec.get("loadBalancerIP"):
            told.append("spec.loadBalancerIP is ignored for headless services")
        if outside:
            told.append("spec.externalIPs is ignored for headless services")
        if spec.get("sessionAffinity", "None") != "None":
            told.append("spec.SessionAffinity is ignored for headless services")
    for i, address in enumerate(outside):
        told += address_warnings(address, f"spec.externalIPs[{i}]")
    if outside and not headless and kind != "ExternalName":
        told.append(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
        )
    if address := spec.get("loadBalancerIP"):
        told += address_warnings(address, "spec.loadBalancerIP")
    for i, block in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        told += block_warnings(block, f"spec.loadBalancerSourceRanges[{i}]")
    if kind == "ExternalName" and outside:
        told.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if kind != "ExternalName" and spec.get("externalName"):
        told.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        told.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return told


def ingress(new: Object, old: Object | None) -> list[str]:
    if old is not None or _INGRESS_CLASS not in (new["metadata"].get("annotations") or {}):
        return []
    return [
        f"annotation \"{_INGRESS_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"
    ]


def network_policy(new: Object, old: Object | None) -> list[str]:
    spec = new.get("spec") or {}
    told = []
    for rules, peers in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(spec.get(rules) or ()):
            for j, peer in enumerate(rule.get(peers) or ()):
                block = peer.get("ipBlock") or {}
                path = f"spec.{rules}[{i}].{peers}[{j}].ipBlock"
                if block.get("cidr"):
                    told += block_warnings(block["cidr"], f"{path}.cidr")
                for k, each in enumerate(block.get("except") or ()):
                    told += block_warnings(each, f"{path}.except[{k}]")
    return told


def address_warnings(text: str, path: str) -> list[str]:
    """What is unusual about an IP address, which is one."""
    address = _parsed(text)
    if address is None:
        return []
    try:
        strict = ipaddress.ip_address(text)
    except ValueError:
        strict = None
    if strict is None or (strict.version == 6 and strict.ipv4_mapped):
        return [
            f'{path}: non-standard IP address "{text}" will be considered invalid in a future '
            f'Kubernetes release: use "{address}"'
        ]
    if strict.version == 6 and str(strict) != text:
        return [
            f'{path}: IPv6 address "{text}" should be in RFC 5952 canonical format ("{strict}")'
        ]
    return []


def block_warnings(text: str, path: str) -> list[str]:
    """What is unusual about a block of addresses, which is one."""
    head, slash, length = text.partition("/")
    address = _parsed(head)
    if address is None or not slash or not length.isdigit():
        return []
    try:
        network = ipaddress.ip_network(f"{address}/{int(length)}", strict=False)
    except ValueError:
        return []
    told = []
    if network.network_address != address:
        told.append(
            f'{path}: CIDR value "{text}" is ambiguous in this context (should be "{network}" or '
            f'"{address}/{network.max_prefixlen}"?)'
        )
    try:
        strict = ipaddress.ip_address(head)
    except ValueError:
        strict = None
    mapped = strict is not None and strict.version == 6 and bool(strict.ipv4_mapped)
    if strict is None or mapped or length != str(int(length)):
        told.append(
            f'{path}: non-standard CIDR value "{text}" will be considered invalid in a future '
            f'Kubernetes release: use "{network}"'
        )
    if not told and network.version == 6 and f"{strict}/{length}" != text:
        told.append(
            f'{path}: IPv6 CIDR value "{text}" should be in RFC 5952 canonical format '
            f'("{strict}/{length}")'
        )
    return told


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as it was read for long: with leading zeros, or an IPv4 address within IPv6."""
    try:
        if ":" not in text:
            return ipaddress.ip_address(".".join(str(int(part)) for part in text.split(".")))
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
