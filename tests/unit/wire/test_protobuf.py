"""Protocol Buffers on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.wire import protobuf
from wherry.wire.protobuf import BYTES, FIXED32, FIXED64, VARINT, Malformed


@given(st.lists(st.tuples(st.integers(1, 1 << 28), st.binary(max_size=300))))
def test_fields_come_back_as_they_were_written(written: list[tuple[int, bytes]]) -> None:
    data = b"".join(protobuf.field(number, value) for number, value in written)
    assert list(protobuf.fields(data)) == [(number, BYTES, value) for number, value in written]


@given(st.integers(0, (1 << 64) - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_a_number_ends_where_it_ends(number: int, before: bytes, after: bytes) -> None:
    encoded = protobuf.varint(number)
    data = before + encoded + after
    assert protobuf.read_varint(data, len(before)) == (number, len(before) + len(encoded))


def test_every_type_of_field_is_told_from_the_others() -> None:
    data = b"\x08\x96\x01" + b"\x11" + bytes(8) + b"\x1a\x02ab" + b"\x25" + bytes(4)
    assert list(protobuf.fields(data)) == [
        (1, VARINT, 150),
        (2, FIXED64, bytes(8)),
        (3, BYTES, b"ab"),
        (4, FIXED32, bytes(4)),
    ]


@given(st.binary(max_size=64))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        list(protobuf.fields(data))
    except Malformed:
        return
    # What was read has not run over the end.
    assert sum(1 for _ in protobuf.fields(data)) <= len(data)


@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"\x80", b"\x0b", b"\x08" + b"\xff" * 11])
def test_what_is_cut_off_or_too_long_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        list(protobuf.fields(data))
