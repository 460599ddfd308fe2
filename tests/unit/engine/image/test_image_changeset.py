"""What overlay has noted is told as Docker tells it, and makes a layer that does the same."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from image_archives import needs_root

from wherry.engine.image.changeset import Kind, changes, layer_archive
from wherry.engine.image.tar import TarReader
from wherry.engine.image.unpack import unpack

pytestmark = needs_root
A, C, D = Kind.ADDED, Kind.MODIFIED, Kind.DELETED


class Layers:
    """Two lower layers and an upper one, written as overlay would."""

    def __init__(self, root: Path) -> None:
        self.upper, self.top, self.bottom = (root / name for name in ("upper", "top", "bottom"))
        for directory in (self.upper, self.top, self.bottom):
            directory.mkdir()

    def changes(self) -> dict[str, Kind]:
        return {one.path: one.kind for one in changes(self.upper, [self.top, self.bottom])}

    def archive(self) -> tarfile.TarFile:
        return tarfile.open(fileobj=io.BytesIO(b"".join(layer_archive(self.upper))))


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(tmp_path)


def white_out(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, 0)


def opaque(path: Path) -> None:
    os.setxattr(path, "trusted.overlay.opaque", b"y")


def same_directory(*paths: Path) -> None:
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
    for path in paths:
        os.utime(path, (1, 1))


def test_what_is_new_is_added_and_its_directory_modified(layers: Layers) -> None:
    same_directory(layers.bottom / "d")
    (layers.upper / "d").mkdir()
    (layers.upper / "d/new").touch()
    (layers.upper / "n/sub").mkdir(parents=True)
    assert layers.changes() == {"/d": C, "/d/new": A, "/n": A, "/n/sub": A}


def test_a_directory_on_the_way_is_not_listed(layers: Layers) -> None:
    (layers.bottom / "a/b").mkdir(parents=True)
    (layers.bottom / "a/b/f").touch()
    (layers.upper / "a/b").mkdir(parents=True)
    (layers.upper / "a/b/f").write_text("x")
    for name in ("a/b", "a"):
        same_directory(layers.bottom / name, layers.upper / name)
    assert layers.changes() == {"/a/b/f": C}


def test_a_directory_with_another_mode_is_listed(layers: Layers) -> None:
    same_directory(layers.bottom / "a", layers.upper / "a")
    (layers.upper / "a").chmod(0o700)
    assert layers.changes() == {"/a": C}


def test_what_was_deleted_is_told_once(layers: Layers) -> None:
    (layers.bottom / "f").touch()
    white_out(layers.upper / "f")
    white_out(layers.upper / "never")
    assert layers.changes() == {"/f": D}


def test_what_the_lower_layers_hide_counts_as_absent(layers: Layers) -> None:
    (layers.bottom / "f").touch()
    white_out(layers.top / "f")
    (layers.upper / "f").touch()
    (layers.bottom / "d/x").mkdir(parents=True)
    (layers.top / "d").mkdir()
    opaque(layers.top / "d")
    (layers.upper / "d/x").mkdir(parents=True)
    assert layers.changes() == {"/f": A, "/d": C, "/d/x": A}


def test_a_directory_made_anew_is_compared_with_the_old_one(layers: Layers) -> None:
    (layers.bottom / "d").mkdir()
    for name in ("kept", "gone"):
        (layers.bottom / "d" / name).touch()
    (layers.upper / "d").mkdir()
    opaque(layers.upper / "d")
    (layers.upper / "d/kept").touch()
    (layers.upper / "d/new").touch()
    assert layers.changes() == {"/d": C, "/d/gone": D, "/d/kept": C, "/d/new": A}


def test_a_file_in_the_place_of_a_directory_is_one_change(layers: Layers) -> None:
    (layers.bottom / "d/x").mkdir(parents=True)
    (layers.upper / "d").touch()
    (layers.bottom / "e").touch()
    (layers.upper / "e/sub").mkdir(parents=True)
    assert layers.changes() == {"/d": C, "/e": C, "/e/sub": A}


def test_the_archive_has_whiteouts_and_opaque_marks(layers: Layers) -> None:
    (layers.upper / "d").mkdir()
    opaque(layers.upper / "d")
    white_out(layers.upper / "gone")
    (layers.upper / "d/f").write_text("data")
    os.link(layers.upper / "d/f", layers.upper / "d/hard")
    os.setxattr(layers.upper / "d/f", "user.note", b"kept")
    archive = layers.archive()
    assert set(archive.getnames()) == {"d", "d/.wh..wh..opq", "d/f", "d/hard", ".wh.gone"}
    assert archive.getmember("d/hard").linkname == "d/f"
    assert archive.getmember("d/f").pax_headers["SCHILY.xattr.user.note"] == "kept"


def test_nothing_changed_is_an_empty_archive(layers: Layers) -> None:
    assert b"".join(layer_archive(layers.upper)) == bytes(1024)


def test_the_archive_unpacks_to_the_same_layer(layers: Layers, tmp_path: Path) -> None:
    (layers.bottom / "d").mkdir()
    (layers.upper / "d").mkdir(mode=0o1777)
    opaque(layers.upper / "d")
    white_out(layers.upper / "w")
    (layers.upper / "s").symlink_to("d/f")
    os.mkfifo(layers.upper / "p")
    with (layers.upper / "holes").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"data")
    (layers.upper / "d/f").write_bytes(b"x" * 3000)
    (layers.upper / "d/f").chmod(0o4755)
    data = b"".join(layer_archive(layers.upper))
    assert len(data) < 1 << 20
    (tmp_path / "again").mkdir()
    unpack(TarReader(io.BytesIO(data)), tmp_path / "again", [layers.bottom])
    assert b"".join(layer_archive(tmp_path / "again")) == data
    assert (tmp_path / "again/holes").stat().st_size == 64 << 20
