"""Slots: one holder each, given to the next when the holder is gone."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from wherry.launcher import slots


def _data(tmp_path: Path, name: str) -> Path:
    directory = tmp_path / name
    directory.mkdir()
    (directory / slots.INSTANCE).write_text("{}")
    return directory


def test_a_slot_has_one_holder(tmp_path: Path) -> None:
    root, one, two = tmp_path / "run", _data(tmp_path, "one"), _data(tmp_path, "two")
    with slots.locked(root):
        assert slots.holder(root, 1) is None
        assert slots.claim(root, 1, one) is None
        assert slots.claim(root, 1, one) is None
        assert slots.claim(root, 1, two) == one
        assert slots.holder(root, 1) == one


def test_who_is_not_there_any_more_holds_nothing(tmp_path: Path) -> None:
    root, one, two = tmp_path / "run", _data(tmp_path, "one"), _data(tmp_path, "two")
    with slots.locked(root):
        slots.claim(root, 1, one)
        (one / slots.INSTANCE).unlink()
        assert slots.holder(root, 1) is None
        assert slots.claim(root, 1, two) is None
    slots.release(root, 1, one)  # it is not his any more
    with slots.locked(root):
        assert slots.holder(root, 1) == two


def _take_and_leave(root: Path, directory: Path, times: int) -> None:
    for _ in range(times):
        with slots.locked(root):
            free = next(n for n in range(9) if slots.holder(root, n) is None)
            assert slots.claim(root, free, directory) is None
        with slots.locked(root):
            assert slots.holder(root, free) == directory
        slots.release(root, free, directory)


def test_many_at_once_never_share_one_and_leave_nothing(tmp_path: Path) -> None:
    root = tmp_path / "run"
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_take_and_leave, args=(root, _data(tmp_path, f"d{n}"), 25))
        for n in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert not (root / "slots").exists()
