"""The program in memory: it runs, nobody changes it, and the memory is given back."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from wherry.runtime.sealed import SealedProgram


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return Path(shutil.copy("/bin/echo", tmp_path / "program"))


def said(path: Path) -> str:
    return subprocess.run([path, "hello"], check=True, text=True, capture_output=True).stdout


def test_it_runs_under_its_name_after_the_file_has_changed(program: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    sealed = SealedProgram(program, tmp_path / "run")
    assert sealed.path == tmp_path / "run" / "program"
    program.unlink()
    assert said(sealed.path) == "hello\n"
    sealed.close()
    assert not sealed.path.exists()
    sealed.close()


def test_nobody_writes_to_it_or_cuts_it(program: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    sealed = SealedProgram(program, tmp_path / "run")
    descriptor = os.open(sealed.path, os.O_RDWR)
    for change in (lambda: os.write(descriptor, b"x"), lambda: os.truncate(descriptor, 0)):
        with pytest.raises(PermissionError):
            change()
    os.close(descriptor)
    sealed.close()


def test_what_a_former_daemon_left_is_replaced(program: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "program").symlink_to("/proc/1/fd/12345")
    sealed = SealedProgram(program, tmp_path / "run")
    assert said(sealed.path) == "hello\n"
    sealed.close()


def test_where_memory_may_not_be_executed_it_is_the_program(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "memfd_create", refuse)
    sealed = SealedProgram(program, tmp_path)
    assert sealed.path == program
    sealed.close()


def test_an_older_kernel_does_not_know_the_newest_flag(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = os.memfd_create

    def old(name: str, flags: int) -> int:
        if flags & 0x10:
            raise OSError(22, "Invalid argument")
        return create(name, flags)

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(os, "memfd_create", old)
    sealed = SealedProgram(program, tmp_path / "run")
    assert said(sealed.path) == "hello\n"
    sealed.close()
