"""Paths, modes and rules of the archive API, as far as they are plain functions."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from wherry.engine.container import archive
from wherry.engine.container.container import MountPoint
from wherry.engine.container.init_layer import prepare, sweep
from wherry.engine.errors import BadParameter, EngineError


@pytest.mark.parametrize(
    ("path", "absolute", "base"),
    [
        ("/", "/", "/"),
        ("a", "/a", "a"),
        ("/a/b", "/a/b", "b"),
        ("/a/b/", "/a/b/", "b"),
        ("/a/b/.", "/a/b/.", "."),
        (".", "/.", "."),
        ("//a//b", "/a/b", "b"),
        ("../../a", "/a", "a"),
        ("a/../b/", "/b/", "b"),
    ],
)
def test_paths_keep_what_ends_them(path: str, absolute: str, base: str) -> None:
    assert archive.absolute(path) == absolute
    assert archive.base(absolute) == base


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
        (stat.S_IFREG | 0o4755, 1 << 23 | 0o755),
        (stat.S_IFCHR | 0o600, 1 << 26 | 1 << 21 | 0o600),
        (stat.S_IFIFO | 0o600, 1 << 25 | 0o600),
    ],
)
def test_modes_are_gos(mode: int, expected: int) -> None:
    assert archive.go_mode(mode) == expected


def test_links_are_followed_beneath_the_root(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").touch()
    for name, target in (
        ("abs", "/d/file"),
        ("up", "../../../d"),
        ("gone", "/no/where"),
        ("chain", "abs"),
        ("loop", "loop"),
    ):
        (tmp_path / name).symlink_to(target)
    root = os.open(tmp_path, os.O_PATH)
    try:
        followed = [archive.follow(root, p) for p in ("abs", "up/file", "gone", "chain", "d/file")]
        assert followed == ["/d/file", "/d/file", "/no/where", "/d/file", "/d/file"]
        with pytest.raises(EngineError, match="too many links"):
            archive.follow(root, "loop")
    finally:
        os.close(root)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/data/x", ""),
        ("/data/ro/x", "mounted volume is marked read-only"),
        ("/etc", "container rootfs is marked read-only"),
        ("/database", "container rootfs is marked read-only"),
    ],
)
def test_where_one_may_write(path: str, message: str) -> None:
    container = SimpleNamespace(
        mounts=[
            MountPoint("bind", "/data"),
            MountPoint("volume", "/data/ro", writable=False),
        ],
        host_config={"ReadonlyRootfs": True},
    )
    if not message:
        archive.check_writable(container, path)  # type: ignore[arg-type]
        return
    with pytest.raises(BadParameter, match=message):
        archive.check_writable(container, path)  # type: ignore[arg-type]


def test_the_layer_below_a_container_has_what_the_image_lacks(tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "etc").mkdir(parents=True, mode=0o711)
    (image / "etc/hosts").touch()
    (image / "proc").symlink_to("elsewhere")
    layer = prepare(tmp_path / "init", [image])
    assert sorted(str(p.relative_to(layer)) for p in layer.rglob("*")) == [
        *(".dockerenv", "dev", "dev/console", "dev/pts", "dev/shm", "etc", "etc/hostname"),
        *("etc/mtab", "etc/resolv.conf", "sys"),
    ]
    assert stat.S_IMODE((layer / "etc").stat().st_mode) == 0o711
    assert prepare(layer, [image]) == layer


def test_layers_of_forgotten_images_are_swept(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    for name in ("kept", "forgotten", ".new-half"):
        prepare(tmp_path / "layers" / name, [tmp_path / "image"])
    sweep(tmp_path / "layers", ["sha256:kept"], opened=0)
    assert {path.name for path in (tmp_path / "layers").iterdir()} == {"kept", ".new-half"}
    sweep(tmp_path / "layers", ["sha256:kept"], opened=2e10)
    assert [path.name for path in (tmp_path / "layers").iterdir()] == ["kept"]
