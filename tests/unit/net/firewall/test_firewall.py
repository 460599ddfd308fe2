"""Scripts for published ports, and their reservation."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ports import free_port
from wherry.net.firewall.firewall import Firewall, PortTaken, dropping, reserve
from wherry.net.firewall.rules import (
    Element,
    PortBinding,
    Segment,
    adding,
    closing,
    opening,
    read_elements,
    removing,
    tables_script,
)
from wherry.net.nftables.nft import NftError

WEB = PortBinding("tcp", "0.0.0.0", 8080, "10.0.0.2", 80)
LOCAL = PortBinding("udp", "127.0.0.1", 53, "10.0.0.2", 53)
SIX = PortBinding("tcp", "::1", 8080, "fd00::2", 80)
ROUTED = PortBinding("tcp", "", 8080, "10.0.0.2", 80, routed=True)


class Recorder:
    """In place of nftables: keeps the scripts."""

    def __init__(self) -> None:
        self.scripts: list[str] = []
        self.listing: dict[str, Any] = {"nftables": []}
        self.refuse = False

    async def run(self, script: str) -> str:
        if self.refuse:
            raise NftError("refused")
        self.scripts.append(script)
        return ""

    async def run_json(self, commands: object) -> dict[str, Any]:
        return self.listing


def test_a_binding_reads_as_docker_writes_it() -> None:
    assert str(WEB) == "0.0.0.0:8080:10.0.0.2:80/tcp"
    assert WEB.element == ("ip", "published", "tcp . 8080")
    assert LOCAL.element == ("ip", "published-at", "127.0.0.1 . udp . 53")
    assert str(SIX) == "[::1]:8080:[fd00::2]:80/tcp"
    assert SIX.element == ("ip6", "published-at", "::1 . tcp . 8080")
    assert PortBinding("tcp", "::", 1, "fd00::2", 1).on_all_addresses


def test_opening_adds_an_element_and_closing_takes_it() -> None:
    elements: dict[Element, str] = {}
    assert opening("t", elements, WEB).splitlines() == [
        "add element ip t published { tcp . 8080 : 10.0.0.2 . 80 }",
        "add element ip t hairpin { 10.0.0.2 . 10.0.0.2 }",
    ]
    elements[WEB.element] = WEB.target
    assert opening("t", elements, WEB) == ""
    assert closing("t", elements, WEB).splitlines() == [
        "delete element ip t published { tcp . 8080 }",
        "delete element ip t hairpin { 10.0.0.2 . 10.0.0.2 }",
    ]


def test_a_container_with_another_port_can_still_call_itself() -> None:
    elements = {WEB.element: WEB.target, LOCAL.element: LOCAL.target}
    assert "hairpin" not in closing("t", elements, LOCAL)


def test_what_leads_elsewhere_is_replaced_by_opening_and_left_by_closing() -> None:
    elements = {WEB.element: "10.0.0.9 . 80"}
    assert opening("t", elements, WEB).startswith("delete element ip t published { tcp . 8080 }")
    assert closing("t", elements, WEB) == ""
    assert closing("t", {}, WEB) == ""


def test_a_routed_port_is_let_through_untranslated() -> None:
    script = "element ip t opened { 10.0.0.2 . tcp . 80 }"
    assert opening("t", {}, ROUTED) == f"add {script}"
    assert closing("t", {ROUTED.element: ""}, ROUTED) == f"delete {script}"


def test_a_network_is_elements_of_sets() -> None:
    script = adding("t", Segment("w0", ("10.0.0.0/24", "fd00::/64"), ("10.0.0.0/24",)).elements())
    assert 'add element ip t together { "w0" . "w0" }' in script
    assert "add element ip t inside { 10.0.0.0/24 }" in script
    assert "add element ip t masked { 10.0.0.0/24 }" in script
    assert "add element ip6 t inside { fd00::/64 }" in script
    assert "ip6 t masked" not in script and "internal" not in script
    closed = list(Segment("w0", ("10.0.0.0/24",), ("10.0.0.0/24",), False, True).elements())
    assert not any(name in ("together", "masked") for _, name, _ in closed)
    assert ("ip6", "internal", '"w0"') in closed
    # What may not be there is added before it is deleted.
    assert removing("t", [("ip", "bridges", '"w0"')]).splitlines() == [
        'add element ip t bridges { "w0" }',
        'delete element ip t bridges { "w0" }',
    ]


def test_elements_are_read_from_a_listing() -> None:
    listing = {
        "nftables": [
            {"metainfo": {}},
            {
                "map": {
                    "family": "ip",
                    "name": "published",
                    "elem": [[{"concat": ["tcp", 8080]}, {"concat": ["10.0.0.2", 80]}]],
                }
            },
            {"map": {"family": "ip", "name": "published-at"}},
            {"set": {"name": "bridges"}},
            {
                "set": {
                    "family": "ip",
                    "name": "opened",
                    "elem": [{"concat": ["10.0.0.2", "tcp", 80]}],
                }
            },
        ]
    }
    assert read_elements(listing) == {WEB.element: WEB.target, ROUTED.element: ""}


def test_the_tables_carry_what_is_published_and_mask_only_what_leaves() -> None:
    elements = {binding.element: binding.target for binding in (WEB, LOCAL, SIX)}
    segments = [
        Segment("w0", ("10.0.0.0/24", "fd00::/64"), ("10.0.0.0/24",)),
        Segment("w1", ("10.1.0.0/24",), ("10.1.0.0/24",), icc=False, exposed=True),
    ]
    script = tables_script(
        "t", segments, elements, unmasqueraded=["10.2.0.0/16"], bridge_netfilter=True
    )
    four, six = script.split("add table ip6 t\n")
    assert four.startswith("add table ip t\ndelete table ip t\ntable ip t {")
    assert six.startswith("delete table ip6 t\ntable ip6 t {")
    assert "elements = { tcp . 8080 : 10.0.0.2 . 80 };" in four
    assert "elements = { 127.0.0.1 . udp . 53 : 10.0.0.2 . 53 };" in four
    assert "elements = { ::1 . tcp . 8080 : fd00::2 . 80 };" in six
    assert "elements = { 10.0.0.2 . 10.0.0.2 };" in four
    assert four.count("elements = { 10.0.0.0/24, 10.1.0.0/24 };") == 2  # inside and masked
    assert "elements = { 10.2.0.0/16 };" in four
    assert 'elements = { "w0", "w1" };' in four
    assert 'elements = { "w0" . "w0" };' in four
    assert 'elements = { "w0" };' in four  # guarded
    assert "elements = { fd00::/64 };" in six
    assert "ct status dnat masquerade" not in four
    without = tables_script("t", segments, {}, unmasqueraded=[], bridge_netfilter=False)
    assert "ip saddr @inside ct status dnat masquerade" in without


def test_chains_of_others_that_drop_are_found() -> None:
    chain = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward"}
    listing = {"nftables": [{"metainfo": {}}, {"chain": chain | {"policy": "drop"}}]}
    assert dropping(listing) == ["table filter, chain FORWARD"]
    assert dropping({"nftables": [{"chain": chain | {"policy": "accept"}}]}) == []
    assert dropping({"nftables": [{"chain": {"table": "t", "name": "plain"}}]}) == []


def test_no_networks_make_a_table_as_well() -> None:
    assert "elements" not in tables_script("t", [], {}, unmasqueraded=[], bridge_netfilter=True)


async def test_a_port_is_held_while_it_is_published() -> None:
    nft = Recorder()
    firewall = Firewall(nft, "t")  # type: ignore[arg-type]
    port = free_port()
    binding = PortBinding("tcp", "127.0.0.1", port, "10.0.0.2", 80)
    await firewall.publish([binding])
    await firewall.publish([binding])
    assert len(nft.scripts) == 1
    for taken in ("127.0.0.1", "0.0.0.0", ""):
        with pytest.raises(PortTaken, match="port is already allocated"):
            await firewall.publish([PortBinding("tcp", taken, port, "10.0.0.3", 80)])
    with pytest.raises(OSError), socket.create_server(("127.0.0.1", port)):
        pass
    await firewall.publish([PortBinding("udp", "127.0.0.1", port, "10.0.0.2", 80)])
    await firewall.unpublish([binding])
    await firewall.unpublish([binding])
    with socket.create_server(("127.0.0.1", port)):
        pass
    firewall.close()


async def test_a_port_that_nft_refuses_is_given_back() -> None:
    nft = Recorder()
    firewall = Firewall(nft, "t")  # type: ignore[arg-type]
    port = free_port()
    binding = PortBinding("tcp", "127.0.0.1", port, "10.0.0.2", 80)
    nft.refuse = True
    with pytest.raises(NftError):
        await firewall.publish([binding])
    nft.refuse = False
    await firewall.publish([binding])
    firewall.close()


def test_another_programs_port_is_found_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken) as caught:
            reserve(PortBinding("tcp", "127.0.0.1", port, "10.0.0.2", 80))
    assert str(caught.value) == (
        f"failed to bind host port for 127.0.0.1:{port}:10.0.0.2:80/tcp: address already in use"
    )
    with pytest.raises(PortTaken, match="cannot assign requested address"):
        reserve(PortBinding("tcp", "192.0.2.77", port, "10.0.0.2", 80))
