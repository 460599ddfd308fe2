"""Cases that CoreDNS' plugin ``kubernetes`` is held to, as questions and what is said of them."""

from __future__ import annotations

import pytest
from dnslib import QTYPE, RCODE, DNSRecord
from test_kube_dns_specification import Cluster, cluster

HTTP = {"name": "http", "port": 80, "protocol": "TCP"}
SIX_OF_ONE = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa"
NODATA, NXDOMAIN = "NODATA", "NXDOMAIN"


@pytest.fixture(scope="module")
def world() -> Cluster:
    """Services of each kind, in the namespace shop."""
    it = cluster()

    def service(name: str, *addresses: str) -> None:
        it.service(name, clusterIP=addresses[0], clusterIPs=[*addresses], ports=[HTTP])

    service("one", "10.96.0.1")
    behind = [{"addresses": ["10.244.0.9"]}, {"addresses": ["10.244.0.10"], "hostname": "Named"}]
    behind += [{"addresses": ["10.244.0.11"], "conditions": {"ready": False}}]
    it.endpoints("one-4", "one", *behind, ports=[HTTP])
    it.endpoints("one-6", "one", {"addresses": ["fd00:1::9"], "hostname": "named"}, type="IPv6")
    service("six", "fd00::1")
    service("dual", "10.96.0.3", "fd00::3")
    service("headless", "None")
    here = [{"addresses": [f"10.244.0.{n}"]} for n in (2, 3)]
    here += [{"addresses": [f"10.244.0.{n}"], "hostname": "twin"} for n in (4, 5)]
    it.endpoints("headless-4", "headless", *here, ports=[HTTP])
    there = [{"addresses": [f"fd00:1::{n}"]} for n in (1, 2)]
    it.endpoints("headless-6", "headless", *there, ports=[HTTP], type="IPv6")
    it.service("portless", clusterIP="None", clusterIPs=["None"])
    it.endpoints("portless-4", "portless", {"addresses": ["10.244.0.20"]})
    doors = [{**HTTP, "name": name, "port": port} for name, port in (("a", 1), ("b", 1), ("c", 2))]
    it.service("doors", clusterIP="10.96.0.4", clusterIPs=["10.96.0.4"], ports=doors)
    twice = {"addresses": ["10.244.0.30"]}
    for name in ("doors-1", "doors-2"):  # an endpoint that moves from one slice to another
        it.endpoints(name, "doors", twice, {"addresses": ["192.0.2.30"]}, ports=doors)
    it.service("old", clusterIP="10.96.0.5", clusterIPs=["10.96.0.5"], ports=[{"port": 81}])
    both = {"addresses": ["10.244.0.30"], "hostname": "Zed"}
    it.endpoints("old-1", "old", both, ports=[{"name": "", "port": 8081, "protocol": "TCP"}])
    it.service("unready", clusterIP="None", clusterIPs=["None"], publishNotReadyAddresses=True)
    going = {"ready": False, "serving": True, "terminating": True}
    it.endpoints("unready-1", "unready", {"addresses": ["10.244.0.40"], "conditions": going})
    it.service("outside", type="ExternalName", externalName="www.example.com")
    it.service("alias", type="ExternalName", externalName="one.shop.svc.cluster.local.")
    return it


