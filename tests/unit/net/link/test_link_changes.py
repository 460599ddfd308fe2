"""What of the kernel's news is news to whoever listens."""

from __future__ import annotations

import socket

from wherry.net import netlink
from wherry.net.link.changes import MTUChanges

NEW, GONE = netlink.RTM_NEWLINK, netlink.RTM_DELLINK


def link(index: int, mtu: int | None = None, family: int = socket.AF_UNSPEC) -> bytes:
    parts = [] if mtu is None else [netlink.attribute(netlink.IFLA_MTU, mtu)]
    return netlink.link(*parts, index=index, family=family)


class Listener(MTUChanges):
    def __init__(self) -> None:
        super().__init__(lambda: None)
        self._known = {2: 1500}


def test_another_size_on_a_known_link_is_news_once() -> None:
    listener = Listener()
    assert not listener.concerns(NEW, link(2, 1500))
    assert listener.concerns(NEW, link(2, 1400))
    assert not listener.concerns(NEW, link(2, 1400))
    assert not listener.concerns(NEW, link(2))
    assert not listener.concerns(NEW, link(2, 1300, socket.AF_BRIDGE))
    assert listener.concerns(NEW, link(2, 1500))


def test_links_that_come_and_go_are_no_news() -> None:
    listener = Listener()
    assert not listener.concerns(NEW, link(7, 1450))
    assert not listener.concerns(NEW, link(7, 1450))
    assert not listener.concerns(GONE, link(7, 1450))
    assert not listener.concerns(NEW, link(7, 1500))  # another, with its number
    assert listener.concerns(NEW, link(7, 1450))
