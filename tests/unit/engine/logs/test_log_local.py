import io
import struct

from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.logs.local import LocalDecoder, LocalEntries, decode, encode
from wherry.engine.logs.types import Partial, Piece

TIME = 1_714_557_600_000_000_120


def test_an_entry_is_as_dockerd_writes_it():
    line = encode(Piece(1, 300, b"hi\n"))
    body = b"\x0a\x06stdout\x10\xac\x02\x1a\x02hi"
    size = struct.pack(">I", len(body))
    assert line == size + body + size


def test_parts_say_which_they_are():
    data = encode(Piece(2, 1, b"x\n", Partial("ab", 2, True)))
    assert data[4:-4] == b"\x0a\x06stderr\x10\x01\x1a\x01x" + b"\x20\x01\x2a\x08" + (
        b"\x08\x01\x12\x02ab\x18\x02"
    )
    assert decode(data[4:-4]) == (2, 1, b"x\n", None)
    assert decode(encode(Piece(1, 1, b"x", Partial("ab", 1, False)))[4:-4])[2] == b"x"


lines = st.lists(st.binary(max_size=300).filter(lambda line: b"\n" not in line), max_size=20)


@given(lines, st.integers(1, 200))
def test_lines_are_read_back(lines, step):
    data = b"".join(encode(Piece(1, TIME, line + b"\n")) for line in lines)
    decoder = LocalDecoder()
    entries = [e for at in range(0, len(data), step) for e in decoder.feed(data[at : at + step])]
    assert [entry[2] for entry in entries] == [line + b"\n" for line in lines]
    assert all(decoder.fixed_time(e[1]) == "2024-05-01T10:00:00.000000120Z" for e in entries)


@given(lines, st.integers(0, 22))
def test_the_tail_is_found_from_the_end(lines, wanted):
    entries = [encode(Piece(1, TIME, line + b"\n")) for line in lines]
    offset, found = LocalEntries().tail(io.BytesIO(b"".join(entries)), wanted)
    assert found == min(wanted, len(lines))
    assert b"".join(entries)[offset:] == b"".join(entries[len(entries) - found :])


@given(lines.filter(bool), st.data())
def test_a_torn_entry_is_seen_and_batches_are_cut_between_entries(lines, data):
    entries = [encode(Piece(1, TIME, line + b"\n")) for line in lines]
    whole = b"".join(entries)
    ends = [sum(map(len, entries[: n + 1])) for n in range(len(entries))]
    torn = data.draw(st.integers(0, len(whole)))
    assert LocalEntries().end(io.BytesIO(whole[:torn])) == max([0, *(e for e in ends if e <= torn)])
    at = data.draw(st.integers(1, len(whole)))
    assert LocalEntries().cut(whole, at) == min(end for end in ends if end >= at)


def test_what_is_no_entry_is_none():
    for data in (b"\xff", b"\x0a\x10abc", b"\x80" * 12, b"\x09abcdefgh"):
        assert decode(data) is None
