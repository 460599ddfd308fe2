"""Where the cluster's name server is said to be."""

from __future__ import annotations

from typing import Any

from wherry.kube.api.cluster_dns import listening_addresses
from wherry.kube.controllers.cluster_dns import endpoint_slice, endpoints, service


def node(name: str, *cidrs: str) -> dict[str, Any]:
    spec = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)} if cidrs else {}
    return {"metadata": {"name": name}, "spec": spec}


BOTH = [
    node("b", "10.244.1.0/24", "fd00:1::/64"),
    node("a", "10.244.0.0/24", "fd00::/64"),
    node("c"),
]


def test_a_name_server_listens_at_the_first_address_of_each_range() -> None:
    assert listening_addresses(BOTH[0]) == ("10.244.1.1", "fd00:1::1")
    assert listening_addresses({"spec": {"podCIDR": "10.244.7.0/24"}}) == ("10.244.7.1",)
    assert listening_addresses(node("new")) == ()


def test_the_service_has_as_many_addresses_as_the_cluster_families() -> None:
    one = service(["10.96.0.10"])["spec"]
    assert (one["clusterIPs"], "ipFamilyPolicy" in one) == (["10.96.0.10"], False)
    two = service(["fd00::a", "10.96.0.10"])["spec"]
    assert (two["clusterIP"], two["clusterIPs"]) == ("fd00::a", ["fd00::a", "10.96.0.10"])
    assert two["ipFamilyPolicy"] == "PreferDualStack"


def test_each_family_has_a_slice_of_its_own() -> None:
    four, six = endpoint_slice(BOTH), endpoint_slice(BOTH, "IPv6")
    assert four["metadata"]["name"] != six["metadata"]["name"]
    assert (four["addressType"], six["addressType"]) == ("IPv4", "IPv6")
    shown = [(e["addresses"], e["nodeName"]) for e in six["endpoints"]]
    assert shown == [(["fd00::1"], "a"), (["fd00:1::1"], "b")]
    listed = endpoints(BOTH, "IPv6")["subsets"][0]["addresses"]
    assert [entry["ip"] for entry in listed] == ["fd00::1", "fd00:1::1"]
    assert "subsets" not in endpoints([node("c")])
