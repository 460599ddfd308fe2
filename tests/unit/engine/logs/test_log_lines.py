from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.logs.lines import LONGEST, Splitter
from wherry.engine.logs.types import Piece


def split(chunks, stream=1):
    splitter = Splitter()
    pieces = [
        piece for now, chunk in enumerate(chunks) for piece in splitter.feed(stream, chunk, now)
    ]
    return pieces, splitter


def test_whole_lines_of_one_read_are_one_piece():
    assert split([b"a\nb\nc"])[0] == [Piece(1, 0, b"a\nb\n")]


def test_a_line_is_kept_when_its_newline_comes():
    pieces, splitter = split([b"a\nb", b"c", b"\nd"])
    assert pieces == [Piece(1, 0, b"a\n"), Piece(1, 2, b"bc\n")]
    assert splitter.pending() == {1: b"d"}


def test_a_long_line_comes_in_parts_of_one_name_and_time():
    pieces, _ = split([b"x\n" + b"y" * (LONGEST + 5), b"y" * LONGEST, b"\nz\n"])
    first, *parts, last = pieces
    assert (first.data, last.data) == (b"x\n", b"z\n")
    assert [len(part.data) for part in parts] == [LONGEST, LONGEST, 6]
    assert [(p.partial.ordinal, p.partial.last) for p in parts] == [
        (1, False),
        (2, False),
        (3, True),
    ]
    assert len({(p.partial.id, p.time) for p in parts}) == 1


def test_a_line_that_is_as_long_as_a_part_ends_with_an_empty_one():
    pieces, _ = split([b"y" * LONGEST + b"\n"])
    assert [piece.data for piece in pieces] == [b"y" * LONGEST, b"\n"]


def test_an_unfinished_line_is_kept_at_the_end_without_its_newline():
    _, splitter = split([b"a\nprompt> "])
    (piece,) = splitter.flush(9)
    assert (piece.data, piece.time, piece.partial.last) == (b"prompt> ", 9, False)
    assert splitter.flush(10) == []


def test_streams_do_not_mix():
    splitter = Splitter()
    splitter.feed(1, b"out", 0)
    assert splitter.feed(2, b"err\n", 1) == [Piece(2, 1, b"err\n")]
    assert splitter.feed(1, b"\n", 2) == [Piece(1, 2, b"out\n")]


@given(
    st.lists(st.one_of(st.integers(0, 40_000), st.just(-1)), max_size=20), st.integers(1, 70_000)
)
def test_nothing_is_lost_and_no_piece_is_too_long(lengths, step):
    data = b"".join(b"\n" if n < 0 else b"x" * n for n in lengths)
    chunks = [data[at : at + step] for at in range(0, len(data), step)]
    pieces, splitter = split(chunks)
    pieces += splitter.flush(99)
    assert b"".join(piece.data for piece in pieces) == data
    for piece in pieces:
        assert all(len(line) <= LONGEST for line in piece.lines)
        if piece.partial is None:
            assert piece.data.endswith(b"\n")
        elif not piece.partial.last:
            assert b"\n" not in piece.data
