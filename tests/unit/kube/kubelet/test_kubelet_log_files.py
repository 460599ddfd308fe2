"""Rotation of logs, and readers who follow through it."""

import asyncio
import contextlib
import dataclasses
import gzip
import os
import time

from wherry.engine.logs.cri import CRILines
from wherry.engine.logs.cri import encode as encode_piece
from wherry.engine.logs.files import LogFile
from wherry.engine.logs.types import Piece
from wherry.kube.kubelet.log_files import LogFiles, rotated
from wherry.kube.kubelet.logs import LogOptions, read_log


def made(tmp_path, size=400, max_files=3):
    directory = tmp_path / "pods" / "ns_pod_uid" / "c"
    directory.mkdir(parents=True)
    path = directory / "0.log"
    files = LogFiles(tmp_path / "pods", tmp_path / "links", max_files=max_files)
    log = LogFile(path, CRILines())
    log.rotate_by(size, lambda: files.rotate(path))
    return path, files, log


def line(text):
    return encode_piece(Piece(1, time.time_ns(), b"%s\n" % text))


async def test_what_is_written_for_ever_is_bounded_and_old_files_are_packed(tmp_path):
    path, files, log = made(tmp_path)
    for number in range(200):
        await log.append(line(b"line %d" % number))
    await asyncio.gather(*files._packing.values())
    log.close()
    old = rotated(path)
    assert len(old) == 2
    assert [file.suffix == ".gz" for file in old] == [True, False]
    assert all(file.stat().st_size <= 500 for file in (path, *old))
    with gzip.open(old[0]) as packed:
        text = packed.read() + old[1].read_bytes() + path.read_bytes()
    numbers = [int(found.split()[-1]) for found in text.splitlines()]
    assert numbers == list(range(numbers[0], 200))


async def test_a_follower_sees_every_line_through_rotations(tmp_path):
    path, _, log = made(tmp_path, max_files=50)
    running, ended, seen = True, asyncio.Event(), b""

    async def follow():
        nonlocal seen
        async for piece in read_log(path, LogOptions(follow=True), lambda: running, ended):
            seen += piece
            await asyncio.sleep(0)

    following = asyncio.create_task(follow())
    for number in range(300):
        await log.append(line(b"%d" % number))
        if number % 7 == 0:
            await asyncio.sleep(0.001)
    log.close()
    running = False
    ended.set()
    await following
    assert seen.split() == [b"%d" % n for n in range(300)]


async def test_many_followers_need_one_descriptor_and_leave_none(tmp_path):
    path, _, log = made(tmp_path)
    await log.append(line(b"x"))
    ended = asyncio.Event()

    def watches():
        count = 0
        for each in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed by now
                count += "inotify" in os.readlink(f"/proc/self/fd/{each}")
        return count

    before = watches()
    first = asyncio.Event()

    async def follow():
        async for _ in read_log(path, LogOptions(follow=True), lambda: True, ended):
            first.set()

    tasks = [asyncio.create_task(follow()) for _ in range(200)]
    await first.wait()
    assert watches() == before + 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert watches() == before
    log.close()


async def test_links_come_and_go_with_containers_and_pods(tmp_path):
    from pod_pieces import pod as make_pod
    from pod_pieces import status

    path, files, log = made(tmp_path)
    log.close()
    pod = make_pod()
    container = dataclasses.replace(status("web"), log_path=path)
    files.link(pod, "web", container)
    (link,) = (tmp_path / "links").iterdir()
    assert link.name == f"{pod['metadata']['name']}_d_web-{container.id}.log"
    assert link.resolve() == path
    files.remove_container(container)
    assert not list((tmp_path / "links").iterdir()) and not path.exists()
    files.link(pod, "web", container)
    files.remove_pod("uid", None)
    assert not list((tmp_path / "links").iterdir())
    assert not path.parents[1].exists()


async def test_a_pods_directory_goes_although_a_log_is_just_being_packed(tmp_path, monkeypatch):
    path, files, log = made(tmp_path)
    log.close()
    late, rmdir = [path.with_name("0.log.1.gz"), path.with_name("0.log.2.gz")], os.rmdir

    def meanwhile(name, *, dir_fd=None):
        if late and name == path.parent.name:
            late.pop().touch()
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", meanwhile)
    files.remove_pod("uid", None)
    assert not late and not list((tmp_path / "pods").iterdir())
    files.remove_pod("uid", None)  # nothing is there any more


async def test_a_stream_alone_can_be_read(tmp_path):
    path = tmp_path / "0.log"
    path.write_bytes(line(b"out") + line(b"err").replace(b"stdout", b"stderr"))
    pieces = read_log(path, LogOptions(stream=b"stderr"), lambda: False, asyncio.Event())
    assert [piece async for piece in pieces] == [b"err\n"]
