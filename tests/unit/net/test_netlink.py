"""Messages for the routing socket, byte by byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.net import netlink
from wherry.net.link.links import mac_address


def test_an_attribute_is_padded_and_its_length_is_not() -> None:
    assert netlink.attribute(3, "ab") == struct.pack("=HH", 7, 3) + b"ab\0" + b"\0"
    assert netlink.attribute(10, 5) == struct.pack("=HHI", 8, 10, 5)


@given(st.dictionaries(st.integers(1, 100), st.binary(max_size=40), max_size=8))
def test_attributes_are_read_as_they_were_written(values: dict[int, bytes]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in values.items())
    assert netlink.attributes(data) == values


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 9), st.binary(max_size=30))))
def test_messages_are_read_as_they_were_written(wanted: list[tuple[int, int, bytes]]) -> None:
    data = b""
    for kind, sequence, body in wanted:
        made = netlink.message(kind, 1, sequence, body)
        data += made + bytes(-len(made) % 4)
    assert list(netlink.messages(data)) == wanted


@given(st.binary(max_size=200))
def test_nonsense_is_survived(data: bytes) -> None:
    netlink.attributes(data)


def test_a_link_a_route_and_an_address_are_read_back() -> None:
    made = netlink.link(netlink.attribute(3, "eth0"), index=4, flags=1, change=1)
    assert netlink.read_link(made) == (4, 1, {3: b"eth0\0"})
    made = netlink.address(netlink.attribute(2, b"\1\2\3\4"), index=7, prefix_length=16)
    assert netlink.read_address(made) == (7, 16, {2: b"\1\2\3\4"})
    route = netlink.route(netlink.attribute(1, b"\n\0\0\0"), prefix_length=8, kind=7)
    assert netlink.read_route(route) == (8, 254, 7, {1: b"\n\0\0\0"})
    route = netlink.route(netlink.attribute(netlink.RTA_TABLE, 1000))
    assert netlink.read_route(route)[1] == 1000


class Telling:
    """A socket of a kernel whose list is changed by others, so often, while it tells it."""

    def __init__(self, changed: int) -> None:
        self._changed = changed
        self._sequence = 0
        self._left: list[bytes] = []

    def send(self, data: bytes) -> None:
        assert not self._left, "the last list has not been heard to its end"
        ((_, self._sequence, _),) = netlink.messages(data)
        flags = [0, 0, 0]
        if self._changed:
            self._changed -= 1
            flags[1] = netlink.NLM_F_DUMP_INTR
        kinds = (20, 20, netlink.NLMSG_DONE)
        self._left = [
            netlink.message(kind, 2 | flag, self._sequence, bytes(4))
            for kind, flag in zip(kinds, flags, strict=True)
        ]

    def recv(self, size: int) -> bytes:
        return self._left.pop(0)

    def close(self) -> None:
        """Nothing is open."""


def asked(changed: int) -> int:
    with netlink.Connection() as connection:
        connection._socket.close()
        connection._socket = Telling(changed)  # type: ignore[assignment]
        return len(connection.ask(netlink.RTM_GETADDR, b"", netlink.NLM_F_DUMP))


def test_a_list_that_changed_while_it_was_told_is_asked_for_again() -> None:
    assert asked(0) == asked(3) == 2
    with pytest.raises(InterruptedError, match="changes all the time"):
        asked(10_000)


def test_a_hardware_address_follows_from_the_address() -> None:
    assert mac_address("172.17.0.2") == "02:42:ac:11:00:02"
