"""Cases that CoreDNS' plugin ``kubernetes`` is held to, as questions and what is said of them."""

from __future__ import annotations

import pytest
from dnslib import QTYPE, RCODE, DNSRecord
from test_kube_dns_specification import Cluster, cluster

HTTP = {"name": "http", "port": 80, "protocol": "TCP"}
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
    # What is not there, and what is there and has nothing.
    ("nobody.shop.svc", "A"): NXDOMAIN,
    ("nobody.shop.svc", "AAAA"): NXDOMAIN,
    ("nobody.nowhere.svc", "A"): NXDOMAIN,
    ("nobody.headless.shop.svc", "A"): NXDOMAIN,
    ("endpoint.nobody.shop.svc", "A"): NXDOMAIN,
    ("nowhere.svc", "NS"): NXDOMAIN,
    ("other", "NS"): NXDOMAIN,
    ("one.shop.other", "A"): NXDOMAIN,
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
    ("name.shop.pod", "A"): NXDOMAIN,
    ("name.shop.pod", "HINFO"): NXDOMAIN,
    ("10-244-0-1.nowhere.pod", "A"): NXDOMAIN,
    # Addresses, and names that are no addresses.
    ("1.0.96.10.in-addr.arpa", "PTR"): ["one.shop.svc"],
    ("2.0.244.10.in-addr.arpa", "PTR"): ["10-244-0-2.headless.shop.svc"],
    ("5.0.244.10.in-addr.arpa", "PTR"): ["twin.headless.shop.svc"],
    ("9.0.96.10.in-addr.arpa", "PTR"): NXDOMAIN,
    ("1.0.96.10.in-addr.arpa", "A"): NODATA,
    ("one.shop", "PTR"): NXDOMAIN,
    # The zone.
    ("", "SOA"): ["ns.dns hostmaster"],
    ("", "NS"): ["ns.dns", "+10.96.0.10"],
    ("", "HINFO"): NODATA,
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


def _short(data: str) -> str:
    """Without the domain, the weights that nobody prescribes, and the SOA's numbers."""
    words = [word.removesuffix(".").removesuffix(".cluster.local") for word in data.split()]
    if len(words) == 4 and words[0].isdigit():
        return " ".join(words[2:])
    return " ".join(words[:2])


def test_letters_come_back_as_they_were_sent(world: Cluster) -> None:
    for name, type in (
        ("OnE.sHoP.SvC.cLuStEr.LoCaL", "A"),
        ("_HtTp._TcP.oNe.Shop.sVc.Cluster.local", "SRV"),
        ("Cluster.local", "SOA"),
    ):
        reply = world.ask(name, type)
        assert str(reply.q.qname) == f"{name}."
        assert [str(record.rname) for record in reply.rr] == [f"{name}."]
