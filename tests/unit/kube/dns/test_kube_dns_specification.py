"""The Kubernetes DNS specification 1.1, record by record; tests are named after its sections."""

from __future__ import annotations

import asyncio
from typing import Any

from dnslib import EDNS0, QTYPE, RCODE, DNSRecord, EDNSOption
from fake_api import FakeAPI
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wherry.kube.api.resources import ENDPOINT_SLICES, NAMESPACES, SERVICES
from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.dns.following import Follower
from wherry.kube.dns.server import NameServer

Object = dict[str, Any]
SIX = "{}.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa"


class Cluster:
    """What there is, and what is answered of it. Nothing is asked of a server."""

    def __init__(self) -> None:
        client = Client(FakeAPI())
        self.informers = SharedInformers(client)
        self.follower = Follower(
            client,
            self.informers,
            domain="cluster.local",
            node_name="n",
            service_addresses=["10.96.0.10"],
            ranges=["10.96.0.0/16", "10.244.0.0/16", "fd00::/64"],
            resolv_conf="",
        )
        self.server = NameServer()
        self.follower.attach(self.server.take)
        self.objects: dict[tuple[str, str], Object] = {}
        self.versions = 0

    def put(self, kind: str, name: str, object: Object | None) -> None:
        """An object comes, changes, or goes."""
        resource = {"service": SERVICES, "slice": ENDPOINT_SLICES, "namespace": NAMESPACES}[kind]
        informer = self.informers.informer(resource)
        old = self.objects.pop((kind, name), None)
        if object is None:
            if old is not None:
                informer._drop(old)
            return
        self.versions += 1
        metadata = {"name": name, "resourceVersion": str(self.versions), "uid": name}
        if kind != "namespace":
            metadata["namespace"] = "shop"
        object = {**object, "metadata": {**metadata, **object.get("metadata", {})}}
        self.objects[kind, name] = object
        informer._put(object)

    def service(self, name: str, **spec: Any) -> None:
        self.put("service", name, {"spec": spec})

    def endpoints(self, name: str, of: str, *found: Object, ports: Any = (), type="IPv4") -> None:
        labels = {"kubernetes.io/service-name": of}
        body = {"addressType": type, "endpoints": [*found], "ports": [*ports]}
        self.put("slice", name, {"metadata": {"labels": labels}, **body})

    def ask(self, name: str, type: str = "A") -> DNSRecord:
        question = bytes(DNSRecord.question(name, type).pack())
        return DNSRecord.parse(self.answer(question))

    def answer(self, question: bytes, *, datagram: bool = True) -> bytes:
        """What is said, at once or after a while."""
        said = self.server.answer(question, "192.0.2.1", datagram)
        if isinstance(said, bytes):
            return said

        async def wait() -> bytes:
            return await said

        return asyncio.run(wait())

    def said(self, name: str, type: str = "A") -> list[str]:
        reply = self.ask(name, type)
        assert reply.header.aa and reply.header.rcode == RCODE.NOERROR
        assert all(record.ttl > 0 for record in reply.rr)
        return sorted(str(record.rdata) for record in reply.rr)


def cluster() -> Cluster:
    async def make() -> Cluster:
        return Cluster()

    made = asyncio.run(make())
    made.put("namespace", "shop", {})
    return made


def test_2_1_names_are_compared_without_regard_to_case() -> None:
    it = cluster()
    it.service("web", clusterIP="10.96.0.7", clusterIPs=["10.96.0.7"])
    assert it.said("WEB.Shop.SVC.Cluster.Local") == ["10.96.0.7"]


def test_2_2_the_version_of_the_schema() -> None:
    assert cluster().said("dns-version.cluster.local", "TXT") == ['"1.1.0"']


def test_2_3_a_service_with_a_cluster_ip() -> None:
    it = cluster()
    ports = [
        {"name": "https", "port": 443, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"port": 8080, "protocol": "TCP"},
    ]
    addresses = ["10.96.0.7", "fd00::7"]
    it.service("web", clusterIP="10.96.0.7", clusterIPs=addresses, ports=ports)
    web = "web.shop.svc.cluster.local"
    assert it.said(web, "A") == ["10.96.0.7"]
    assert it.said(web, "AAAA") == ["fd00::7"]
    assert it.said(f"_https._tcp.{web}", "SRV") == [f"0 50 443 {web}."]
    assert it.said(f"_dns._udp.{web}", "SRV") == [f"0 50 53 {web}."]
    assert {str(r.rdata) for r in it.ask(f"_dns._udp.{web}", "SRV").ar} == set(addresses)
    assert it.ask(f"_https._udp.{web}", "SRV").header.rcode == RCODE.NXDOMAIN
    assert it.said("7.0.96.10.in-addr.arpa", "PTR") == [f"{web}."]
    assert it.said(SIX.format(7), "PTR") == [f"{web}."]


