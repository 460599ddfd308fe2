"""COPY's layer is written straight from the context, over what the image's layers show."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from wherry.engine.build import copying, remote
from wherry.engine.build.copying import Chosen, Copying
from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.dockerfile.instructions import Copy, instruction
from wherry.engine.build.dockerfile.parser import parse
from wherry.engine.build.dockerfile.patterns import IgnoreFile
from wherry.engine.build.layer import Ownership
from wherry.engine.build.owners import find_owner
from wherry.engine.build.sources import Context, digest


def context(tmp_path: Path, *members: tuple[str, bytes | str], mtime: int = 0) -> Context:
    """A context of files (bytes) and symbolic links (text)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.mtime, info.uid = mtime, 1000
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return Context.receive(buffer, tmp_path)  # type: ignore[arg-type]


def copied(source: Context, line: str, lower: list[Path], tmp_path: Path) -> dict[str, str]:
    """The layer of a COPY: what each member is, or holds."""
    step = instruction(parse(line).nodes[0])
    assert isinstance(step, Copy)
    chosen = copying.choose(step, step.sources, source)
    copying.check("COPY", chosen, step.destination)
    whole = Copying(chosen, step.destination, Ownership(), step.exclude, step.parents)
    data = b"".join(copying.layer(whole, lower, 0, tmp_path))
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            assert (member.uid, member.gid) == (0, 0)
            file = archive.extractfile(member) if member.isreg() else None
            found[member.name] = file.read().decode() if file else member.linkname or "/"
    return found


FILES = (("a", b"A"), ("d/b", b"B"), ("d/e/c", b"C"), ("l", "d/b"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("COPY a /x", {"x": "A"}),
        ("COPY a /x/", {"x": "/", "x/a": "A"}),
        ("COPY a /etc", {"etc/a": "A"}),
        ("COPY a d/b /x/", {"x": "/", "x/a": "A", "x/b": "B"}),
        ("COPY d /x", {"x": "/", "x/b": "B", "x/e": "/", "x/e/c": "C"}),
        ("COPY d/* /x/", {"x": "/", "x/b": "B", "x/c": "C"}),
        ("COPY l /x", {"x": "B"}),
        ("COPY a /lib/f", {"usr/lib/f": "A"}),
        ("COPY a /deep/er/f", {"deep": "/", "deep/er": "/", "deep/er/f": "A"}),
        ("COPY --exclude=e d /x", {"x": "/", "x/b": "B"}),
        ("COPY --parents d/e/c /x/", {"x": "/", "x/d": "/", "x/d/e": "/", "x/d/e/c": "C"}),
    ],
)
def test_where_files_go(tmp_path: Path, line: str, expected: dict[str, str]) -> None:
    lower = tmp_path / "lower"
    (lower / "usr/lib").mkdir(parents=True)
    (lower / "etc").mkdir()
    (lower / "lib").symlink_to("usr/lib")
    assert copied(context(tmp_path, *FILES), line, [lower], tmp_path) == expected


def test_a_destination_that_is_a_file_takes_no_directory(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower/f").touch()
    with pytest.raises(DockerfileError, match="/f: not a directory"):
        copied(context(tmp_path, *FILES), "COPY d /f", [tmp_path / "lower"], tmp_path)


def test_names_that_lead_outside_stay_inside(tmp_path: Path) -> None:
    source = context(tmp_path, ("../../up", b"U"), ("/abs", b"R"), ("out", "/../../etc/passwd"))
    assert source.read("up") == b"U" and source.read("abs") == b"R"
    assert source.lookup("out") is None


def test_links_in_circles_lead_nowhere(tmp_path: Path) -> None:
    source = context(tmp_path, ("x", "y"), ("y", "x"))
    assert source.lookup("x") is None and list(source.items("x")) == []


def test_a_digest_is_of_content_and_not_of_times(tmp_path: Path) -> None:
    def of(*files: tuple[str, bytes | str], mtime: int = 0) -> str:
        return digest(context(tmp_path, *files, mtime=mtime), "", owners=False)

    assert of(*FILES) == of(*FILES, mtime=99)
    assert len({of(*FILES), of(("a", b"B")), of(("b", b"A")), of(("a", b"A"))}) == 4


def test_an_ignore_file_takes_files_away(tmp_path: Path) -> None:
    source = context(tmp_path, *FILES)
    source.without(IgnoreFile(["d", "!d/e/c"]))
    assert [item.path for item in source.items("")] == ["", "a", "d", "d/e", "d/e/c", "l"]


def test_an_archive_may_end_without_its_padding(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("f")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    cut = io.BytesIO(buffer.getvalue()[: 512 + 3])
    assert Context.receive(cut, tmp_path).read("f") == b"abc"  # type: ignore[arg-type]


def test_owners_are_those_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("web:x:33:7::/:\n")
    (tmp_path / "etc/group").write_text("web:x:34:\nlog:x:50:\n")
    layers = [tmp_path]
    owners = {text: find_owner(text, layers) for text in ("web", "web:log", "5", "5:6", "web:9")}
    assert owners == {
        "web": (33, 34),
        "web:log": (33, 50),
        "5": (5, 5),
        "5:6": (5, 6),
        "web:9": (33, 9),
    }
    with pytest.raises(DockerfileError, match="no such user: nobody"):
        find_owner("nobody", layers)
    os.replace(tmp_path / "etc/passwd", tmp_path / "real")
    (tmp_path / "etc/passwd").symlink_to("/etc/passwd")
    with pytest.raises(DockerfileError, match="no such user: root"):
        find_owner("root", layers)


def test_a_single_file_needs_no_directory(tmp_path: Path) -> None:
    step = instruction(parse("COPY <<f /x\nhi\nf").nodes[0])
    assert isinstance(step, Copy)
    (chosen,) = copying.choose(step, step.sources, None)
    assert isinstance(chosen, Chosen) and chosen.name == "f"


def test_of_a_huge_file_no_more_is_read_than_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = context(tmp_path, ("Dockerfile", b"x" * (3 << 20)))
    asked: list[int] = []
    usual = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: asked.append(n) or usual(fd, n, at))
    assert source.read("Dockerfile", 10) == b"x" * 10
    assert sum(asked) <= 1 << 20


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("Thu, 01 Jan 1970 00:01:00 GMT", 60), ("", 0), ("yesterday", 0), ("Thu, 99 Foo 1", 0)],
)
def test_a_date_that_makes_no_sense_is_none(text: str, seconds: int) -> None:
    assert remote._modified(text) == seconds