CASES = {
    # An address, of one family or two.
    ("one.shop.svc", "A"): ["10.96.0.1"],
    ("one.shop.svc", "AAAA"): NODATA,
    ("one.shop.svc", "SOA"): NODATA,
    ("six.shop.svc", "AAAA"): ["fd00::1"],
    ("dual.shop.svc", "A"): ["10.96.0.3"],
    ("dual.shop.svc", "AAAA"): ["fd00::3"],
    # Ports, of which the Service has a name of its own, too.
    ("_http._tcp.one.shop.svc", "SRV"): ["80 one.shop.svc", "+10.96.0.1"],
    ("one.shop.svc", "SRV"): ["80 one.shop.svc", "+10.96.0.1"],
    ("_http._tcp.six.shop.svc", "SRV"): ["80 six.shop.svc", "+fd00::1"],
    ("dual.shop.svc", "SRV"): ["80 dual.shop.svc", "+10.96.0.3", "+fd00::3"],
    ("doors.shop.svc", "SRV"): ["1 doors.shop.svc", "2 doors.shop.svc", "+10.96.0.4"],
    ("old.shop.svc", "SRV"): ["81 old.shop.svc", "+10.96.0.5"],
    ("_http._tcp.one.shop.svc", "A"): ["10.96.0.1"],
    ("_http._tcp.one.shop.svc", "AAAA"): NODATA,
    ("_http._tcp.dual.shop.svc", "AAAA"): ["fd00::3"],
    ("http.tcp.one.shop.svc", "SRV"): ["80 one.shop.svc", "+10.96.0.1"],
    ("_http._tcp.headless.shop.svc", "A"): [f"10.244.0.{n}" for n in (2, 3, 4, 5)],
    ("_http._udp.one.shop.svc", "SRV"): NXDOMAIN,
    ("_other._tcp.one.shop.svc", "SRV"): NXDOMAIN,
    # Endpoints: all of them, and each by its host name or its address.
    ("headless.shop.svc", "A"): [f"10.244.0.{n}" for n in (2, 3, 4, 5)],
    ("headless.shop.svc", "AAAA"): ["fd00:1::1", "fd00:1::2"],
    ("10-244-0-2.headless.shop.svc", "A"): ["10.244.0.2"],
    ("twin.headless.shop.svc", "A"): ["10.244.0.4", "10.244.0.5"],
    ("fd00-1--2.headless.shop.svc", "AAAA"): ["fd00:1::2"],
    ("_http._tcp.headless.shop.svc", "SRV"): [
        *(
            f"80 {host}.headless.shop.svc"
            for host in ("10-244-0-2", "10-244-0-3", "fd00-1--1", "fd00-1--2", "twin")
        ),
        *(f"+10.244.0.{n}" for n in (2, 3, 4, 5)),
        *(f"+fd00:1::{n}" for n in (1, 2)),
    ],
    ("10-244-0-9.one.shop.svc", "A"): ["10.244.0.9"],
    ("named.one.shop.svc", "A"): ["10.244.0.10"],
    ("named.one.shop.svc", "AAAA"): ["fd00:1::9"],
    ("10-244-0-9.one.shop.svc", "AAAA"): NODATA,
    ("10-244-0-9.one.shop.svc", "SRV"): ["80 10-244-0-9.one.shop.svc", "+10.244.0.9"],
    ("10-244-0-30.doors.shop.svc", "A"): ["10.244.0.30"],
    ("10-244-0-30.doors.shop.svc", "SRV"): [
        *(f"{port} 10-244-0-30.doors.shop.svc" for port in (1, 2)),
        "+10.244.0.30",
    ],
    ("zed.old.shop.svc", "SRV"): ["8081 zed.old.shop.svc", "+10.244.0.30"],
    ("10-244-0-30.old.shop.svc", "A"): NXDOMAIN,  # it has a host name
    ("10-244-0-2.headless.shop.svc", "SRV"): ["80 10-244-0-2.headless.shop.svc", "+10.244.0.2"],
    ("10-244-0-20.portless.shop.svc", "SRV"): NODATA,
    ("unready.shop.svc", "A"): NXDOMAIN,  # the slice alone says who is ready
    ("40.0.244.10.in-addr.arpa", "PTR"): NXDOMAIN,
    ("10-244-0-11.one.shop.svc", "A"): NXDOMAIN,  # not ready
    ("10-244-0-12.one.shop.svc", "A"): NXDOMAIN,
    ("10-244-0-9.dual.shop.svc", "A"): NXDOMAIN,
    ("10-244-0-9.one.shop.pod", "A"): NXDOMAIN,
    ("x.10-244-0-9.one.shop.svc", "A"): NXDOMAIN,
    ("portless.shop.svc", "A"): ["10.244.0.20"],
    ("10-244-0-20.portless.shop.svc", "A"): ["10.244.0.20"],
    # Names elsewhere.
    ("outside.shop.svc", "CNAME"): ["www.example.com"],
    ("alias.shop.svc", "A"): ["10.96.0.1", "one.shop.svc"],
    ("endpoint.outside.shop.svc", "CNAME"): NXDOMAIN,
    ("_http._tcp.outside.shop.svc", "SRV"): NODATA,
    # What is not there, and what is there and has nothing.
    ("nobody.shop.svc", "A"): NXDOMAIN,
    ("nobody.shop.svc", "AAAA"): NXDOMAIN,
    ("nobody.nowhere.svc", "A"): NXDOMAIN,
    ("nobody.headless.shop.svc", "A"): NXDOMAIN,
    ("endpoint.nobody.shop.svc", "A"): NXDOMAIN,
    ("nowhere.svc", "NS"): NXDOMAIN,
    ("other", "NS"): NXDOMAIN,
    ("one.shop.other", "A"): NXDOMAIN,
    ("*.shop.svc", "A"): NXDOMAIN,  # there were wildcards before CoreDNS 1.9
    ("*.headless.shop.svc", "A"): NXDOMAIN,
    ("any.headless.shop.svc", "A"): NXDOMAIN,
    ("_http._any.one.shop.svc", "SRV"): NXDOMAIN,
    ("nobody.shop.svc", "ANY"): NXDOMAIN,
    ("one.shop.svc", "ANY"): NODATA,
    ("svc", "A"): NODATA,
    ("svc", "NS"): NODATA,
    ("pod", "A"): NODATA,
    ("shop.svc", "A"): NODATA,
    ("shop.svc", "NS"): NODATA,
    ("shop.pod", "A"): NODATA,
    # Pods by their addresses, whether there are such or not.
    ("10-244-0-1.shop.pod", "A"): ["10.244.0.1"],
    ("10-244-0-1.shop.pod", "AAAA"): NODATA,
    ("fd00--1.shop.pod", "AAAA"): ["fd00::1"],
    ("b.a.10-244-0-1.shop.pod", "A"): ["10.244.0.1"],
    ("c.b.a.10-244-0-1.shop.pod", "A"): NXDOMAIN,
    ("name.shop.pod", "A"): NXDOMAIN,
    ("name.shop.pod", "HINFO"): NXDOMAIN,
    ("10-244-0-1.nowhere.pod", "A"): NXDOMAIN,
    # Addresses, and names that are no addresses.
    ("1.0.96.10.in-addr.arpa", "PTR"): ["one.shop.svc"],
    ("2.0.244.10.in-addr.arpa", "PTR"): ["10-244-0-2.headless.shop.svc"],
    ("5.0.244.10.in-addr.arpa", "PTR"): ["twin.headless.shop.svc"],
    ("9.0.244.10.in-addr.arpa", "PTR"): ["10-244-0-9.one.shop.svc"],
    ("10.0.244.10.in-addr.arpa", "PTR"): ["named.one.shop.svc"],
    ("30.0.244.10.in-addr.arpa", "PTR"): ["10-244-0-30.doors.shop.svc", "zed.old.shop.svc"],
    ("30.2.0.192.in-addr.arpa", "PTR"): ["192-0-2-30.doors.shop.svc"],
    ("20.0.244.10.in-addr.arpa", "PTR"): ["10-244-0-20.portless.shop.svc"],
    ("11.0.244.10.in-addr.arpa", "PTR"): NXDOMAIN,  # not ready
    (SIX_OF_ONE, "PTR"): ["named.one.shop.svc"],
    ("9.0.96.10.in-addr.arpa", "PTR"): NXDOMAIN,
    ("1.0.96.10.in-addr.arpa", "A"): NODATA,
    ("one.shop", "PTR"): NXDOMAIN,
    # The zone.
    ("", "SOA"): ["ns.dns hostmaster"],
    ("", "NS"): ["ns.dns", "+10.96.0.10"],
    ("", "HINFO"): NODATA,
    ("", "ANY"): NODATA,
    ("ns.dns", "A"): ["10.96.0.10"],
    ("ns.dns", "NS"): NODATA,
    ("dns-version", "TXT"): ['"1.1.0"'],
}


