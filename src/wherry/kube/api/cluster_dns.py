"""Where the cluster's name server is: what its Service, its servers and its settings agree on."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

Object = dict[str, Any]

NAMESPACE: Final = "kube-system"
NAME: Final = "kube-dns"
"""Of the Service, and of the ConfigMap with the settings."""


def listening_address(node: Object) -> str | None:
    """Where the name server of a node listens; None before the node has its range."""
    for text in node["spec"].get("podCIDRs") or (node["spec"].get("podCIDR"),):
        if text:
            range = ipaddress.ip_network(text)
            if range.version == 4:
                return str(range[1])
    return None
