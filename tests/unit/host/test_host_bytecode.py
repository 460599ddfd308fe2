"""Bytecode is kept where the environment keeps none, and nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wherry.host import bytecode


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", None)


@pytest.mark.usefixtures("fresh")
def test_what_is_not_kept_beside_the_sources_is_kept_in_a_place_of_our_own(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "bytecode"
    bytecode.keep(place)
    assert sys.pycache_prefix == str(place)
    assert not sys.dont_write_bytecode
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("fresh")
def test_a_place_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    bytecode.keep(tmp_path)
    assert sys.pycache_prefix is None
    assert sys.dont_write_bytecode


@pytest.mark.usefixtures("fresh")
def test_without_such_a_place_all_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bytecode.keep(tmp_path / "file" / "below")
    assert sys.dont_write_bytecode


def test_where_bytecode_is_kept_already_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    bytecode.keep(tmp_path / "place")
    assert not (tmp_path / "place").exists()