@pytest.mark.parametrize(("name", "type"), CASES)
def test_each_question_has_the_answer_of_coredns(world: Cluster, name: str, type: str) -> None:
    whole = name if name.endswith(".arpa") else f"{name}.cluster.local".lstrip(".")
    question = bytes(DNSRecord.question(whole, type).pack())
    reply = DNSRecord.parse(world.answer(question, datagram=False))
    expected = CASES[name, type]
    assert reply.header.aa
    if isinstance(expected, str):
        assert reply.rr == [] and RCODE[reply.header.rcode] == expected.replace(NODATA, "NOERROR")
        # Resolvers keep what is not there only by the word of who is above it.
        [soa] = reply.auth
        assert soa.rtype == QTYPE.SOA and whole.endswith(str(soa.rname).rstrip("."))
        return
    assert reply.header.rcode == RCODE.NOERROR and reply.auth == []
    found = [_short(str(record.rdata)) for record in reply.rr]
    found += [f"+{_short(str(record.rdata))}" for record in reply.ar]
    assert sorted(found) == sorted(expected)


def test_the_first_name_of_an_address_is_its_host_name(world: Cluster) -> None:
    reply = world.ask("30.0.244.10.in-addr.arpa", "PTR")
    assert [str(record.rdata).partition(".")[0] for record in reply.rr] == ["zed", "10-244-0-30"]


