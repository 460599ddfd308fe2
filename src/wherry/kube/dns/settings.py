"""What a user may set: whom to ask for other names. The ConfigMap ``kube-system/kube-dns``.

(https://kubernetes.io/docs/tasks/administer-cluster/dns-custom-nameservers/, in kube-dns' form:
``stubDomains`` and ``upstreamNameservers`` are JSON.)
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from wherry.host.resolv_conf import PATH
from wherry.kube.api.cluster_dns import NAME, NAMESPACE

log = logging.getLogger(__name__)

PORT = 53

Server = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Settings:
    """Servers for names that are not ours: for some domains their own, for all others these."""

    upstreams: Sequence[Server] = ()
    """None: those of this machine."""
    stubs: Mapping[str, Sequence[Server]] = field(default_factory=dict)
    resolv_conf: str = PATH
    """Where this machine says whom it asks; empty: nowhere."""


def servers(addresses: Iterable[str]) -> list[Server]:
    """The name servers at ``addresses``, as a resolv.conf has them."""
    return [server for text in addresses if (server := _server(text)) is not None]


def _server(text: Any) -> Server | None:
    """``1.2.3.4``, ``1.2.3.4:5353``, ``::1``; None for anything else."""
    if not isinstance(text, str):
        return None
    address, colon, port = text.rpartition(":")
    if not colon or ":" in address:
        address, port = text, str(PORT)
    try:
        ipaddress.ip_address(address.partition("%")[0])
        number = int(port)
    except ValueError:
        return None
    return (address, number) if 0 < number < 65536 else None


def read(config_map: Mapping[str, Any] | None, resolv_conf: str = PATH) -> Settings:
    """The settings that a ConfigMap makes; what is wrong in it is said to the log and left out."""
    data = (config_map or {}).get("data") or {}
    upstreams = _servers(_json(data, "upstreamNameservers", list))
    stubs: dict[str, Sequence[Server]] = {}
    for domain, listed in (_json(data, "stubDomains", dict) or {}).items():
        found = _servers(listed)
        if found:
            stubs[domain.strip(".").lower()] = found
    return Settings(tuple(upstreams), stubs, resolv_conf)


def _json(data: Mapping[str, str], key: str, kind: type) -> Any:
    text = data.get(key)
    if not text:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        log.warning("ConfigMap %s/%s: %s: %s", NAMESPACE, NAME, key, error)
        return None
    if not isinstance(value, kind):
        log.warning("ConfigMap %s/%s: %s: not a %s", NAMESPACE, NAME, key, kind.__name__)
        return None
    return value


def _servers(values: Any) -> list[Server]:
    found = []
    for value in values if isinstance(values, list) else ():
        server = _server(value)
        if server is None:
            log.warning("ConfigMap %s/%s: %r is no address", NAMESPACE, NAME, value)
        else:
            found.append(server)
    return found
