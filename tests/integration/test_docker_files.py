"""Files in and out of containers with the real client: cp, diff, export, import, commit."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
import time
from pathlib import Path

import pytest
from docker_harness import Daemon

pytest_plugins = ("docker_fixtures",)


def archive(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def run(engine: Daemon, name: str, *options: str, command: str = "sleep 600") -> None:
    engine.docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c", command)


@pytest.fixture
def made(engine: Daemon) -> Daemon:
    """Container ``box`` that has made a few files and runs."""
    run(
        engine,
        "box",
        command="mkdir -p /d/sub; echo one >/d/one; echo two >/d/sub/two; ln -s one /d/link;"
        " ln -s /d /dir; touch /ready; sleep 600",
    )
    engine.docker("exec", "box", "sh", "-c", "until [ -e /ready ]; do :; done")
    return engine


@pytest.mark.parametrize("state", ["running", "stopped", "paused"])
def test_cp_out_takes_files_and_directories(made: Daemon, tmp_path: Path, state: str) -> None:
    if state == "stopped":
        made.docker("stop", "-t", "0", "box")
    elif state == "paused":
        made.docker("pause", "box")
    made.docker("cp", "box:/d/one", str(tmp_path))
    assert (tmp_path / "one").read_text() == "one\n"
    made.docker("cp", "box:/d/one", str(tmp_path / "other"))
    assert (tmp_path / "other").read_text() == "one\n"
    made.docker("cp", "box:/d", str(tmp_path))
    assert (tmp_path / "d/sub/two").read_text() == "two\n"
    assert (tmp_path / "d/link").readlink() == Path("one")
    made.docker("cp", "box:/d", str(tmp_path / "new"))
    assert (tmp_path / "new/one").exists()
    made.docker("cp", "box:/d/.", str(tmp_path / "new"))
    made.docker("cp", "box:dir/", str(tmp_path / "followed"))
    assert (tmp_path / "followed/one").exists()
    made.docker("cp", "-L", "box:/d/link", str(tmp_path / "real"))
    assert (tmp_path / "real").read_text() == "one\n" and not (tmp_path / "real").is_symlink()
    made.docker("cp", "box:/d/link", str(tmp_path))
    assert (tmp_path / "link").is_symlink()
    if state == "paused":
        made.docker("unpause", "box")


@pytest.mark.parametrize("state", ["running", "created"])
def test_cp_in_puts_files_and_directories(engine: Daemon, tmp_path: Path, state: str) -> None:
    verb = ("run", "-d") if state == "running" else ("create",)
    engine.docker(*verb, "--name", "box", "busybox", "sleep", "600")
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "dir/sub/deep").write_text("deep\n")
    os.link(tmp_path / "file", tmp_path / "dir/hard")
    engine.docker("cp", str(tmp_path / "file"), "box:/tmp")
    engine.docker("cp", str(tmp_path / "file"), "box:/tmp/renamed")
    engine.docker("cp", str(tmp_path / "dir"), "box:/tmp")
    engine.docker("cp", str(tmp_path / "dir"), "box:/tmp/newdir")
    engine.docker("cp", "-a", f"{tmp_path}/dir/.", "box:/root")
    engine.docker("cp", "-q", "-", "box:/tmp", input=archive(("piped/x", b"piped")))
    if state == "created":
        engine.docker("start", "box")
    shown = engine.docker(
        *("exec", "box", "cat", "/tmp/file", "/tmp/renamed", "/tmp/dir/sub/deep"),
        *("/tmp/newdir/sub/deep", "/root/sub/deep", "/root/hard", "/tmp/piped/x"),
    ).out
    assert shown == "text\ntext\ndeep\ndeep\ndeep\ntext\npiped"


def test_cp_to_a_stream_and_back(made: Daemon) -> None:
    data = made.docker("cp", "box:/d", "-").raw
    assert sorted(names(data)) == ["d", "d/link", "d/one", "d/sub", "d/sub/two"]
    made.docker("exec", "box", "mkdir", "/copy")
    made.docker("cp", "-", "box:/copy", input=data)
    assert made.docker("exec", "box", "cat", "/copy/d/sub/two").out == "two\n"


def test_cp_errors_are_dockers(made: Daemon, tmp_path: Path) -> None:
    def failure(*arguments: str, **options: bytes) -> str:
        result = made.docker("cp", *arguments, ok=False, **options)
        assert result.code == 1
        return result.err.strip()

    assert failure("box:/absent", str(tmp_path)) == (
        "Error response from daemon: Could not find the file /absent in container box"
    )
    assert "No such container: nobody" in failure("nobody:/x", str(tmp_path))
    assert "not a directory" in failure("box:/d/one/", str(tmp_path))
    (tmp_path / "f").write_text("")
    (tmp_path / "e").mkdir()
    assert "no such directory" in failure(str(tmp_path / "f"), "box:/absent/")
    assert "cannot copy directory" in failure(str(tmp_path / "e"), "box:/d/one")
    assert failure("-", "box:/d/one", input=archive(("x", b""))).endswith(
        'destination "box:/d/one" must be a directory'
    )
    answer = made.request("PUT", "/containers/box/archive?path=/d/one", {})
    assert (answer.status, answer.body["message"]) == (400, "extraction point is not a directory")
    answer = made.request("PUT", "/containers/box/archive?path=/absent", {})
    assert (answer.status, answer.body["message"]) == (
        404,
        "Could not find the file /absent in container box",
    )
    assert made.request("GET", "/containers/box/archive").status == 400


def test_cp_sees_volumes_as_the_container_does(engine: Daemon, tmp_path: Path) -> None:
    (tmp_path / "rw").mkdir()
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro/there").write_text("seen\n")
    options = ("-v", f"{tmp_path}/rw:/rw", "-v", f"{tmp_path}/ro:/ro:ro", "--tmpfs", "/t")
    run(engine, "box", *options, command="echo hi >/t/tmp; touch /ready; sleep 600")
    engine.docker("exec", "box", "sh", "-c", "until [ -e /ready ]; do :; done")
    assert engine.docker("cp", "box:/t/tmp", "-").raw
    for _ in range(2):  # running, then stopped
        assert b"seen" in engine.docker("cp", "box:/ro/there", "-").raw
        engine.docker("cp", "-", "box:/rw", input=archive(("new", b"data")))
        assert (tmp_path / "rw/new").read_bytes() == b"data"
        (tmp_path / "rw/new").unlink()
        refused = engine.docker("cp", "-", "box:/ro", input=archive(("new", b"")), ok=False)
        assert "mounted volume is marked read-only" in refused.err
        engine.docker("stop", "-t", "0", "box")
    assert b"localhost" in engine.docker("cp", "box:/etc/hosts", "-").raw


def test_cp_into_a_read_only_root_is_refused(engine: Daemon) -> None:
    run(engine, "box", "--read-only", "--tmpfs", "/tmp")
    refused = engine.docker("cp", "-", "box:/etc", input=archive(("x", b"")), ok=False)
    assert "container rootfs is marked read-only" in refused.err
    engine.docker("cp", "-", "box:/tmp", input=archive(("x", b"in tmpfs")))
    assert engine.docker("exec", "box", "cat", "/tmp/x").out == "in tmpfs"


def test_links_of_a_container_lead_nowhere_else(made: Daemon, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    made.docker("exec", "box", "ln", "-s", f"{tmp_path}/secret", "/evil")
    made.docker("exec", "box", "ln", "-s", str(tmp_path), "/evildir")
    made.docker("exec", "box", "ln", "-s", "../../../../../../../../etc", "/up")
    assert made.docker("cp", "-L", "box:/evil", "-", ok=False).code == 1
    assert made.docker("cp", "box:/evildir/secret", "-", ok=False).code == 1
    made.docker("cp", "-", "box:/up", input=archive(("planted", b"x")))
    assert not Path("/etc/planted").exists()
    assert made.docker("exec", "box", "cat", "/etc/planted").out == "x"
    result = made.docker("cp", "-", "box:/tmp", input=archive(("../../x", b"")), ok=False)
    assert result.code == 1


def test_the_stat_header_tells_of_a_path(made: Daemon) -> None:
    def stat(path: str) -> dict[str, object]:
        answer = made.request("HEAD", f"/containers/box/archive?path={path}")
        assert answer.status == 200
        encoded = answer.headers["X-Docker-Container-Path-Stat"]
        document: dict[str, object] = json.loads(base64.b64decode(encoded))
        return document

    assert set(stat("/d/one")) == {"name", "size", "mode", "mtime", "linkTarget"}
    assert (stat("/d/one")["size"], stat("/d/one")["mode"]) == (4, 0o644)
    assert stat("/d/")["name"] == "d" and stat("/d/.")["name"] == "." and stat("/")["name"] == "/"
    assert stat("/tmp")["mode"] == 1 << 31 | 1 << 20 | 0o777
    link = stat("/d/link")
    assert (link["linkTarget"], link["mode"]) == ("/d/one", 1 << 27 | 0o777)
    assert made.request("HEAD", "/containers/box/archive?path=/no").status == 404


def test_diff_lists_real_changes(engine: Daemon, tmp_path: Path) -> None:
    run(
        engine,
        "box",
        *("-v", f"{tmp_path}:/data"),
        command="rm /etc/group; echo x >>/etc/passwd; mkdir -p /new/sub; touch /root/f /ready;"
        "sleep 600",
    )
    engine.docker("exec", "box", "sh", "-c", "until [ -e /ready ]; do :; done")
    expected = [
        *("A /data", "C /etc", "D /etc/group", "C /etc/passwd", "A /new", "A /new/sub"),
        *("A /ready", "C /root", "A /root/f"),
    ]
    assert sorted(engine.docker("diff", "box").out.splitlines()) == sorted(expected)
    engine.docker("stop", "-t", "0", "box")
    assert sorted(engine.docker("diff", "box").out.splitlines()) == sorted(expected)
    engine.docker("create", "--name", "fresh", "busybox")
    assert engine.docker("diff", "fresh").out == ""
    assert engine.request("GET", "/containers/fresh/changes").body is None


def test_a_directory_made_anew_shows_what_went(engine: Daemon) -> None:
    engine.docker("run", "--name", "one", "busybox", "sh", "-c", "mkdir /d; touch /d/x /d/y")
    engine.docker("commit", "one", "anew:1")
    engine.docker(
        "run", "--name", "two", "anew:1", "sh", "-c", "rm -r /d; mkdir /d; touch /d/x /d/z"
    )
    assert engine.docker("diff", "two").out.splitlines() == [
        *("C /d", "C /d/x", "D /d/y", "A /d/z"),
    ]
    engine.docker("commit", "two", "anew:2")
    shown = engine.docker("run", "--rm", "anew:2", "ls", "/d").out.split()
    assert shown == ["x", "z"]


def test_export_and_import_keep_everything(made: Daemon) -> None:
    exported = made.docker("export", "box").raw
    members = names(exported)
    assert {"d/one", "d/sub/two", "bin/busybox", ".dockerenv", "etc/hosts"} <= set(members)
    assert not any(name.startswith(("./", "/")) for name in members)
    made.docker(
        *("import", "-c", "CMD cat /d/one", "-c", "ENV A=1 B=2", "-m", "from a test"),
        *("--platform", "linux/amd64", "-", "round:trip"),
        input=exported,
    )
    assert made.docker("run", "--rm", "round:trip").out == "one\n"
    image = json.loads(made.docker("image", "inspect", "round:trip").out)[0]
    assert image["Config"]["Env"] == ["A=1", "B=2"] and image["Comment"] == "from a test"
    refused = made.docker("import", "-c", "RUN true", "-", "x", input=exported, ok=False)
    assert "run is not a valid change command" in refused.err


def test_the_working_directory_is_there_before_the_first_start(
    engine: Daemon, tmp_path: Path
) -> None:
    engine.docker("create", "--name", "box", "-w", "/deep/down", "busybox", "cat", "note")
    (tmp_path / "note").write_text("copied\n")
    engine.docker("cp", str(tmp_path / "note"), "box:/deep/down")
    assert engine.docker("start", "-a", "box").out == "copied\n"
    refused = engine.docker("create", "-w", "/etc/passwd", "busybox", ok=False)
    assert "failed to create working directory /etc/passwd: not a directory" in refused.err
    assert engine.docker("ps", "-aq").out.count("\n") == 1


def test_commit_makes_an_image_of_the_changes(made: Daemon) -> None:
    identity = made.docker(
        *("commit", "-a", "Jane <jane@x>", "-m", "a comment", "-c", "CMD cat /d/one"),
        *("-c", "LABEL by=test", "-c", "ENV X=1", "box", "made:1"),
    ).out.strip()
    assert made.docker("run", "--rm", "made:1").out == "one\n"
    image = json.loads(made.docker("image", "inspect", "made:1").out)[0]
    assert image["Id"] == identity
    assert (image["Author"], image["Comment"]) == ("Jane <jane@x>", "a comment")
    assert image["Config"]["Labels"] == {"by": "test"}
    assert image["Config"]["Cmd"] == ["/bin/sh", "-c", "cat /d/one"]
    assert "X=1" in image["Config"]["Env"]
    old = made.request("GET", "/v1.44/images/made:1/json").body
    assert old["ContainerConfig"]["Image"] == "busybox"
    base = json.loads(made.docker("image", "inspect", "busybox").out)[0]
    assert image["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    history = made.docker("history", "--no-trunc", "made:1").out
    assert "a comment" in history and "sleep 600" in history
    assert made.inspect("box", "{{.State.Status}}") == "running"
    old = made.request("GET", "/v1.44/images/made:1/json").body
    assert old["ContainerConfig"]["Image"] == "busybox"
    assert old["Container"] == made.inspect("box", "{{.Id}}")
    made.docker("rmi", "-f", "made:1")


def test_commit_hides_what_was_deleted(engine: Daemon) -> None:
    engine.docker("run", "--name", "box", "busybox", "sh", "-c", "rm /etc/group; rm -r /tmp")
    engine.docker("commit", "box", "less")
    shown = engine.docker("run", "--rm", "less", "sh", "-c", "ls /; ls /etc").out.split()
    assert "tmp" not in shown and "group" not in shown and "passwd" in shown


def test_commit_without_changes_adds_no_layer(engine: Daemon) -> None:
    engine.docker("create", "--name", "box", "busybox")
    engine.docker("commit", "box", "same")
    layers = "{{len .RootFS.Layers}}"
    counts = {engine.docker("image", "inspect", "-f", layers, i).out for i in ("busybox", "same")}
    assert len(counts) == 1


def test_commit_tells_an_event(engine: Daemon) -> None:
    engine.docker("create", "--name", "box", "busybox")
    identity = engine.docker("commit", "-m", "why", "box", "told").out.strip()
    events = engine.docker(
        *(
            "events",
            "--since",
            "5m",
            "--until",
            str(int(time.time()) + 1),
            "--filter",
            "event=commit",
        ),
        *("--format", "{{json .Actor.Attributes}}"),
    ).out.splitlines()
    attributes = json.loads(events[-1])
    assert attributes["imageID"] == identity and attributes["comment"] == "why"
    assert attributes["imageRef"] == "docker.io/library/told:latest"


def test_nothing_of_a_view_stays_mounted(made: Daemon) -> None:
    before = made.holdings()["mounts"]
    made.docker("cp", "box:/d", "-")
    assert made.holdings()["mounts"] == before
    made.docker("stop", "-t", "0", "box")
    assert made.holdings()["mounts"] == []
    made.docker("cp", "box:/d", "-")
    made.docker("export", "box")
    assert made.holdings()["mounts"] == []
