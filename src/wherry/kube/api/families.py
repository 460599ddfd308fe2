"""Address families, as Services and EndpointSlices call them."""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

IPV4: Final = "IPv4"
IPV6: Final = "IPv6"


def family_of(address: str) -> str:
    """``IPv4`` or ``IPv6``, of an address or a range."""
    return IPV6 if ":" in address else IPV4


def families_of(ranges: str) -> tuple[str, ...]:
    """Those of a list of ranges with commas in between, each once, in that order."""
    return tuple(dict.fromkeys(family_of(cidr) for cidr in ranges.split(",") if cidr))


@functools.lru_cache(8192)
def normal(address: str) -> str:
    """The one way to write an address."""
    return str(ipaddress.ip_address(address))