def test_weights_and_times_are_those_of_coredns(world: Cluster) -> None:
    """100 is dealt out to pairs of an address and a port, and kubeadm says how long to keep it."""
    for name, weights in {
        "one": [100],
        "dual": [50],
        "_http._tcp.dual": [50],
        "doors": [33, 33],
        "headless": [16] * 5,
        "_http._tcp.headless": [16] * 5,
        "twin.headless": [50],
        "zed.old": [100],
    }.items():
        reply = world.ask(f"{name}.shop.svc.cluster.local", "SRV")
        assert [record.rdata.weight for record in reply.rr] == weights, name
        assert {record.ttl for record in (*reply.rr, *reply.ar)} == {30}
    assert [record.ttl for record in world.ask("dns-version.cluster.local", "TXT").rr] == [28800]
    [soa] = world.ask("nobody.shop.svc.cluster.local").auth
    assert (soa.ttl, soa.rdata.times[1:]) == (30, (7200, 1800, 86400, 30))
    assert soa.rdata.times[0] > 1_700_000_000  # the time of the last change


def test_the_zone_is_served_by_the_service_at_whose_address_it_is_asked() -> None:
    it = cluster()
    it.put(
        "service",
        "kube-dns",
        {
            "metadata": {"namespace": "kube-system"},
            "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"]},
        },
    )
    reply = it.ask("cluster.local", "NS")
    assert [_short(str(record.rdata)) for record in reply.rr] == ["kube-dns.kube-system.svc"]
    assert [str(record.rdata) for record in reply.ar] == ["10.96.0.10"]


def _short(data: str) -> str:
    """Without the domain, the weights that nobody prescribes, and the SOA's numbers."""
    words = [word.removesuffix(".").removesuffix(".cluster.local") for word in data.split()]
    if len(words) == 4 and words[0].isdigit():
        return " ".join(words[2:])
    return " ".join(words[:2])


def test_letters_come_back_as_they_were_sent(world: Cluster) -> None:
    for name, type in (
        ("10-244-0-9.oNe.Shop.SVC.cluster.local", "A"),
        ("NaMeD.oNe.Shop.SVC.cluster.local", "AAAA"),
        ("Http.Tcp.oNe.Shop.SVC.cluster.local", "SRV"),
        ("OnE.sHoP.SvC.cLuStEr.LoCaL", "A"),
        ("_HtTp._TcP.oNe.Shop.sVc.Cluster.local", "SRV"),
        ("Cluster.local", "SOA"),
    ):
        reply = world.ask(name, type)
        assert str(reply.q.qname) == f"{name}."
        assert [str(record.rname) for record in reply.rr] == [f"{name}."]
