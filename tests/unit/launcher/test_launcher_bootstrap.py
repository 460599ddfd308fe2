"""Base images made from what this machine has."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wherry.engine.image import busybox as program_image
from wherry.launcher import bootstrap


@pytest.fixture
def busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "busybox"
    path.write_text('#!/bin/sh\n[ "$1" ] && echo "busybox\nls\nsh" || echo "BusyBox v1.35.0 (x)"\n')
    path.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(tmp_path / name))
    return path


def test_the_root_of_busybox_has_its_applets_and_accounts(busybox: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(program_image.root(busybox))) as tar:
        members = {member.name: member for member in tar}
        assert members["bin/ls"].linkname == members["bin/sh"].linkname == "bin/busybox"
        assert members["tmp"].mode == 0o1777
        passwd = tar.extractfile("etc/passwd")
        assert passwd is not None
        assert passwd.read().startswith(b"root:x:0:0:root:/root:/bin/sh\n")


def test_busybox_is_called_by_its_version_too(busybox: Path) -> None:
    assert bootstrap.RECIPES["busybox"].names() == ["busybox:latest", "busybox:1.35.0"]


def test_without_busybox_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(bootstrap.BootstrapFailed, match="Debian package busybox-static"):
        bootstrap.find_busybox()


def test_an_unknown_image_has_no_recipe() -> None:
    instance: Any = SimpleNamespace(docker_socket=Path("/nowhere"))
    with pytest.raises(bootstrap.BootstrapFailed, match="no recipe for alpine, only for busybox"):
        list(bootstrap.make(instance, ["alpine"]))


def test_without_an_engine_the_way_to_one_is_told(busybox: Path) -> None:
    instance: Any = SimpleNamespace(docker_socket=Path("/nowhere"))
    with pytest.raises(bootstrap.BootstrapFailed, match="`wherry up` starts it"):
        list(bootstrap.make(instance, ["busybox"]))
