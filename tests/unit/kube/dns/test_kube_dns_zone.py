"""What the specification says of each kind of Service (Kubernetes DNS specification 1.1)."""

from __future__ import annotations

from typing import Any

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.dns.answers import answer
from wherry.kube.dns.names import Described, Endpoints, Entry, describe
from wherry.kube.dns.zone import Zone
from wherry.wire.dns import packed, parse

DOMAIN = "cluster.local"


def service(name: str = "web", **spec: Any) -> dict:
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}


CLUSTER_IP = service(
    clusterIP="10.96.0.7",
    clusterIPs=["10.96.0.7", "fd00::7"],
    ports=[{"name": "http", "protocol": "TCP", "port": 80}],
)
HEADLESS = service("db", clusterIP="None", clusterIPs=["None"])
SLICE = {
    "addressType": "IPv4",
    "ports": [{"name": "sql", "protocol": "TCP", "port": 3306}],
    "endpoints": [
        {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": True}},
        {"addresses": ["10.244.0.6"], "conditions": {}},
        {"addresses": ["10.244.0.7"], "conditions": {"ready": False}},
    ],
}
EXTERNAL = service("out", type="ExternalName", externalName="Example.COM.")


@pytest.fixture
def zone() -> Zone:
    zone = Zone(DOMAIN, ["10.96.0.10"], ["10.96.0.0/16", "10.244.0.0/16"])
    zone.put_namespace("shop")
    zone.put("shop/web", describe(CLUSTER_IP, [], DOMAIN))
    zone.put("shop/db", describe(HEADLESS, [SLICE], DOMAIN))
    zone.put("shop/out", describe(EXTERNAL, [], DOMAIN))
    return zone


def ask(zone: Zone, name: str, type: str = "A") -> DNSRecord:
    question = parse(bytes(DNSRecord.question(name, type).pack()))
    assert zone.covers(question.name)
    return DNSRecord.parse(packed(answer(question, zone), question, datagram=True))


def said(zone: Zone, name: str, type: str = "A") -> list[str]:
    reply = ask(zone, name, type)
    assert reply.header.aa and reply.header.rcode == RCODE.NOERROR
    return sorted(str(record.rdata) for record in reply.rr)


def code(zone: Zone, name: str, type: str = "A") -> str:
    reply = ask(zone, name, type)
    assert reply.rr == [] and reply.auth[0].rtype == QTYPE.SOA
    return str(RCODE[reply.header.rcode])


def test_a_service_with_an_address(zone: Zone):
    assert said(zone, "web.shop.svc.cluster.local") == ["10.96.0.7"]
    assert said(zone, "WEB.Shop.svc.cluster.local", "AAAA") == ["fd00::7"]
    name = "_http._tcp.web.shop.svc.cluster.local"
    assert said(zone, name, "SRV") == ["0 50 80 web.shop.svc.cluster.local."]
    assert said(zone, "7.0.96.10.in-addr.arpa", "PTR") == ["web.shop.svc.cluster.local."]
    six = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa"
    assert said(zone, six, "PTR") == ["web.shop.svc.cluster.local."]


def test_a_headless_service_has_the_names_of_its_ready_endpoints(zone: Zone):
    assert said(zone, "db.shop.svc.cluster.local") == ["10.244.0.5", "10.244.0.6"]
    assert said(zone, "db-0.db.shop.svc.cluster.local") == ["10.244.0.5"]
    assert said(zone, "10-244-0-6.db.shop.svc.cluster.local") == ["10.244.0.6"]
    assert said(zone, "_sql._tcp.db.shop.svc.cluster.local", "SRV") == [
        "0 50 3306 10-244-0-6.db.shop.svc.cluster.local.",
        "0 50 3306 db-0.db.shop.svc.cluster.local.",
    ]
    reply = ask(zone, "_sql._tcp.db.shop.svc.cluster.local", "SRV")
    assert sorted(str(r.rdata) for r in reply.ar) == ["10.244.0.5", "10.244.0.6"]
    assert said(zone, "5.0.244.10.in-addr.arpa", "PTR") == ["db-0.db.shop.svc.cluster.local."]


def test_an_external_name_is_an_alias(zone: Zone):
    reply = ask(zone, "out.shop.svc.cluster.local")
    assert [(QTYPE[r.rtype], str(r.rdata)) for r in reply.rr] == [("CNAME", "example.com.")]
    inside = service("in", type="ExternalName", externalName="web.shop.svc.cluster.local")
    zone.put("shop/in", describe(inside, [], DOMAIN))
    assert said(zone, "in.shop.svc.cluster.local") == ["10.96.0.7", "web.shop.svc.cluster.local."]


def test_names_that_are_there_and_have_nothing(zone: Zone):
    for name in ("svc.cluster.local", "shop.svc.cluster.local", "_tcp.web.shop.svc.cluster.local"):
        assert code(zone, name) == "NOERROR"
    assert code(zone, "web.shop.svc.cluster.local", "TXT") == "NOERROR"


def test_names_that_are_not_there(zone: Zone):
    for name in (
        "nobody.shop.svc.cluster.local",
        "other.svc.cluster.local",
        "web.cluster.local",
        "db-9.db.shop.svc.cluster.local",
        "9.0.96.10.in-addr.arpa",
    ):
        assert code(zone, name) == "NXDOMAIN"


def test_pods_have_names_by_their_addresses(zone: Zone):
    assert said(zone, "10-244-0-9.shop.pod.cluster.local") == ["10.244.0.9"]
    assert code(zone, "10-244-0-9.nowhere.pod.cluster.local") == "NXDOMAIN"
    assert code(zone, "hello.shop.pod.cluster.local") == "NXDOMAIN"


def test_what_the_zone_says_of_itself(zone: Zone):
    assert said(zone, "dns-version.cluster.local", "TXT") == ['"1.1.0"']
    assert said(zone, "cluster.local", "NS") == ["ns.dns.cluster.local."]
    assert said(zone, "ns.dns.cluster.local") == ["10.96.0.10"]


def test_what_is_gone_is_forgotten(zone: Zone):
    assert zone.drop("shop/web") and not zone.drop("shop/web")
    assert code(zone, "web.shop.svc.cluster.local") == "NXDOMAIN"
    assert code(zone, "7.0.96.10.in-addr.arpa", "PTR") == "NXDOMAIN"
    assert not zone.covers("7.0.0.8.in-addr.arpa") and not zone.covers("example.com")


KEYS = st.sampled_from(["x/a", "x/b", "x/c"])
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"])
ENDPOINTS = st.dictionaries(st.sampled_from(["h", "10-0-0-1"]), st.lists(ADDRESSES, min_size=1))
STEPS = st.lists(st.tuples(KEYS, st.none() | st.tuples(ADDRESSES, ENDPOINTS)), max_size=20)


@given(STEPS)
def test_a_history_leaves_what_its_last_states_leave(steps: list):
    walked, last = Zone(DOMAIN, ["10.96.0.10"]), {}
    for key, what in steps:
        if what is None:
            walked.drop(key)
            last.pop(key, None)
        else:
            address, found = what
            groups = (Endpoints((80,), {label: tuple(found[label]) for label in found}),)
            name = key.replace("/", ".")
            described = Described({name: Entry((address,))}, {address: name}, groups)
            walked.put(key, described)
            last[key] = described
    fresh = Zone(DOMAIN, ["10.96.0.10"])
    for key, described in last.items():
        fresh.put(key, described)
    assert (walked._entries, walked._pointers) == (fresh._entries, fresh._pointers)
    assert walked._behind == fresh._behind


def test_many_addresses_do_not_fit_into_a_datagram(zone: Zone):
    endpoints = [{"addresses": [f"10.244.{n // 250}.{n % 250}"]} for n in range(300)]
    many = {**SLICE, "endpoints": endpoints}
    zone.put("shop/db", describe(HEADLESS, [many], DOMAIN))
    reply = ask(zone, "db.shop.svc.cluster.local")
    assert reply.header.tc and 0 < len(reply.rr) < 40 and len(reply.pack()) <= 512
    question = parse(bytes(DNSRecord.question("db.shop.svc.cluster.local").pack()))
    whole = packed(answer(question, zone), question, datagram=False)
    assert len(DNSRecord.parse(whole).rr) == 300


def test_a_headless_service_without_ready_endpoints_has_no_name(zone: Zone):
    nobody = {**SLICE, "endpoints": [{"addresses": ["10.244.0.7"], "conditions": {"ready": False}}]}
    zone.put("shop/db", describe(HEADLESS, [nobody], DOMAIN))
    for name in ("db.shop", "_sql._tcp.db.shop", "db-0.db.shop"):
        assert code(zone, f"{name}.svc.cluster.local") == "NXDOMAIN"


def test_ports_without_a_name_have_no_srv_record(zone: Zone):
    plain = service("plain", clusterIP="10.96.0.8", ports=[{"protocol": "UDP", "port": 53}])
    zone.put("shop/plain", describe(plain, [], DOMAIN))
    assert code(zone, "_._udp.plain.shop.svc.cluster.local", "SRV") == "NXDOMAIN"
    assert said(zone, "plain.shop.svc.cluster.local") == ["10.96.0.8"]


def test_two_families_have_two_types(zone: Zone):
    six = {**SLICE, "addressType": "IPv6", "endpoints": [{"addresses": ["fd00::5"]}]}
    zone.put("shop/db", describe(HEADLESS, [SLICE, six], DOMAIN))
    assert said(zone, "db.shop.svc.cluster.local", "AAAA") == ["fd00::5"]
    assert said(zone, "fd00--5.db.shop.svc.cluster.local", "AAAA") == ["fd00::5"]
    assert said(zone, "db.shop.svc.cluster.local") == ["10.244.0.5", "10.244.0.6"]


def test_the_zone_has_an_authority(zone: Zone):
    [soa] = said(zone, "cluster.local", "SOA")
    assert soa.startswith("ns.dns.cluster.local. hostmaster.cluster.local. ")
    assert code(zone, "web.shop.svc.cluster.local", "ANY") == "NOERROR"


def question(name: str, *extra: EDNS0, type: str = "A") -> bytes:
    asked = DNSRecord.question(name, type)
    for option in extra:
        asked.add_ar(option)
    return bytes(asked.pack())


def test_whoever_takes_more_than_512_bytes_gets_more(zone: Zone):
    endpoints = [{"addresses": [f"10.244.1.{n}"]} for n in range(60)]
    zone.put("shop/db", describe(HEADLESS, [{**SLICE, "endpoints": endpoints}], DOMAIN))
    for size, whole in ((4096, True), (1100, True), (600, False), (100, False)):
        asked = parse(question("db.shop.svc.cluster.local", EDNS0(udp_len=size)))
        data = packed(answer(asked, zone), asked, datagram=True)
        reply = DNSRecord.parse(data)
        assert len(data) <= max(512, size)
        assert (len(reply.rr) == 60) == whole and reply.header.tc == (not whole)
        assert [r.rtype for r in reply.ar] == [QTYPE.OPT] and reply.ar[0].rclass == 1232


def test_what_is_merely_helpful_is_cut_without_a_word(zone: Zone):
    endpoints = [{"addresses": [f"10.244.1.{n}"]} for n in range(7)]
    zone.put("shop/db", describe(HEADLESS, [{**SLICE, "endpoints": endpoints}], DOMAIN))
    reply = ask(zone, "_sql._tcp.db.shop.svc.cluster.local", "SRV")
    assert len(reply.rr) == 7 and len(reply.ar) < 7 and not reply.header.tc
