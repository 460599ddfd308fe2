import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.engine.container.logs import LogFormatter, LogQuery, parse, read, tail_offset
from wherry.wire.docker_stream import Demultiplexer

T = b"2024-05-01T10:00:00.%09d+02:00"


def line(n, text, stream=b"stdout", tag=b"F"):
    return b" ".join((T % n, stream, tag, text))


def test_a_full_line_stands_for_its_text_and_a_newline():
    entry = parse(line(5, b"hello  world"))
    assert (entry.stream, entry.partial, entry.data) == (1, False, b"hello  world\n")
    assert entry.nanoseconds % 10**9 == 5


def test_an_empty_line_and_a_torn_one():
    assert parse(T % 1 + b" stderr F ").data == b"\n"
    assert parse(b"2024-05-01T10:0") is None


def test_pieces_of_a_line_have_no_newline():
    assert parse(line(1, b"abc", tag=b"P")).data == b"abc"


def formatted(lines, raw=True, **query):
    return LogFormatter(LogQuery(**query), raw=raw).format(iter(lines))


def test_streams_are_chosen_and_framed():
    lines = [line(1, b"out"), line(2, b"err", b"stderr")]
    assert formatted(lines, stderr=False) == b"out\n"
    frames = Demultiplexer().feed(formatted(lines, raw=False))
    assert frames == [(1, b"out\n"), (2, b"err\n")]


def test_timestamps_are_utc_with_nine_digits_once_for_each_message():
    lines = [line(1, b"a", tag=b"P"), line(2, b"b"), line(300, b"c")]
    assert formatted(lines, timestamps=True) == (
        b"2024-05-01T08:00:00.000000001Z ab\n2024-05-01T08:00:00.000000300Z c\n"
    )


def test_since_and_until_bound_the_messages():
    second = parse(line(0, b"")).nanoseconds
    lines = [line(n, b"%d" % n) for n in range(5)]
    assert formatted(lines, since=second + 2) == b"2\n3\n4\n"
    assert formatted(lines, until=second + 1) == b"0\n1\n"


@given(
    st.lists(st.tuples(st.sampled_from([b"P", b"F"]), st.integers(0, 40_000)), max_size=12),
    st.integers(0, 12),
)
def test_the_tail_holds_as_many_messages_as_asked_for(pieces, wanted):
    lines = [line(n, b"x" * length, tag=tag) for n, (tag, length) in enumerate(pieces)]
    data = b"".join(piece + b"\n" for piece in lines)
    tail = data[tail_offset(io.BytesIO(data), wanted) :]
    ends = [n for n, (tag, _) in enumerate(pieces) if tag == b"F"]
    if wanted == 0:
        assert tail == b""
    elif wanted >= len(ends):
        assert tail == data
    else:
        first = ends[-wanted - 1] + 1
        assert tail == b"".join(piece + b"\n" for piece in lines[first:])


async def collect(path, query, **kwargs):
    return b"".join([data async for data in read(path, query, raw=True, **kwargs)])


async def test_a_container_that_never_ran_has_no_log(tmp_path):
    assert await collect(tmp_path / "none", LogQuery()) == b""


async def test_tail_reads_the_end(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"".join(line(n, b"%d" % n) + b"\n" for n in range(10)))
    assert await collect(path, LogQuery(tail=2)) == b"8\n9\n"


async def test_following_reads_what_is_added_until_the_end(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(line(1, b"one") + b"\n" + line(2, b"tw"))
    steps = iter([b"o\n", line(3, b"three") + b"\n"])

    async def changed():
        added = next(steps, None)
        if added is None:
            return False
        with path.open("ab") as file:
            file.write(added)
        return True

    text = await collect(path, LogQuery(follow=True), changed=changed)
    assert text == b"one\ntwo\nthree\n"


@pytest.mark.parametrize("blocks", [1, 3])
async def test_long_logs_come_in_pieces(tmp_path, blocks):
    path = tmp_path / "log"
    path.write_bytes(b"".join(line(n, b"y" * 1000) + b"\n" for n in range(70 * blocks)))
    pieces = [data async for data in read(path, LogQuery(), raw=True)]
    assert len(pieces) >= blocks
    assert sum(map(len, pieces)) == 1001 * 70 * blocks
