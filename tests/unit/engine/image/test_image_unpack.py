"""Layers unpack to what overlay expects, and whatever is in them, nothing outside changes."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from image_archives import Tar, needs_root

from wherry.engine.errors import BadParameter
from wherry.engine.image.merged import is_whiteout
from wherry.engine.image.tar import TarReader
from wherry.engine.image.unpack import clean, unpack


def apply(tar: Tar, root: Path, *lower: Path) -> tuple[int, int]:
    root.mkdir(exist_ok=True)
    return unpack(TarReader(io.BytesIO(tar.bytes())), root, lower)


def opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def test_files_have_content_mode_and_time(tmp_path: Path) -> None:
    tar = Tar().directory("d", mode=0o1777).add("d/f", b"hello", mode=0o4711)
    tar.symlink("l", "d/f").link("h", "d/f").add("p", type=tarfile.FIFOTYPE, mode=0o600)
    size, entries = apply(tar, tmp_path / "r")
    file = tmp_path / "r/d/f"
    assert (size, entries) == (5, 5)
    assert file.read_bytes() == b"hello"
    assert stat.S_IMODE(file.stat().st_mode) == 0o4711
    assert stat.S_IMODE((tmp_path / "r/d").stat().st_mode) == 0o1777
    assert file.stat().st_mtime_ns == 1_700_000_000 * 10**9
    assert (tmp_path / "r/d").stat().st_mtime_ns == 1_700_000_000 * 10**9
    assert (tmp_path / "r/l").readlink() == Path("d/f")
    assert file.stat().st_nlink == 2
    assert stat.S_ISFIFO((tmp_path / "r/p").stat().st_mode)


def test_the_root_directory_gets_its_own_entry(tmp_path: Path) -> None:
    apply(Tar().directory("./", mode=0o711).add("./f", b""), tmp_path / "r")
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o711
    assert (tmp_path / "r/f").exists()


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "../../../../../../tmp/evil"])
def test_a_name_that_leads_above_the_root_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadParameter, match="is outside of"):
        apply(Tar().add(name, b"x"), tmp_path / "r")
    assert not (tmp_path / "evil").exists()


def test_an_absolute_name_stays_inside(tmp_path: Path) -> None:
    apply(Tar().add(f"{tmp_path}/evil", b"x"), tmp_path / "r")
    assert not (tmp_path / "evil").exists()
    assert (tmp_path / "r" / str(tmp_path).lstrip("/") / "evil").exists()


@pytest.mark.parametrize("target", ["..", "../outside", "/", "{outside}"])
def test_a_symbolic_link_in_the_way_cannot_lead_outside(tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = target.replace("{outside}", str(outside))
    tar = Tar().symlink("way", link).add("way/evil", b"x").add("way/deep/evil", b"x")
    with contextlib.suppress(OSError):  # inside, the link may lead to nothing
        apply(tar, tmp_path / "r")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["outside", "r"]
    assert not list(outside.iterdir())


def test_a_symbolic_link_inside_is_followed_as_in_the_container(tmp_path: Path) -> None:
    tar = Tar().directory("usr/lib").symlink("lib", "/usr/lib").add("lib/x", b"x")
    apply(tar, tmp_path / "r")
    assert (tmp_path / "r/usr/lib/x").read_bytes() == b"x"


def test_a_file_is_never_written_through_a_symbolic_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    apply(Tar().symlink("f", str(victim)).add("f", b"evil"), tmp_path / "r")
    assert victim.read_text() == "safe"
    assert (tmp_path / "r/f").read_bytes() == b"evil"


@pytest.mark.parametrize("target", ["../victim", "/victim", "{victim}", "way/victim"])
def test_a_hard_link_cannot_reach_outside(tmp_path: Path, target: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    tar = Tar().symlink("way", "..").link("h", target.replace("{victim}", str(victim)))
    with pytest.raises((BadParameter, OSError)):
        apply(tar, tmp_path / "r")
    assert victim.stat().st_nlink == 1


def test_a_hard_link_to_a_symbolic_link_links_the_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    tar = Tar().symlink("s", str(victim)).link("h", "s").add("h", b"evil")
    apply(tar, tmp_path / "r")
    assert victim.read_text() == "safe"


def test_a_hard_link_to_a_lower_layer_brings_the_file_up(tmp_path: Path) -> None:
    apply(Tar().directory("d").add("d/f", b"below", mode=0o755), tmp_path / "low")
    apply(Tar().link("d/g", "d/f"), tmp_path / "r", tmp_path / "low")
    assert (tmp_path / "r/d/g").read_bytes() == b"below"
    assert (tmp_path / "r/d/g").samefile(tmp_path / "r/d/f")
    assert stat.S_IMODE((tmp_path / "r/d/g").stat().st_mode) == 0o755
    assert (tmp_path / "low/d/f").stat().st_nlink == 1


def test_a_whiteout_becomes_overlays_own(tmp_path: Path) -> None:
    apply(Tar().add("d/.wh.gone", b""), tmp_path / "r")
    assert is_whiteout((tmp_path / "r/d/gone").lstat())
    assert not (tmp_path / "r/d/.wh.gone").exists()


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh..."])
def test_a_whiteout_of_nothing_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadParameter, match="invalid whiteout"):
        apply(Tar().add(name, b""), tmp_path / "r")


@pytest.mark.parametrize("first", ["whiteout", "file"])
def test_what_the_layer_itself_has_wins_over_its_whiteout(tmp_path: Path, first: str) -> None:
    tar = Tar()
    if first == "whiteout":
        tar.add(".wh.f", b"").add("f", b"new")
    else:
        tar.add("f", b"new").add(".wh.f", b"")
    apply(tar, tmp_path / "r")
    assert (tmp_path / "r/f").read_bytes() == b"new"


@needs_root
@pytest.mark.parametrize("first", ["whiteout", "directory", "file in it"])
def test_a_directory_beside_its_whiteout_hides_what_is_below(tmp_path: Path, first: str) -> None:
    tar = Tar()
    match first:
        case "whiteout":
            tar.add(".wh.d", b"").directory("d").add("d/f", b"")
        case "directory":
            tar.directory("d").add(".wh.d", b"").add("d/f", b"")
        case _:
            tar.add(".wh.d", b"").add("d/f", b"")
    apply(tar, tmp_path / "r")
    assert opaque(tmp_path / "r/d")
    assert (tmp_path / "r/d/f").exists()


@needs_root
def test_an_opaque_marker_becomes_overlays_attribute(tmp_path: Path) -> None:
    apply(Tar().directory("d").add("d/.wh..wh..opq", b"").add("d/new", b""), tmp_path / "r")
    assert opaque(tmp_path / "r/d")
    assert [entry.name for entry in (tmp_path / "r/d").iterdir()] == ["new"]


def test_notes_of_aufs_are_left_out(tmp_path: Path) -> None:
    apply(Tar().add(".wh..wh.aufs", b"").directory(".wh..wh.plnk"), tmp_path / "r")
    assert not list((tmp_path / "r").iterdir())


def test_a_directory_that_is_not_listed_is_like_the_one_below(tmp_path: Path) -> None:
    apply(Tar().directory("tmp", mode=0o1777), tmp_path / "low")
    apply(Tar().add("tmp/f", b"").add("other/f", b""), tmp_path / "r", tmp_path / "low")
    assert stat.S_IMODE((tmp_path / "r/tmp").stat().st_mode) == 0o1777
    assert (tmp_path / "r/tmp").stat().st_mtime_ns == 1_700_000_000 * 10**9
    assert stat.S_IMODE((tmp_path / "r/other").stat().st_mode) == 0o755


def test_a_directory_whited_out_between_is_not_looked_through(tmp_path: Path) -> None:
    apply(Tar().directory("d", mode=0o700), tmp_path / "lowest")
    apply(Tar().add(".wh.d", b""), tmp_path / "low")
    apply(Tar().add("d/f", b""), tmp_path / "r", tmp_path / "low", tmp_path / "lowest")
    assert stat.S_IMODE((tmp_path / "r/d").stat().st_mode) == 0o755


def test_a_later_entry_replaces_an_earlier_of_another_kind(tmp_path: Path) -> None:
    tar = Tar().directory("a").add("a/f", b"").add("a", b"file now").symlink("b", "a")
    tar.directory("b").add("b/f", b"x").directory("b", mode=0o700)
    apply(tar, tmp_path / "r")
    assert (tmp_path / "r/a").read_bytes() == b"file now"
    assert (tmp_path / "r/b/f").read_bytes() == b"x"
    assert stat.S_IMODE((tmp_path / "r/b").stat().st_mode) == 0o700


def test_a_file_where_a_directory_is_needed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        apply(Tar().add("f", b"").add("f/g", b""), tmp_path / "r")


@needs_root
def test_owners_devices_and_capabilities_are_kept(tmp_path: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    headers = {"SCHILY.xattr.security.capability": capability.decode("latin-1")}
    tar = Tar().add("f", b"x", uid=1234, gid=5678, mode=0o6755, pax_headers=headers)
    tar.add("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    tar.add("s", type=tarfile.SYMTYPE, linkname="f", uid=99, gid=98)
    apply(tar, tmp_path / "r")
    status = (tmp_path / "r/f").stat()
    assert (status.st_uid, status.st_gid) == (1234, 5678)
    assert stat.S_IMODE(status.st_mode) == 0o6755
    assert os.getxattr(tmp_path / "r/f", "security.capability") == capability
    assert (tmp_path / "r/null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE((tmp_path / "r/null").stat().st_mode) == 0o666
    assert (tmp_path / "r/s").lstat().st_uid == 99


@needs_root
def test_overlays_own_attributes_are_not_taken_from_an_archive(tmp_path: Path) -> None:
    headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc"}
    apply(Tar().directory("d", pax_headers=headers), tmp_path / "r")
    assert os.listxattr(tmp_path / "r/d") == []


def test_names_are_cleaned_as_from_the_root() -> None:
    assert clean("./a//b/../c/") == ["a", "c"]
    assert clean("/") == []
    with pytest.raises(BadParameter):
        clean("a/../..")
