from __future__ import annotations

from pathlib import Path

import pytest

from wherry.kube.proxy import ranges
from wherry.kube.proxy.ranges import Ways, clashes, further

TOLD = ("10.96.0.0/16",)


def named(name: str, *cidrs: str) -> dict[str, object]:
    return {"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}}


def test_further_ranges_are_those_of_service_cidrs_of_the_nodes_families() -> None:
    present = [
        named("kubernetes", "10.96.0.0/16"),
        named("b", "10.98.0.0/24", "fd00::/112"),
        named("a", "10.97.0.0/24"),
        named("again", "10.98.0.0/24"),
    ]
    found = further(TOLD, present)
    assert list(found) == ["10.97.0.0/24", "10.98.0.0/24"]
    assert found["10.98.0.0/24"] == present[3]
    both = (*TOLD, "fd01::/112")
    assert "fd00::/112" in further(both, present)


def node(name: str, address: str, *pods: str) -> dict[str, object]:
    addresses = [
        {"type": "Hostname", "address": name},
        {"type": "InternalIP", "address": address},
    ]
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": pods[0], "podCIDRs": list(pods)} if pods else {},
        "status": {"addresses": addresses},
    }


NODES = [node("b", "198.51.100.7", "10.244.1.0/24", "fd01:0:0:1::/64"), node("a", "192.0.2.1")]


@pytest.mark.parametrize(
    ("cidr", "what"),
    [
        ("10.97.0.0/24", ""),
        ("10.244.1.64/28", "10.244.1.0/24, the pods of node b"),
        ("fd01::/48", "fd01:0:0:1::/64, the pods of node b"),
        ("10.244.9.0/24", "10.244.0.0/16, the pods of the cluster"),
        ("198.51.0.0/16", "198.51.100.7, an address of node b"),
        ("0.0.0.0/0", "192.0.2.1, an address of node a"),
        ("192.0.2.64/28", "192.0.2.0/24, which this node reaches otherwise"),
        ("2001:db8::/112", ""),
    ],
)
def test_a_range_in_which_there_is_something_is_found_out(cidr: str, what: str) -> None:
    found = clashes([cidr], ["10.244.0.0/16"], NODES, ["192.0.2.0/24", "203.0.113.0/24"])
    assert found == ({cidr: what} if what else {})


class Kernel:
    """The routes there are; ``note`` is what the file said when each was taken."""

    def __init__(self, note: Path) -> None:
        self.blocked: set[str] = set()
        self.occupied = ["192.0.2.0/24", "192.0.2.1/32"]
        self.led: dict[str, str] = {}
        self._note = note

    def block(self, cidr: str) -> None:
        assert cidr in TOLD or cidr in self._note.read_text().split()
        self.blocked.add(cidr)

    def add(self, cidr: str, source: str) -> None:
        assert cidr in self.blocked
        self.led[cidr] = source

    def remove(self, cidr: str) -> None:
        self.led.pop(cidr, None)

    def unblock(self, cidr: str) -> None:
        self.blocked.discard(cidr)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(tmp_path / "noted")
    monkeypatch.setattr(ranges.routes, "block", kernel.block)
    monkeypatch.setattr(ranges.routes, "unblock", kernel.unblock)
    monkeypatch.setattr(ranges.routes, "blocked", lambda: sorted(kernel.blocked))
    monkeypatch.setattr(ranges.routes, "occupied", lambda: kernel.occupied)
    monkeypatch.setattr(ranges.local_routing, "add", kernel.add)
    monkeypatch.setattr(ranges.local_routing, "remove", kernel.remove)
    return kernel


def test_routes_come_and_go_and_are_noted_before_they_are_taken(
    kernel: Kernel, tmp_path: Path
) -> None:
    ways = Ways(TOLD, lambda _: "192.0.2.1", tmp_path / "noted")
    assert ways.open() == TOLD
    ways.use((*TOLD, "10.97.0.0/24", "10.98.0.0/24"))
    assert kernel.led == dict.fromkeys((*TOLD, "10.97.0.0/24", "10.98.0.0/24"), "192.0.2.1")
    ways.use((*TOLD, "10.98.0.0/24"))
    assert kernel.blocked == kernel.led.keys() == {*TOLD, "10.98.0.0/24"}
    after_a_kill = Ways(TOLD, lambda _: "192.0.2.1", tmp_path / "noted")
    assert after_a_kill.open() == (*TOLD, "10.98.0.0/24")
    after_a_kill.remove()
    assert not kernel.led and not kernel.blocked
    assert not (tmp_path / "noted").exists()


def test_a_stopped_node_leads_nobody_and_lets_nothing_out(kernel: Kernel, tmp_path: Path) -> None:
    ways = Ways(TOLD, lambda _: "192.0.2.1", tmp_path / "noted")
    ways.use((*TOLD, "10.98.0.0/24"))
    ways.close()
    assert not kernel.led and kernel.blocked == {*TOLD, "10.98.0.0/24"}
    assert ways.open() == (*TOLD, "10.98.0.0/24")
    assert kernel.led.keys() == kernel.blocked


def test_a_range_that_a_network_has_come_into_is_not_taken_again(
    kernel: Kernel, tmp_path: Path
) -> None:
    ways = Ways(TOLD, lambda _: "192.0.2.1", tmp_path / "noted", ["10.244.0.0/16"])
    ways.use((*TOLD, "10.98.0.0/24", "10.99.0.0/24"))
    assert ways.clashes(["10.98.0.0/24"], ()) == {}  # its own routes are in nobody's way
    kernel.blocked.add("172.30.0.0/16")
    assert set(ways.clashes(["172.30.1.0/24", "10.244.1.0/24", "10.1.0.0/24"], ())) == {
        "172.30.1.0/24",
        "10.244.1.0/24",
    }
    kernel.occupied.append("10.98.0.0/16")
    after_a_kill = Ways(TOLD, lambda _: "192.0.2.1", tmp_path / "noted")
    assert after_a_kill.open() == (*TOLD, "10.99.0.0/24")
    assert kernel.led.keys() == {*TOLD, "10.99.0.0/24"}
    assert "10.98.0.0/24" not in kernel.blocked