def test_2_4_a_headless_service() -> None:
    it = cluster()
    db = "db.shop.svc.cluster.local"
    it.service("db", clusterIP="None", clusterIPs=["None"])
    assert it.ask(db).header.rcode == RCODE.NXDOMAIN  # no endpoint is ready
    ports = [
        {"name": "sql", "port": 3306, "protocol": "TCP"},
        {"name": "web", "port": 80, "protocol": "TCP"},
        {"name": "", "port": 9, "protocol": "TCP"},
    ]
    it.endpoints(
        "db-4",
        "db",
        {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": True}},
        {"addresses": ["10.244.0.6"], "hostname": "db-0", "conditions": {"ready": True}},
        {"addresses": ["10.244.0.7"], "conditions": {}},
        {"addresses": ["10.244.0.8"], "hostname": "db-9", "conditions": {"ready": False}},
        ports=ports,
    )
    it.endpoints("db-6", "db", {"addresses": ["fd00::5"], "hostname": "db-0"}, type="IPv6")
    assert it.said(db) == ["10.244.0.5", "10.244.0.6", "10.244.0.7"]
    assert it.said(db, "AAAA") == ["fd00::5"]
    assert it.said(f"db-0.{db}") == ["10.244.0.5", "10.244.0.6"]
    assert it.said(f"db-0.{db}", "AAAA") == ["fd00::5"]
    assert it.ask(f"db-9.{db}").header.rcode == RCODE.NXDOMAIN
    [other] = [n for n in it.said("7.0.244.10.in-addr.arpa", "PTR") if n.endswith(f".{db}.")]
    assert it.said(other) == ["10.244.0.7"]
    # As many as there are names of endpoints, for each port that has a name.
    for port, number in (("sql", 3306), ("web", 80)):
        found = it.said(f"_{port}._tcp.{db}", "SRV")
        assert sorted(record.split()[2:] for record in found) == sorted(
            [[str(number), other], [str(number), f"db-0.{db}."]]
        )
    for address in ("5", "6"):
        assert it.said(f"{address}.0.244.10.in-addr.arpa", "PTR") == [f"db-0.{db}."]
    assert it.said(SIX.format(5), "PTR") == [f"db-0.{db}."]
    # Whoever publishes addresses that are not ready has the slice call them ready.
    it.endpoints("db-4", "db", {"addresses": ["10.244.0.8"], "hostname": "db-9"})
    assert it.said(db) == it.said(f"db-9.{db}") == ["10.244.0.8"]


def test_2_5_an_external_name() -> None:
    it = cluster()
    it.service("out", type="ExternalName", externalName="www.example.com")
    reply = it.ask("out.shop.svc.cluster.local", "CNAME")
    assert [(QTYPE[r.rtype], str(r.rdata)) for r in reply.rr] == [("CNAME", "www.example.com.")]
    # One that leads to a name of the cluster: what holds of that is said, and may be kept.
    it.service("web", clusterIP="10.96.0.7", clusterIPs=["10.96.0.7"])
    it.service("in", type="ExternalName", externalName="web.shop.svc.cluster.local.")
    it.service("nowhere", type="ExternalName", externalName="gone.shop.svc.cluster.local")
    assert it.said("in.shop.svc.cluster.local") == ["10.96.0.7", "web.shop.svc.cluster.local."]
    for name, type, code in (("in", "AAAA", RCODE.NOERROR), ("nowhere", "A", RCODE.NXDOMAIN)):
        reply = it.ask(f"{name}.shop.svc.cluster.local", type)
        assert [QTYPE[r.rtype] for r in (*reply.rr, *reply.auth)] == ["CNAME", "SOA"]
        assert reply.header.rcode == code
    # No question can be about a label of more than 63 letters, though the API lets it pass.
    it.service("long", type="ExternalName", externalName=f"{'a' * 64}.example")
    assert it.ask("long.shop.svc.cluster.local").header.rcode == RCODE.NXDOMAIN


def test_2_5_addresses_are_no_external_names() -> None:
    it = cluster()
    it.service("out", type="ExternalName", externalName="192.0.2.1")
    assert it.ask("out.shop.svc.cluster.local").header.rcode == RCODE.NXDOMAIN


def test_2_6_names_of_pods_by_their_addresses() -> None:
    it = cluster()
    assert it.said("10-244-0-9.shop.pod.cluster.local") == ["10.244.0.9"]
    assert it.said("fd00--9.shop.pod.cluster.local", "AAAA") == ["fd00::9"]


def test_answers_repeat_what_was_asked_whatever_came_with_it() -> None:
    """Questions that differ in case, size, flags or options have their own answers."""
    it = cluster()
    it.service("web", clusterIP="10.96.0.7", clusterIPs=["10.96.0.7"])
    for name in ("web.shop.svc.cluster.local", "WEB.shop.svc.cluster.local"):
        for extended in (False, True):
            for signed in (False, True) if extended else (False,):
                for cookie in (b"1" * 8, b"2" * 8) if extended else (b"",):
                    asked = DNSRecord.question(name)
                    asked.header.rd = int(not signed)
                    if extended:
                        options = [EDNSOption(10, cookie)]
                        flags = "do" if signed else ""
                        asked.add_ar(EDNS0(udp_len=700, flags=flags, opts=options))
                    for _ in range(2):
                        reply = DNSRecord.parse(it.answer(bytes(asked.pack())))
                        assert (reply.header.id, reply.header.rd) == (
                            asked.header.id,
                            asked.header.rd,
                        )
                        assert str(reply.q.qname) == f"{name}."
                        assert [str(r.rdata) for r in reply.rr] == ["10.96.0.7"]
                        assert [r.ttl & 0x8000 for r in reply.ar] == (
                            [0x8000 * signed] if extended else []
                        )


LABELS = st.one_of(
    st.binary(min_size=1, max_size=63),
    st.sampled_from((b"fe80--1%eth0", b"0x", b"_0", b"10-1-2-3", b"--", b"*", b"1", b"web")),
)
ENDS = (
    "shop.svc.cluster.local",
    "shop.pod.cluster.local",
    "cluster.local",
    "0.96.10.in-addr.arpa",
    SIX.partition(".")[2],
    "",
)


@given(
    st.lists(LABELS, max_size=2),
    st.sampled_from(ENDS),
    st.sampled_from((1, 12, 28, 33, 255)) | st.integers(0, 65535),
    st.binary(max_size=9),
)
@example([b"fe80--1%eth0"], "shop.pod.cluster.local", 28, b"")
def test_any_question_of_the_cluster_is_answered(
    labels: list[bytes], end: str, type: int, more: bytes
) -> None:
    it = cluster()
    it.service("web", clusterIP="10.96.0.7", clusterIPs=["10.96.0.7"])
    labels += [label.encode() for label in end.split(".") if label]
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    head = b"\0\1\0\0\0\1" + bytes(5) + bytes([bool(more)])
    assert it.answer(head + name + type.to_bytes(2, "big") + b"\0\1" + more)


def test_what_fits_no_datagram_is_whole_over_a_connection() -> None:
    it = cluster()
    it.service("db", clusterIP="None", clusterIPs=["None"])
    found = [{"addresses": [f"10.244.{n // 250}.{n % 250}"]} for n in range(1000)]
    it.endpoints("db-1", "db", *found, ports=[{"name": "sql", "port": 1, "protocol": "TCP"}])
    name = "db.shop.svc.cluster.local"
    for type, asked in (("A", name), ("SRV", f"_sql._tcp.{name}")):
        reply = it.ask(asked, type)
        assert reply.header.tc and 0 < len(reply.rr) < 1000
        question = bytes(DNSRecord.question(asked, type).pack())
        reply = DNSRecord.parse(it.answer(question, datagram=False))
        assert len({str(r.rdata) for r in reply.rr}) == 1000 and not reply.header.tc
        assert type == "A" or {str(r.rdata).split()[1] for r in reply.rr} == {"1"}


# -- all of it, changing

NAMES = st.sampled_from(["a", "b", "c"])
SPECS = st.sampled_from(
    [
        {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}]},
        {
            "clusterIP": "10.96.0.8",
            "clusterIPs": ["10.96.0.8", "fd00::8"],
            "ports": [{"name": "http", "port": 80}],
        },
        {"clusterIP": "None", "clusterIPs": ["None"]},
        {"type": "ExternalName", "externalName": "a.shop.svc.cluster.local"},
        {"type": "ExternalName", "externalName": "example.com"},
    ]
)
ADDRESSES = st.lists(st.sampled_from(["10.244.0.1", "10.244.0.2", "10.244.0.3"]), max_size=3)
READY = st.booleans()
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("service"), NAMES, st.none() | SPECS),
        st.tuples(st.just("slice"), NAMES, st.none() | st.tuples(NAMES, ADDRESSES, READY)),
        st.tuples(st.just("namespace"), st.sampled_from(["shop", "other"]), READY),
        st.tuples(st.just("anew"), st.none(), st.none()),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_whatever_happened_the_zone_is_that_of_the_last_state(steps: list[Any]) -> None:
    it = cluster()
    for kind, name, value in steps:
        match kind:
            case "service":
                it.put("service", name, None if value is None else {"spec": value})
            case "slice" if value is None:
                it.put("slice", name, None)
            case "slice":
                of, addresses, ready = value
                found = [{"addresses": [a], "conditions": {"ready": ready}} for a in addresses]
                it.endpoints(name, of, *found, ports=[{"name": "x", "port": 1, "protocol": "TCP"}])
            case "namespace":
                it.put("namespace", name, {} if value else None)
            case "anew":  # another node comes and tells everything
                it.follower.attach(it.server.take)
    fresh = cluster()
    fresh.put("namespace", "shop", None)
    for (kind, name), object in it.objects.items():
        fresh.put(kind, name, object)
    one, other = it.server.zone, fresh.server.zone
    assert one._described == other._described
    assert one._entries == other._entries
    assert one._pointers == other._pointers
    assert one._behind == other._behind
    assert one._namespaces == other._namespaces
