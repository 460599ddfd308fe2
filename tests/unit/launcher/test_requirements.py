"""What the machine lacks is said in sentences."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wherry.launcher import requirements


def test_without_root_that_is_all_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (fault,) = requirements.missing()
    assert "needs root" in fault


def test_each_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    said = "\n".join(requirements.missing())
    for package in ("catatonit", "crun or runc"):
        assert package in said


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount needs root")
def test_where_others_mount_need_not_be_text(tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(place)).mkdir()
    script = "mount -t tmpfs none $0 && exec $1 -c '"
    script += "from wherry.launcher import requirements; requirements.missing()'"
    alone = ["unshare", "--mount", "sh", "-c", script]
    subprocess.run([*alone, place, sys.executable], check=True, timeout=60)


def test_a_kernel_without_overlay_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(requirements, "_filesystems", lambda: {"ext4"})
    assert any("overlay" in fault for fault in requirements.missing())
