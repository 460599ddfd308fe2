"""Where the cluster's name server is: what its Service, its servers and its settings agree on."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

Object = dict[str, Any]

NAMESPACE: Final = "kube-system"
NAME: Final = "kube-dns"
"""Of the Service, and of the ConfigMap with the settings."""


def listening_addresses(node: Object) -> tuple[str, ...]:
    """Where the name server of a node listens, the primary address first; none before the node has
    its range."""
    spec = node.get("spec") or {}
    ranges = spec.get("podCIDRs") or (spec.get("podCIDR"),)
    return tuple(str(ipaddress.ip_network(text)[1]) for text in ranges if text)
