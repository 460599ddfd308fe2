import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.network.dns.answers import answer, is_single_label
from wherry.engine.network.dns.zone import Member, Place, Zone
from wherry.wire.dns import Code, Malformed, failure, read


def places(*members, links=None):
    zone = Zone("front")
    for number, (names, addresses) in enumerate(members):
        zone.enter(Member(str(number), names, addresses))
    return [Place(zone, links or {})]


WEB = (("web",), ("172.18.0.2", "fd00::2"))
OLD = (("old",), ("172.18.0.3",))


def ask(name, kind="A", *, of=(WEB, OLD), datagram=True, size=0):
    query = DNSRecord.question(name, kind)
    if size:
        query.add_ar(EDNS0(udp_len=size))
    packed = answer(read(query.pack()), places(*of), datagram=datagram)
    if packed is None:
        return None
    reply = DNSRecord.parse(packed)
    assert reply.header.id == query.header.id
    assert (reply.header.qr, reply.header.ra, reply.header.rd) == (1, 1, 1)
    assert reply.q == query.q
    assert len(packed) <= (size or 512) or not datagram
    return reply


@pytest.mark.parametrize(
    ("name", "kind", "answers"),
    [
        ("web", "A", ["172.18.0.2"]),
        ("wEb.Front", "A", ["172.18.0.2"]),
        ("web", "AAAA", ["fd00::2"]),
        ("old", "AAAA", []),
        ("web", "MX", []),
        ("web", "HTTPS", []),
        ("2.0.18.172.in-addr.arpa", "PTR", ["web.front."]),
    ],
)
def test_answers(name, kind, answers):
    reply = ask(name, kind)
    assert reply.header.rcode == RCODE.NOERROR
    assert [str(entry.rdata) for entry in reply.rr] == answers
    assert all(entry.ttl == 600 and entry.rname == reply.q.qname for entry in reply.rr)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("other", "A"), ("example.org", "AAAA"), ("9.0.18.172.in-addr.arpa", "PTR"), ("web", "PTR")],
)
def test_what_others_must_be_asked(name, kind):
    assert ask(name, kind) is None


def test_a_name_that_dns_cannot_write_has_no_reverse():
    member = (("x" * 64,), ("172.18.0.2",))
    assert ask("2.0.18.172.in-addr.arpa", "PTR", of=[member]) is None


def test_several_containers_of_one_name_come_in_turns():
    crowd = [(("all",), (f"172.18.0.{n}",)) for n in range(2, 8)]
    seen = {str(ask("all", of=crowd).rr[0].rdata) for _ in range(200)}
    assert len(seen) == 6


def test_an_answer_too_long_for_a_datagram_is_cut_and_says_so():
    crowd = [(("all",), (f"172.18.0.{n}",)) for n in range(2, 102)]
    short = ask("all", of=crowd)
    assert short.header.tc == 1
    assert len(short.rr) == (512 - 12 - 9) // 16
    assert len(short.pack()) > 496
    whole = ask("all", of=crowd, size=4096)
    assert whole.header.tc == 0 and len(whole.rr) == 100
    assert [r.rtype for r in whole.ar] == [QTYPE.OPT]
    assert len(ask("all", of=crowd, datagram=False).rr) == 100


def test_failures_repeat_the_question():
    question = read(DNSRecord.question("x.example").pack())
    reply = DNSRecord.parse(failure(question, Code.SERVFAIL))
    assert reply.header.rcode == RCODE.SERVFAIL
    assert str(reply.q.qname) == "x.example."


@pytest.mark.parametrize(
    ("name", "kind", "single"),
    [("web", "A", True), ("web.", "AAAA", True), ("a.b", "A", False), ("web", "MX", False)],
)
def test_names_without_a_dot(name, kind, single):
    question = read(DNSRecord.question(name, kind).pack())
    assert is_single_label(question) is single


def test_what_is_no_question_is_told_or_ignored():
    query = DNSRecord.question("web").pack()
    with pytest.raises(Malformed) as torn:
        read(query[:-3])
    reply = DNSRecord.parse(torn.value.reply)
    assert reply.header.rcode == RCODE.FORMERR
    assert reply.header.id == DNSRecord.parse(query).header.id
    said = DNSRecord(DNSHeader(qr=1), q=DNSQuestion("web")).pack()
    for data in (b"", b"\0" * 5, said):
        with pytest.raises(Malformed) as ignored:
            read(data)
        assert ignored.value.reply is None


@given(
    st.one_of(
        st.binary(max_size=80),
        st.binary(max_size=60).map(lambda tail: b"\x12\x34\x01\0\0\1\0\0\0\0\0\1" + tail),
    )
)
def test_no_packet_upsets_it(data):
    try:
        question = read(data)
    except Malformed:
        return
    answer(question, places(WEB, OLD), datagram=True)
    DNSRecord.parse(failure(question, Code.SERVFAIL))


def test_a_name_that_points_at_itself_ends():
    loop = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1"
    with pytest.raises(Malformed):
        read(loop)
