"""Resolvers and kernel parameters of pods."""

from __future__ import annotations

from pathlib import Path

import pytest
from pod_pieces import pod

from wherry.engine.cri.types import DNSConfig
from wherry.kube.kubelet import sysctls
from wherry.kube.kubelet.machine import host_dns
from wherry.kube.kubelet.resolver import dns_config

HOST = DNSConfig(["192.0.2.1"], ["host.example"], ["timeout:1"])


def resolver(**spec):
    wanted = pod("web")
    wanted["spec"] |= spec
    return dns_config(wanted, ["10.96.0.10"], "cluster.local", HOST)


def test_the_cluster_comes_first_and_the_hosts_searches_last():
    found, complaints = resolver()
    searches = ["d.svc.cluster.local", "svc.cluster.local", "cluster.local", "host.example"]
    assert found == DNSConfig(["10.96.0.10"], searches, ["ndots:5"])
    assert not complaints
    assert resolver(hostNetwork=True)[0] == DNSConfig()
    assert resolver(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet")[0] == found


def test_what_the_pod_wishes_is_added_to_the_hosts():
    own = {"searches": ["a.example"], "options": [{"name": "timeout", "value": "9"}]}
    found, _ = resolver(dnsPolicy="Default", dnsConfig=own)
    assert found == DNSConfig(["192.0.2.1"], ["host.example", "a.example"], ["timeout:9"])
    assert resolver(dnsPolicy="Default")[0] == DNSConfig()


def test_a_file_that_the_node_is_told_of_stands_for_the_machine_s():
    wanted = pod("web")
    wanted["spec"] |= {"dnsPolicy": "Default"}
    known = (wanted, ["10.96.0.10"], "cluster.local", HOST)
    assert dns_config(*known, "/run/resolv.conf")[0] == HOST
    assert dns_config(*known, "")[0] == DNSConfig(["127.0.0.1"], ["."], [])


def test_the_host_s_file_is_read_as_it_is_now(tmp_path: Path):
    file = tmp_path / "resolv.conf"
    assert host_dns("") == host_dns(str(file)) == DNSConfig((), [], ())
    file.write_text("nameserver 192.0.2.1\nsearch old.example\nsearch a.example. .\n")
    assert host_dns(str(file)) == DNSConfig(("192.0.2.1",), ["a.example"], ())
    file.write_text("nameserver 192.0.2.2\n")
    assert host_dns(str(file)) == DNSConfig(("192.0.2.2",), [], ())


def test_the_root_is_searched_where_the_pod_says_so():
    assert resolver(dnsConfig={"searches": ["."]})[0].searches[-1] == "."
    found, _ = resolver(
        dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.1"] * 2, "searches": ["."]}
    )
    assert found == DNSConfig(["192.0.2.1"], ["."], [])


def test_a_name_too_long_to_be_searched_is_left_out_and_told():
    wanted = pod("web")
    long = ".".join(["x" * 63] * 4)
    host = DNSConfig(["192.0.2.1"], [long, "a.example"])
    found, [complaint] = dns_config(wanted, ["10.96.0.10"], "cluster.local", host)
    assert long not in found.searches and found.searches[-1] == "a.example"
    assert "Search Line limits were exceeded" in complaint


def test_more_than_the_library_takes_is_left_out_and_told():
    own = {"nameservers": [f"192.0.2.{n}" for n in range(5)], "searches": ["x" * 63 + ".y"] * 1}
    found, complaints = resolver(dnsPolicy="None", dnsConfig=own)
    assert list(found.servers) == ["192.0.2.0", "192.0.2.1", "192.0.2.2"]
    assert "Nameserver limits were exceeded" in complaints[0]
    many = {"nameservers": ["192.0.2.1"], "searches": [f"s{n}.example" for n in range(40)]}
    found, complaints = resolver(dnsPolicy="None", dnsConfig=many)
    assert len(found.searches) == 32
    assert "Search Line limits were exceeded" in complaints[0]


@pytest.mark.parametrize(
    "name, spec, allowed, taken",
    [
        ("net.ipv4.tcp_syncookies", {}, (), True),
        ("net/ipv4/tcp_syncookies", {}, (), True),
        ("net.core.somaxconn", {}, (), False),
        ("net.core.somaxconn", {}, ("net.core.*",), True),
        ("kernel.msgmax", {}, ("kernel.msg*",), True),
        ("kernel.msgmax", {"hostIPC": True}, ("kernel.msg*",), False),
        ("net.ipv4.tcp_syncookies", {"hostNetwork": True}, (), False),
    ],
)
def test_kernel_parameters_that_a_node_takes(name, spec, allowed, taken):
    wanted = pod("web")
    wanted["spec"] |= {"securityContext": {"sysctls": [{"name": name, "value": "1"}]}, **spec}
    fault = sysctls.fault(wanted, allowed)
    assert (fault == "") is taken
    assert taken or fault.startswith("forbidden sysctl: ")
