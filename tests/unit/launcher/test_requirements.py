"""What the machine lacks is said in sentences."""

from __future__ import annotations

import os
import shutil

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


def test_a_kernel_without_overlay_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(requirements, "_filesystems", lambda: {"ext4"})
    assert any("overlay" in fault for fault in requirements.missing())
