import asyncio
import gzip
import os

import pytest

from wherry.engine.logs import files
from wherry.engine.logs.files import LogFile, rotated
from wherry.engine.logs.json_file import JSONLines, encode
from wherry.engine.logs.reading import Reading
from wherry.engine.logs.types import LogQuery, Piece

T = 1_714_557_600_000_000_000


def lines(first, last):
    return b"".join(b"%d\n" % n for n in range(first, last))


def entries(first, last, stream=1):
    return b"".join(encode(Piece(stream, T + n, b"%d\n" % n)) for n in range(first, last))


SIZE = len(entries(1, 2))  # of each of 1 … 9


async def read(path, live=None, **query):
    reading = Reading(path, JSONLines(), live, LogQuery(**query), raw=True)
    return b"".join([data async for data in reading.pieces()])


async def settle():
    while files._compressions:
        await asyncio.wait(files._compressions)
    await asyncio.sleep(0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x-json.log"


async def test_a_file_that_is_full_gives_way_to_a_new_one(path):
    log = LogFile(path, JSONLines(), capacity=2 * SIZE, max_files=3)
    await log.append(entries(1, 10))
    assert path.read_bytes() == entries(9, 10)
    assert [(n, p.read_bytes()) for n, p in rotated(path)] == [
        (2, entries(5, 7)),
        (1, entries(7, 9)),
    ]
    assert await read(path) == lines(5, 10)
    assert oct(path.stat().st_mode & 0o777) == "0o640"


async def test_with_one_file_the_old_one_goes(path):
    log = LogFile(path, JSONLines(), capacity=SIZE)
    for n in range(1, 5):
        await log.append(entries(n, n + 1))
    assert os.listdir(path.parent) == [path.name]
    assert await read(path) == lines(4, 5)


@pytest.mark.parametrize("tail", range(12))
async def test_the_tail_goes_back_into_old_and_compressed_files(path, tail):
    log = LogFile(path, JSONLines(), capacity=2 * SIZE, max_files=9, compress=True)
    await log.append(entries(1, 10))
    await settle()
    assert {p.suffix for _, p in rotated(path)} == {".gz"}
    assert gzip.decompress((path.parent / f"{path.name}.4.gz").read_bytes()) == entries(1, 3)
    assert await read(path, tail=tail) == lines(max(1, 10 - tail), 10)
    assert sorted(os.listdir(path.parent)) == sorted(
        [path.name, *(p.name for _, p in rotated(path))]
    )


async def test_since_and_until_bound_the_messages(path):
    log = LogFile(path, JSONLines(), capacity=4 * SIZE, max_files=9)
    await log.append(entries(1, 10))
    assert await read(path, since=T + 4, until=T + 6) == lines(4, 7)


async def test_old_files_that_are_too_old_are_not_unpacked(path, monkeypatch):
    log = LogFile(path, JSONLines(), capacity=SIZE, max_files=9, compress=True)
    await log.append(entries(1, 3))
    await settle()
    monkeypatch.setattr("wherry.engine.logs.reading.unpacked", None)
    assert await read(path, since=T + 10**20) == b""


async def test_one_who_follows_sees_each_message_once_whatever_rotates(path):
    log = LogFile(path, JSONLines(), capacity=3 * SIZE, max_files=2, compress=True)
    await log.append(entries(1, 5))
    seen = b""

    async def follow():
        nonlocal seen
        query = LogQuery(follow=True)
        async for data in Reading(path, JSONLines(), log, query, raw=True).pieces():
            seen += data

    following = asyncio.create_task(follow())
    for n in range(5, 10):
        await asyncio.sleep(0.001)
        await log.append(entries(n, n + 1))
    async with asyncio.timeout(60):
        # Who is far behind loses the oldest.
        while not seen.endswith(lines(9, 10)):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await log.append(entries(100, 200))
    log.close()
    await following
    assert seen.startswith(lines(1, 10))
    assert seen.endswith(lines(190, 200))
    numbers = list(map(int, seen.split()))
    assert numbers == sorted(set(numbers))


async def test_one_who_follows_at_leisure_sees_all_of_one_file_logs(path):
    log = LogFile(path, JSONLines(), capacity=3 * SIZE)
    following = asyncio.create_task(read(path, log, follow=True))
    for n in range(1, 60):
        await asyncio.sleep(0)
        await log.append(entries(n, n + 1))
    await asyncio.sleep(0.01)
    log.close()
    assert (await following) == lines(1, 60)


async def test_one_who_follows_a_file_that_is_emptied_goes_on(path):
    log = LogFile(path, JSONLines())
    await log.append(entries(1, 5))
    following = asyncio.create_task(read(path, log, follow=True, tail=1))
    await asyncio.sleep(0.01)
    os.truncate(path, 0)
    await log.append(entries(8, 9))
    await asyncio.sleep(0.01)
    log.close()
    assert await following == lines(4, 5) + lines(8, 9)


async def test_following_ends_at_the_time_that_was_asked_for(path, monkeypatch):
    log = LogFile(path, JSONLines())
    await log.append(entries(1, 2))
    monkeypatch.setattr("wherry.engine.logs.reading.time.time", lambda: T / 1e9)
    assert await read(path, log, follow=True, until=T + 10**7) == lines(1, 2)
    assert not log._followers


async def test_what_is_no_log_any_more_cannot_be_followed(path):
    log = LogFile(path, JSONLines())
    await log.append(entries(1, 2))
    log.close()
    assert await read(path, log, follow=True) == lines(1, 2)


async def test_a_reader_that_does_not_follow_ends_where_the_file_was(path):
    log = LogFile(path, JSONLines())
    await log.append(entries(1, 3))
    reading = Reading(path, JSONLines(), log, LogQuery(), raw=True)
    await log.append(entries(3, 5))
    assert b"".join([data async for data in reading.pieces()]) == lines(1, 3)


async def test_a_container_that_never_ran_has_no_log(path):
    assert await read(path) == b""


# ---- what a kill leaves


async def test_a_torn_message_is_cut_off(path):
    path.write_bytes(entries(1, 3) + b'{"log":"to')
    log = LogFile(path, JSONLines())
    await log.append(entries(3, 4))
    assert path.read_bytes() == entries(1, 4)


async def test_a_compression_that_was_cut_short_is_done_again(path):
    old, temporary = path.with_name(path.name + ".1"), path.with_name(path.name + ".1.gz.tmp")
    old.write_bytes(entries(1, 3))
    temporary.write_bytes(b"torn")
    path.write_bytes(entries(3, 4))
    assert await read(path) == lines(1, 4)
    LogFile(path, JSONLines(), capacity=100, max_files=3, compress=True)
    await settle()
    assert sorted(os.listdir(path.parent)) == [path.name, path.name + ".1.gz"]
    assert await read(path) == lines(1, 4)


async def test_a_file_that_is_there_twice_is_read_once(path):
    path.write_bytes(entries(3, 4))
    old = path.with_name(path.name + ".1")
    old.write_bytes(entries(1, 3))
    files.compress(old, path.with_name(path.name + ".1.gz"))
    assert await read(path) == lines(1, 4)
    LogFile(path, JSONLines(), capacity=100, max_files=3, compress=True)
    assert not old.exists()
    assert await read(path) == lines(1, 4)


async def test_a_write_that_the_disk_refuses_leaves_no_torn_message(path, monkeypatch):
    log = LogFile(path, JSONLines())
    await log.append(entries(1, 2))
    real = os.write
    answers = iter([10, OSError(28, "No space left on device")])

    def write(descriptor, data):
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return real(descriptor, data[:answer])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        await log.append(entries(2, 3))
    monkeypatch.undo()
    await log.append(entries(3, 4))
    assert path.read_bytes() == entries(1, 2) + entries(3, 4)


async def test_a_file_that_cannot_be_rotated_grows(path, monkeypatch):
    log = LogFile(path, JSONLines(), capacity=SIZE, max_files=2)
    await log.append(entries(1, 2))

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files, "shift", refuse)
    await log.append(entries(2, 4))
    assert path.read_bytes() == entries(1, 4)


async def test_a_log_that_another_moves_away_goes_on_under_its_name(path):
    async def move():
        path.rename(path.with_name("moved"))

    log = LogFile(path, JSONLines())
    log.rotate_by(SIZE, move)
    await log.append(entries(1, 2))
    following = asyncio.create_task(read(path, log, follow=True))
    await asyncio.sleep(0.001)
    await log.append(entries(2, 4))
    log.close()
    assert path.read_bytes() == entries(3, 4)
    assert await following == lines(1, 4)


async def test_a_rotation_with_too_many_files_open_loses_nothing(path, monkeypatch):
    log = LogFile(path, JSONLines(), capacity=SIZE, max_files=2)
    await log.append(entries(1, 2))
    follower = log.follow()
    usual = type(path).open

    def refuse(self, *args, **options):
        if self == path and args == ("rb",):
            raise OSError(24, "Too many open files")
        return usual(self, *args, **options)

    monkeypatch.setattr(type(path), "open", refuse)
    await log.append(entries(2, 4))
    assert path.read_bytes() == entries(1, 4)
    follower.close()
