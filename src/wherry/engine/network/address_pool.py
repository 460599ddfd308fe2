"""Who has which address of a range."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping


class PoolExhausted(Exception):
    """No address of the range is free."""


class AddressPool:
    """The addresses of one range, but its first and last and the ``reserved`` ones.

    Addresses are given out in rising order, within ``part`` of the range where that is given. The
    lowest free one is taken, as users of Docker expect; or, where the pool is ``rotating``, the
    range is gone through before one is given again: what others remember of a former owner has
    time to be forgotten.
    """

    def __init__(
        self,
        cidr: str,
        reserved: Iterable[str] = (),
        *,
        part: str = "",
        rotating: bool = False,
    ) -> None:
        self._network = ipaddress.ip_network(cidr)
        inner = ipaddress.ip_network(part or cidr)
        self._lowest = int(self._network.network_address) + 1
        self._highest = int(self._network.broadcast_address) - 1
        self._first = max(self._lowest, int(inner.network_address))
        self._last = min(self._highest, int(inner.broadcast_address))
        self._reserved = {int(ipaddress.ip_address(address)) for address in reserved if address}
        self._rotating = rotating
        self._owners: dict[int, str] = {}
        self._addresses: dict[str, int] = {}
        self._next = self._first

    @property
    def cidr(self) -> str:
        """The range."""
        return str(self._network)

    @property
    def prefix_length(self) -> int:
        """That of the range."""
        return self._network.prefixlen

    def __contains__(self, address: str) -> bool:
        """Whether ``address`` is one of the range, free or not."""
        return ipaddress.ip_address(address) in self._network

    def owners(self) -> Mapping[str, str]:
        """The address of every owner."""
        return {owner: self._text(number) for owner, number in self._addresses.items()}

    def allocate(self, owner: str) -> str:
        """A free address for ``owner``, or the one it has.

        Raises:
            PoolExhausted: there is none.
        """
        if owner in self._addresses:
            return self._text(self._addresses[owner])
        size = self._last - self._first + 1
        # No more than that many can be in the way.
        for offset in range(min(max(size, 0), len(self._owners) + len(self._reserved) + 1)):
            number = self._first + (self._next - self._first + offset) % size
            if number not in self._owners and number not in self._reserved:
                self._next = number + 1
                return self._give(owner, number)
        raise PoolExhausted(f"no free address in {self._network}")

    def claim(self, owner: str, address: str) -> str:
        """Give ``address``, and no other, to ``owner``; returns it.

        Raises:
            ValueError: it is not in the range, reserved, or another's; or the owner has another.
        """
        number = int(ipaddress.ip_address(address))
        if address not in self or not self._lowest <= number <= self._highest:
            raise ValueError(f"address {address} is not in {self._network}")
        if number in self._reserved or self._owners.get(number, owner) != owner:
            raise ValueError("Address already in use")
        if self._addresses.get(owner, number) != number:
            raise ValueError(f"{owner} has another address of {self._network}")
        return self._give(owner, number)

    def _give(self, owner: str, number: int) -> str:
        self._owners[number] = owner
        self._addresses[owner] = number
        return self._text(number)

    def _text(self, number: int) -> str:
        kind = ipaddress.IPv4Address if self._network.version == 4 else ipaddress.IPv6Address
        return str(kind(number))

    def release(self, owner: str) -> None:
        """Take back what ``owner`` has, if anything."""
        number = self._addresses.pop(owner, None)
        if number is not None:
            del self._owners[number]
            if not self._rotating and self._first <= number < self._next:
                self._next = number
