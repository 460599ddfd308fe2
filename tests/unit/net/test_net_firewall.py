"""Scripts for published ports, and their reservation."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from wherry.net.firewall import (
    Element,
    Firewall,
    PortBinding,
    PortTaken,
    closing,
    dropping,
    opening,
    read_elements,
    reserve,
    table_script,
)
from wherry.net.nft import NftError

WEB = PortBinding("tcp", "0.0.0.0", 8080, "10.0.0.2", 80)
LOCAL = PortBinding("udp", "127.0.0.1", 53, "10.0.0.2", 53)


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_binding_reads_as_docker_writes_it() -> None:
    assert str(WEB) == "0.0.0.0:8080:10.0.0.2:80/tcp"
    assert WEB.element == ("published", "tcp . 8080")
    assert LOCAL.element == ("published-at", "127.0.0.1 . udp . 53")


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


def test_elements_are_read_from_a_listing() -> None:
    listing = {
        "nftables": [
            {"metainfo": {}},
            {
                "map": {
                    "name": "published",
                    "elem": [[{"concat": ["tcp", 8080]}, {"concat": ["10.0.0.2", 80]}]],
                }
            },
            {"map": {"name": "published-at"}},
            {"set": {"name": "bridges"}},
        ]
    }
    assert read_elements(listing) == {WEB.element: WEB.target}


def test_the_table_carries_what_is_published_and_masks_only_what_leaves() -> None:
    elements = {WEB.element: WEB.target, LOCAL.element: LOCAL.target}
    networks = {"w0": "10.0.0.0/24", "w1": "10.1.0.0/24"}
    script = table_script(
        "t", networks, elements, unmasqueraded=["10.2.0.0/16"], bridge_netfilter=True
    )
    assert script.startswith("add table ip t\ndelete table ip t\ntable ip t {")
    assert "elements = { tcp . 8080 : 10.0.0.2 . 80 };" in script
    assert "elements = { 127.0.0.1 . udp . 53 : 10.0.0.2 . 53 };" in script
    assert "elements = { 10.0.0.2 . 10.0.0.2 };" in script
    assert "elements = { 10.0.0.0/24, 10.1.0.0/24, 10.2.0.0/16 };" in script
    assert 'iifname "w0" oifname @bridges oifname != "w0" drop' in script
    assert 'oifname "w0" ip saddr' not in script
    without = table_script("t", networks, {}, unmasqueraded=[], bridge_netfilter=False)
    assert 'oifname "w0" ip saddr 10.0.0.0/24 ct status dnat masquerade' in without


def test_chains_of_others_that_drop_are_found() -> None:
    chain = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward"}
    listing = {"nftables": [{"metainfo": {}}, {"chain": chain | {"policy": "drop"}}]}
    assert dropping(listing) == ["table filter, chain FORWARD"]
    assert dropping({"nftables": [{"chain": chain | {"policy": "accept"}}]}) == []
    assert dropping({"nftables": [{"chain": {"table": "t", "name": "plain"}}]}) == []


def test_no_networks_make_a_table_as_well() -> None:
    assert "elements" not in table_script("t", {}, {}, unmasqueraded=[], bridge_netfilter=True)


async def test_a_port_is_held_while_it_is_published() -> None:
    nft = Recorder()
    firewall = Firewall(nft, "t")  # type: ignore[arg-type]
    port = free_port()
    binding = PortBinding("tcp", "127.0.0.1", port, "10.0.0.2", 80)
    await firewall.publish(binding)
    await firewall.publish(binding)
    assert len(nft.scripts) == 1
    for taken in ("127.0.0.1", "0.0.0.0", ""):
        with pytest.raises(PortTaken, match="port is already allocated"):
            await firewall.publish(PortBinding("tcp", taken, port, "10.0.0.3", 80))
    with pytest.raises(OSError), socket.create_server(("127.0.0.1", port)):
        pass
    await firewall.publish(PortBinding("udp", "127.0.0.1", port, "10.0.0.2", 80))
    await firewall.unpublish(binding)
    await firewall.unpublish(binding)
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
        await firewall.publish(binding)
    nft.refuse = False
    await firewall.publish(binding)
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
