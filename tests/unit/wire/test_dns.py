"""DNS messages, as others write and read them."""

from __future__ import annotations

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from wherry.wire.dns import (
    Malformed,
    Record,
    Reply,
    answered,
    asking,
    belongs,
    lifetimes,
    onward,
    packed,
    parse,
    read,
    reversed_address,
)

QUERY = DNSRecord.question("web.example.com").pack()
ANSWER = DNSRecord.parse(QUERY).reply().pack()
LABELS = st.text("abcXYZ019-_", min_size=1, max_size=20)


def question(name: str, *extra: EDNS0, type: str = "A") -> bytes:
    asked = DNSRecord.question(name, type)
    for option in extra:
        asked.add_ar(option)
    return bytes(asked.pack())


@given(st.binary(max_size=80))
def test_garbage_is_refused_and_harms_nobody(data: bytes):
    try:
        parse(data)
    except Malformed as malformed:
        assert malformed.reply is None or malformed.reply[:2] == data[:2]


@given(st.binary(max_size=200))
def test_broken_answers_are_seen(data: bytes):
    try:
        places, ttl = lifetimes(data)
    except ValueError:
        return
    assert ttl >= 0 and all(place + 4 <= len(data) for place in places)


def test_a_later_version_of_edns_is_not_spoken():
    with pytest.raises(Malformed) as refused:
        parse(question("web.shop.svc.cluster.local", EDNS0(version=1)))
    reply = DNSRecord.parse(refused.value.reply)
    assert reply.header.rcode == 0 and reply.ar[0].ttl >> 24 == 1  # together: BADVERS, 16


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (question("x")[:-1], RCODE.FORMERR),
        (question("x", EDNS0(), EDNS0()), RCODE.FORMERR),
        (question("x")[:-2] + b"\0\3", RCODE.REFUSED),  # class CHAOS
        (b"\0\1\0\0\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1", RCODE.FORMERR),
        (b"\0\1\0\0\0\1" + bytes(6) + b"\x3f" + b"a" * 63 * 5, RCODE.FORMERR),
        (b"\0\1\x20\0\0\1" + bytes(6), RCODE.NOTIMP),
        (b"\0\1\0\0\0\2" + bytes(6), RCODE.FORMERR),
        (question("cluster.local", type="AXFR"), RCODE.REFUSED),
    ],
    # A question has an id of its own in each process; its test has not.
    ids=[
        "cut-short",
        "options-twice",
        "class-chaos",
        "pointer",
        "label-too-long",
        "opcode",
        "two-questions",
        "whole-zone",
    ],
)
def test_what_is_no_question_is_refused_as_it_should(data: bytes, said: int):
    with pytest.raises(Malformed) as refused:
        parse(data)
    assert refused.value.reply is not None and refused.value.reply[3] & 0xF == said


def test_answers_are_no_questions():
    with pytest.raises(Malformed) as refused:
        parse(bytes(DNSRecord.question("x").reply().pack()))
    assert refused.value.reply is None


@given(st.lists(LABELS, min_size=1, max_size=8), st.sampled_from(["A", "AAAA", "SRV", "TXT"]))
def test_any_name_is_read_as_others_write_it(labels: list[str], type: str):
    name = ".".join(labels)
    asked = parse(question(name, type=type))
    assert (asked.name, asked.type) == (name.lower(), getattr(QTYPE, type))
    reply = Reply(answers=[Record("", QTYPE.CNAME, 7, (f"www.{name}".lower(),))])
    read = DNSRecord.parse(packed(reply, asked, datagram=True))
    assert str(read.rr[0].rname) == f"{name}."
    assert str(read.rr[0].rdata).lower() == f"www.{name}.".lower()


@given(st.binary(max_size=120))
def test_what_others_answer_may_be_anything(data: bytes):
    try:
        code, records = answered(data)
    except ValueError:
        return
    assert 0 <= code < 16 and all(record.type in (1, 5, 28) for record in records)


def test_addresses_and_aliases_are_read_from_anothers_answer():
    reply = DNSRecord.parse(onward(asking("www.example.com", QTYPE.A))).reply()
    reply.add_answer(*RR.fromZone("www.example.com. 60 CNAME a.example.com."))
    reply.add_answer(*RR.fromZone("a.example.com. 60 A 192.0.2.1"))
    code, records = answered(bytes(reply.pack()))
    assert code == 0 and records == [
        Record("www.example.com", QTYPE.CNAME, 60, ("a.example.com",)),
        Record("a.example.com", QTYPE.A, 60, (bytes([192, 0, 2, 1]),)),
    ]


def test_an_answer_has_the_id_and_the_question() -> None:
    assert belongs(QUERY, ANSWER)
    assert not belongs(QUERY, QUERY)
    assert not belongs(QUERY, bytes([ANSWER[0] ^ 1]) + ANSWER[1:])
    other = DNSRecord.question("other.example.com").reply().pack()
    assert not belongs(QUERY, QUERY[:2] + other[2:])
    kind = len(QUERY) - 4
    other_type = ANSWER[:kind] + b"\0\x1c" + ANSWER[kind + 2 :]
    assert not belongs(QUERY, other_type)


def test_a_refusal_may_leave_the_question_out() -> None:
    assert belongs(QUERY, QUERY[:2] + b"\x80\x05" + bytes(8))


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("2.0.18.172.in-addr.arpa.", "172.18.0.2"),
        ("2.0.18.172.IN-ADDR.ARPA", "172.18.0.2"),
        (".".join("20000000000000000000000000000 0df".replace(" ", "")) + ".ip6.arpa.", "fd00::2"),
        ("0.18.172.in-addr.arpa.", None),
        ("2.0.18.999.in-addr.arpa.", None),
        ("x.0.18.172.in-addr.arpa.", None),
        (".".join("0" * 31) + ".ip6.arpa", None),
        (".".join(["00"] + ["0"] * 31) + ".ip6.arpa", None),
        ("300.3.2.1.in-addr.arpa", None),
        ("x.ip6.arpa", None),
        ("web", None),
    ],
)
def test_names_of_reverse_look_ups(name, address):
    assert reversed_address(name) == address


@pytest.mark.parametrize(
    "data",
    [
        question("x")[:-2] + b"\0\3",  # class CHAOS
        question("web", EDNS0(version=1)),
        question("cluster.local", type="AXFR"),
        b"\0\1\x20" + question("web")[3:],  # another operation
    ],
    ids=["class-chaos", "later-edns", "whole-zone", "opcode"],
)
def test_who_only_hands_on_reads_any_question(data: bytes):
    assert read(data).wire == data[12 : 12 + len(read(data).wire)]
    with pytest.raises(Malformed):
        parse(data)
