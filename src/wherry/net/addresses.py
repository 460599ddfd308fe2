"""Who has which address of a range."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping


class PoolExhausted(Exception):
    """No address of the range is free."""


class AddressPool:
    """The addresses of one IPv4 range, but its first and last and the ``reserved`` ones.

    Addresses are given out in rising order and the range is gone through before one is given again:
    what others remember of a former owner has time to be forgotten.
    """

    def __init__(self, cidr: str, reserved: Iterable[str] = ()) -> None:
        self._network = ipaddress.IPv4Network(cidr)
        self._first = int(self._network.network_address) + 1
        self._last = int(self._network.broadcast_address) - 1
        self._reserved = {int(ipaddress.IPv4Address(address)) for address in reserved if address}
        self._owners: dict[int, str] = {}
        self._addresses: dict[str, int] = {}
        self._next = self._first

    @property
    def cidr(self) -> str:
        """The range."""
        return str(self._network)

    def owners(self) -> Mapping[str, str]:
        """The address of every owner."""
        return {o: str(ipaddress.IPv4Address(number)) for o, number in self._addresses.items()}

    def allocate(self, owner: str) -> str:
        """A free address for ``owner``, or the one it has.

        Raises:
            PoolExhausted: there is none.
        """
        if owner in self._addresses:
            return str(ipaddress.IPv4Address(self._addresses[owner]))
        size = self._last - self._first + 1
        for offset in range(max(size, 0)):
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
        number = int(ipaddress.IPv4Address(address))
        if not self._first <= number <= self._last:
            raise ValueError(f"address {address} is not in {self._network}")
        if number in self._reserved or self._owners.get(number, owner) != owner:
            raise ValueError("Address already in use")
        if self._addresses.get(owner, number) != number:
            raise ValueError(f"{owner} has another address of {self._network}")
        return self._give(owner, number)

    def _give(self, owner: str, number: int) -> str:
        self._owners[number] = owner
        self._addresses[owner] = number
        return str(ipaddress.IPv4Address(number))

    def release(self, owner: str) -> None:
        """Take back what ``owner`` has, if anything."""
        number = self._addresses.pop(owner, None)
        if number is not None:
            del self._owners[number]
