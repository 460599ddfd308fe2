"""Logs of containers."""

import asyncio
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.kubelet.logs import LogOptions, LogReader, read_log, tail_offset

LOG = (
    b"2026-03-01T12:00:00.000000001Z stdout F one\n"
    b"2026-03-01T12:00:01.000000001Z stderr F two\n"
    b"2026-03-01T12:00:02.000000001Z stdout P thr\n"
    b"2026-03-01T12:00:02.000000002Z stdout F ee\n"
)


def read(data=LOG, **options):
    return LogReader(LogOptions(**options)).feed(data)


def test_lines_are_stripped_of_their_marks_and_parts_joined():
    assert read() == b"one\ntwo\nthree\n"


def test_timestamps_stand_before_whole_lines_only():
    lines = read(timestamps=True).splitlines()
    assert lines[2] == b"2026-03-01T12:00:02.000000001Z three"


def test_a_zone_of_zero_is_written_as_z():
    line = b"2026-03-01T12:00:00.5+00:00 stdout F x\n"
    assert read(line, timestamps=True) == b"2026-03-01T12:00:00.5Z x\n"


def test_since_leaves_out_what_is_older():
    since = datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)
    assert read(since=since) == b"two\nthree\n"
    local = b"2026-03-01T14:00:01.5+02:00 stdout F late\n2026-03-01T13:00:00+02:00 stdout F no\n"
    assert read(local, since=since) == b"late\n"


def test_a_limit_cuts_within_a_line():
    assert read(limit=5) == b"one\nt"


@given(st.lists(st.integers(1, 40), max_size=20))
def test_the_output_does_not_depend_on_how_the_file_is_cut(cuts):
    reader, output, position = LogReader(LogOptions()), b"", 0
    for cut in cuts:
        output += reader.feed(LOG[position : position + cut])
        position += cut
    assert output + reader.feed(LOG[position:]) == b"one\ntwo\nthree\n"


@given(st.integers(0, 50), st.integers(0, 50))
def test_the_tail_begins_so_many_lines_before_the_end(total, wanted):
    import io

    lines = [b"line %d\n" % i for i in range(total)]
    file = io.BytesIO(b"".join(lines))
    offset = tail_offset(file, wanted)
    assert file.getvalue()[offset:] == b"".join(lines[max(0, total - wanted) :])


def test_the_tail_of_a_large_file(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%d %s\n" % (i, b"x" * 1000) for i in range(500)))
    with path.open("rb") as file:
        file.seek(tail_offset(file, 100))
        assert file.readline().startswith(b"400 ")


async def collect(pieces):
    return [piece async for piece in pieces]


async def test_a_log_is_read_to_its_end(tmp_path):
    path = tmp_path / "0.log"
    path.write_bytes(LOG)
    pieces = read_log(path, LogOptions(tail=2), lambda: True, asyncio.Event())
    assert b"".join(await collect(pieces)) == b"three\n"


async def test_a_follower_sees_what_is_written_and_ends_with_the_container(tmp_path):
    path = tmp_path / "0.log"
    path.write_bytes(LOG)
    running, ended = [True], asyncio.Event()
    pieces = read_log(path, LogOptions(follow=True), lambda: running[0], ended)
    assert await anext(pieces) == b"one\ntwo\nthree\n"
    coming = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0.05)
    assert not coming.done()
    with path.open("ab") as file:
        file.write(b"2026-03-01T12:00:03Z stdout F four\n")
    assert await asyncio.wait_for(coming, 60) == b"four\n"
    rest = asyncio.ensure_future(collect(pieces))
    with path.open("ab") as file:
        file.write(b"2026-03-01T12:00:04Z stdout F last\n")
    running[0] = False
    ended.set()
    assert b"".join(await asyncio.wait_for(rest, 60)) == b"last\n"
