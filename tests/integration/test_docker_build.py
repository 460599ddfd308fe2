"""``docker build`` with the real client, which finds no BuildKit here and uses the classic API."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from docker_harness import Daemon, until

pytest_plugins = ("docker_fixtures",)


class Project:
    """A directory with a Dockerfile, and the client that builds it."""

    def __init__(self, engine: Daemon, root: Path) -> None:
        self.engine = engine
        self.root = root

    def file(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def build(self, dockerfile: str, *options: str, ok: bool = True, **more: Any) -> Any:
        self.file("Dockerfile", dockerfile)
        return self.engine.docker("build", *options, str(self.root), ok=ok, **more)

    def run(self, dockerfile: str, *command: str, options: tuple[str, ...] = ()) -> str:
        """What ``command`` prints in the image."""
        image = self.build(dockerfile, "-q", *options).out.strip()
        out: str = self.engine.docker("run", "--rm", image, *command).out
        return out

    def inspect(self, image: str, template: str) -> Any:
        shown = self.engine.docker("image", "inspect", "-f", f"{{{{json {template}}}}}", image).out
        return json.loads(shown)


@pytest.fixture
def project(engine: Daemon, tmp_path: Path) -> Project:
    return Project(engine, tmp_path / "project")


def masked(text: str) -> list[str]:
    return re.sub(r"\b[0-9a-f]{12}\b", "ID", text).splitlines()


def test_the_transcript_is_the_classic_builder_s(project: Project) -> None:
    dockerfile = "FROM busybox\nRUN echo hello >/file\nENV A=1\nEXPOSE 80\n"
    first = project.build(dockerfile, "-t", "static_web")
    assert masked(first.out)[-16:] == [
        *("Step 1/4 : FROM busybox", " ---> ID"),
        *("Step 2/4 : RUN echo hello >/file", " ---> Running in ID"),
        *("Removing intermediate container ID", " ---> ID"),
        *("Step 3/4 : ENV A=1", " ---> Running in ID"),
        *("Removing intermediate container ID", " ---> ID"),
        *("Step 4/4 : EXPOSE 80", " ---> Running in ID"),
        *("Removing intermediate container ID", " ---> ID"),
        *("Successfully built ID", "Successfully tagged static_web:latest"),
    ]
    again = project.build(dockerfile, "-t", "static_web")
    assert masked(again.out)[-13:] == [
        *("Step 1/4 : FROM busybox", " ---> ID"),
        *("Step 2/4 : RUN echo hello >/file", " ---> Using cache", " ---> ID"),
        *("Step 3/4 : ENV A=1", " ---> Using cache", " ---> ID"),
        *("Step 4/4 : EXPOSE 80", " ---> Using cache", " ---> ID"),
        *("Successfully built ID", "Successfully tagged static_web:latest"),
    ]
    built = re.findall(r"Successfully built (\w+)", first.out + again.out)
    assert built[0] == built[1]
    assert project.engine.docker("ps", "-aq").out == ""
    assert project.engine.docker("run", "--rm", "static_web", "cat", "/file").out == "hello\n"


def test_a_failing_step_leaves_the_last_good_image(project: Project) -> None:
    failed = project.build("FROM busybox\nRUN touch /good\nRUN echo oops >&2; exit 100", ok=False)
    assert failed.code == 100
    assert failed.err.rstrip().endswith(
        "The command '/bin/sh -c echo oops >&2; exit 100' returned a non-zero code: 100"
    )
    good = re.findall(r" ---> ([0-9a-f]{12})", failed.out)[-1]
    assert project.engine.docker("run", "--rm", good, "ls", "/good").out == "/good\n"


def test_the_cache_goes_by_content(project: Project) -> None:
    dockerfile = "FROM busybox\nCOPY f /f\nRUN cat /f"
    project.file("f", "one")
    assert "Using cache" not in project.build(dockerfile).out
    (project.root / "f").touch()
    os.utime(project.root / "f", (1, 1))
    assert project.build(dockerfile).out.count("Using cache") == 2
    project.file("f", "two")
    changed = project.build(dockerfile)
    assert "Using cache" not in changed.out and "two" in changed.out
    assert "Using cache" not in project.build(dockerfile, "--no-cache").out
    project.engine.stop()
    project.engine.start()
    assert project.build(dockerfile).out.count("Using cache") == 2


def test_copy_goes_where_docker_puts_it(project: Project) -> None:
    project.file("a.txt", "a")
    project.file("b.txt", "b", 0o755)
    project.file("d/sub/c", "c")
    (project.root / "d/link").symlink_to("sub/c")
    shown = project.run(
        "FROM busybox\nWORKDIR /w\nRUN ln -s /real /way && mkdir /real\n"
        "COPY a.txt renamed\nCOPY *.txt many/\nCOPY d /d\nCOPY d/sub /tmp\nCOPY a.txt /way/\n"
        'COPY --chown=web:log --chmod=640 a.txt /owned\nCOPY ["a.txt", "/with space"]\n'
        "COPY d/link /deref\nCOPY ./d/../a.txt .\nCOPY . /all",
        *("sh", "-c"),
        "cat renamed many/a.txt many/b.txt /d/sub/c /d/link /tmp/c /real/a.txt '/with space'"
        " /deref a.txt /all/d/sub/c; stat -c '%u:%g %a' /owned many/b.txt; readlink /d/link;"
        " stat -c %a /tmp; readlink /way",
    )
    assert shown == "aabcccaacac33:50 640\n0:0 755\nsub/c\n1777\n/real\n"


def test_a_file_that_fills_its_last_block_does_not_cut_off_what_follows(project: Project) -> None:
    for number, size in enumerate((511, 512, 0, 1024, 7)):
        project.file(f"d/{number}", "x" * size)
    shown = project.run("FROM busybox\nCOPY d /d", "sh", "-c", "cd /d; stat -c '%n %s' *")
    assert shown == "0 511\n1 512\n2 0\n3 1024\n4 7\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "COPY nothing /",
            "COPY failed: file not found in build context or excluded by .dockerignore:"
            " stat nothing: file does not exist",
        ),
        ("COPY ../x /", "COPY failed: forbidden path outside the build context: ../x ()"),
        ("COPY *.none /", "COPY failed: no source files were specified"),
        (
            "COPY a b /c",
            "When using COPY with more than one source file, the destination must be a directory"
            " and end with a /",
        ),
        ("COPY http://x/y /", "COPY failed: source can't be a URL for COPY"),
        ("COPY --from=0 a /", "invalid from flag value 0: refers to current build stage"),
        ("COPY --chown=nobody2 a /", "no such user: nobody2"),
        ("FOO", "dockerfile parse error line 2: unknown instruction: FOO"),
        ("RUN --mount=type=x y", 'unsupported mount type "x"'),
        ("FROM $NONE", "base name ($NONE) should not be blank"),
        ("STOPSIGNAL NOPE", "invalid signal: NOPE"),
    ],
)
def test_errors_are_dockers(project: Project, line: str, message: str) -> None:
    project.file("a", "")
    project.file("b", "")
    failed = project.build(f"FROM busybox\n{line}", ok=False)
    assert failed.code == 1 and message in failed.err


def test_stages(project: Project) -> None:
    project.file("src", "source")
    done = project.build(
        "ARG BASE=busybox\nFROM $BASE AS build\nCOPY src /in\nRUN cp /in /out && chown 33:50 /out\n"
        "FROM busybox AS unused\nRUN false\n"
        "FROM ${BASE:-none}\nCOPY --from=build /out /here\nCOPY --from=0 /in /there\n"
        "COPY --from=busybox /etc/group /group\nCMD stat -c %u:%g /here /there",
        *("-t", "staged"),
    )
    assert "false" not in done.out
    assert project.engine.docker("run", "--rm", "staged").out == "33:50\n0:0\n"
    only = project.build((project.root / "Dockerfile").read_text(), "--target", "build", "-q")
    assert project.engine.docker("run", "--rm", only.out.strip(), "cat", "/out").out == "source"
    missing = project.build("FROM busybox", "--target", "no", ok=False)
    assert "failed to reach build target no in Dockerfile" in missing.err


def test_stages_that_do_not_depend_on_each_other_run_side_by_side(project: Project) -> None:
    # Each waits for what the other has written: one after the other they would wait for ever.
    wait = "until [ -e /c/{0} ]; do :; done"
    mount = "--mount=type=cache,id={0},target=/c"
    name = f"m{time.time_ns()}"
    project.build(
        f"FROM busybox AS a\nRUN {mount.format(name)} touch /c/a; {wait.format('b')}\n"
        f"FROM busybox AS b\nRUN {mount.format(name)} touch /c/b; {wait.format('a')}\n"
        "FROM busybox\nCOPY --from=a /etc/group /a\nCOPY --from=b /etc/group /b",
    )


def test_arguments_and_variables(project: Project) -> None:
    shown = project.run(
        "ARG OUT=outer\nFROM busybox\nARG OUT\nARG GIVEN=default\nARG NONE\nARG D=${GIVEN}x\n"
        "ENV E=$GIVEN F=${NONE:-fallback} GIVEN2=${GIVEN#g}\nENV OUT2=$OUT\n"
        "RUN echo $GIVEN $D $OUT ${NONE:-none} $E $F $GIVEN2 >/said\nCMD cat /said; echo $GIVEN-$E",
        options=("--build-arg", "GIVEN=given", "--build-arg", "HTTP_PROXY=http://x"),
    )
    assert shown == "given givenx outer none given fallback iven\n-given\n"
    warned = project.build("FROM busybox", "--build-arg", "what=1")
    assert "[Warning] One or more build-args [what] were not consumed" in warned.out


def test_settings_reach_the_image(project: Project) -> None:
    image = project.build(
        "FROM busybox\nMAINTAINER me\nLABEL a=1\nENV P=/p\nWORKDIR $P\nWORKDIR sub\nUSER web\n"
        "VOLUME /v\nEXPOSE 80/udp\nSTOPSIGNAL SIGINT\nHEALTHCHECK --interval=3s CMD true\n"
        'SHELL ["/bin/sh", "-ec"]\nENTRYPOINT ["echo"]\nCMD ["x"]\nONBUILD RUN touch /built',
        *("-q", "--label", "b=2"),
    ).out.strip()
    config = project.inspect(image, ".Config")
    assert config["Labels"] == {"a": "1", "b": "2"}
    assert (config["WorkingDir"], config["User"]) == ("/p/sub", "web")
    assert config["Volumes"] == {"/v": {}} and config["ExposedPorts"] == {"80/udp": {}}
    assert (config["Entrypoint"], config["Cmd"]) == (["echo"], ["x"])
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 3_000_000_000}
    assert config["OnBuild"] == ["RUN touch /built"] and config["StopSignal"] == "SIGINT"
    assert project.inspect(image, ".Author") == "me"
    assert any(one.startswith("PATH=") for one in config["Env"])
    history = project.engine.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    assert "/bin/sh -c #(nop) WORKDIR /p/sub" in history.out
    assert "/bin/sh -c #(nop)  MAINTAINER me" in history.out


def test_triggers_fire_once(project: Project) -> None:
    project.build("FROM busybox\nONBUILD ENV T=1\nONBUILD RUN echo $T >/t", "-t", "base:trigger")
    child = project.build("FROM base:trigger", "-t", "child:trigger")
    assert "# Executing 2 build triggers" in child.out
    assert project.engine.docker("run", "--rm", "child:trigger", "cat", "/t").out == "1\n"
    assert "Executing" not in project.build("FROM child:trigger\nRUN true").out
    assert not project.inspect("child:trigger", ".Config").get("OnBuild")


def test_add_unpacks_archives_and_fetches_urls(project: Project, http_files: Any) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("dir/inner")
        info.size, info.uid = 2, 7
        archive.addfile(info, io.BytesIO(b"hi"))
        link = tarfile.TarInfo("dir/hard")
        link.type, link.linkname = tarfile.LNKTYPE, "dir/inner"
        archive.addfile(link)
    project.root.mkdir()
    (project.root / "a.tar.gz").write_bytes(buffer.getvalue())
    project.file("plain", "plain")
    (http_files.root / "remote.txt").write_text("remote")
    checksum = "sha256:" + hashlib.sha256(b"remote").hexdigest()
    shown = project.run(
        "FROM busybox\nADD a.tar.gz /x/\nADD plain /x/\nCOPY a.tar.gz /packed\n"
        f"ADD {http_files.url}/remote.txt /got/\nADD --checksum={checksum}"
        f" {http_files.url}/remote.txt /named",
        *("sh", "-c"),
        "cat /x/dir/inner /x/dir/hard /x/plain /got/remote.txt /named;"
        " stat -c ' %u %a' /x/dir/inner /got/remote.txt; ls /packed",
    )
    assert shown == "hihiplainremoteremote 7 644\n 0 600\n/packed\n"
    wrong = project.build(
        f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {http_files.url}/remote.txt /x", ok=False
    )
    assert "digest mismatch" in wrong.err
    gone = project.build(f"FROM busybox\nADD {http_files.url}/none /x", ok=False)
    assert "404" in gone.err


def test_here_documents(project: Project) -> None:
    shown = project.run(
        "FROM busybox\nARG V=val\nRUN <<EOF\necho one >/one\necho $HOME >>/one\nEOF\n"
        "RUN cat <<A >/two && cat <<-'B' >>/two\nfrom a\nA\n\tfrom b $x\n\tB\n"
        "RUN <<'S'\n#!/bin/busybox sh\necho $0 >/three\nS\n"
        'COPY <<f <<"g" /dir/\nexpanded $V\nf\nliteral $V\ng\n',
        *("sh", "-c", "cat /one /two /three /dir/f /dir/g; ls /dev/pipes 2>&1; true"),
    )
    assert shown == (
        "one\n/root\nfrom a\nfrom b $x\n/dev/pipes/S\nexpanded val\nliteral $V\n"
        "ls: /dev/pipes: No such file or directory\n"
    )


def test_mounts_of_run(project: Project) -> None:
    project.file("in/file", "context")
    name = f"m{time.time_ns()}"
    dockerfile = (
        "FROM busybox AS other\nRUN echo other >/o\nFROM busybox\n"
        "RUN --mount=type=bind,source=in,target=/ctx"
        " --mount=from=other,source=/o,target=/o cat /ctx/file /o >/seen\n"
        f"RUN --mount=type=cache,id={name},target=/cache echo x >>/cache/f; wc -l </cache/f >/n\n"
        "RUN --mount=type=tmpfs,target=/scratch touch /scratch/f\n"
        "RUN --mount=type=secret,id=s,target=/sec ls /sec || true\n"
    )
    assert project.run(dockerfile, "sh", "-c", "cat /seen /n; ls /") == (
        "contextother\n1\nbin\ndev\netc\nn\nproc\nroot\nseen\nsys\ntmp\n"
    )
    again = project.run(dockerfile, "cat", "/n", options=("--no-cache",))
    assert again == "2\n"


def test_an_ignore_file_keeps_files_out(project: Project) -> None:
    for name in ("keep.md", "drop.md", "d/x", "d/keep"):
        project.file(name, name)
    project.file(".dockerignore", "# no\n*.md\n!keep.md\nd/*\n!d/keep\nDockerfile\n.dockerignore\n")
    shown = project.run("FROM busybox\nCOPY . /c", "sh", "-c", "cd /c; find . -type f | sort")
    assert shown == "./d/keep\n./keep.md\n"


def test_contexts_from_elsewhere(engine: Daemon, tmp_path: Path, http_files: Any) -> None:
    def built(*arguments: str, **options: Any) -> str:
        image = engine.docker("build", "-q", *arguments, **options).out.strip()
        shown: str = engine.docker("run", "--rm", image, "cat", "/f").out
        return shown

    assert built("-", input=b"FROM busybox\nRUN echo stdin >/f") == "stdin\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for name, text in (("Other", b"FROM busybox\nCOPY g /f"), ("g", b"packed")):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    assert built("-f", "Other", "-", input=buffer.getvalue()) == "packed"
    (http_files.root / "c.tar.xz").write_bytes(buffer.getvalue())
    assert built("-f", "Other", f"{http_files.url}/c.tar.xz") == "packed"
    (http_files.root / "Dockerfile").write_text("FROM busybox\nRUN echo url >/f")
    assert built(f"{http_files.url}/Dockerfile") == "url\n"
    missing = engine.docker("build", "-f", "None", "-", input=buffer.getvalue(), ok=False)
    assert "Cannot locate specified Dockerfile: None" in missing.err


def test_a_repository_is_a_context(engine: Daemon, tmp_path: Path, http_files: Any) -> None:
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "Dockerfile").write_text("FROM busybox\nCOPY . /c\nCMD find /c -type f | sort")
    (work / "sub/Dockerfile").write_text("FROM busybox\nCMD echo sub")

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main")
        subprocess.run(["git", *who, *arguments], cwd=work, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("tag", "v1")
    (work / "later").write_text("")
    git("add", ".")
    git("commit", "-q", "-m", "second")
    git("clone", "-q", "--bare", ".", str(http_files.root / "repo.git"))
    subprocess.run(["git", "update-server-info"], cwd=http_files.root / "repo.git", check=True)
    url = f"{http_files.url}/repo.git"

    def printed(context: str) -> str:
        # The API fetches; the client would clone by itself.
        answer = engine.request("POST", f"/build?q=1&remote={quote(context, safe='')}")
        assert answer.status == 200, answer.body
        shown: str = engine.docker("run", "--rm", answer.body["stream"].strip()).out
        return shown

    assert printed(url) == "/c/Dockerfile\n/c/later\n/c/sub/Dockerfile\n"
    assert printed(f"{url}#v1") == "/c/Dockerfile\n/c/sub/Dockerfile\n"
    assert printed(f"{url}#main:sub") == "sub\n"
    answer = engine.request("POST", f"/build?remote={quote(url + '#nope', safe='')}")
    assert answer.status == 500 and "nope" in answer.body["message"]


def test_an_interrupted_client_stops_the_build(project: Project) -> None:
    project.file("Dockerfile", "FROM busybox\nRUN echo started; sleep 300")
    client = project.engine.spawn("build", "--force-rm", str(project.root))
    assert client.stdout is not None
    for line in client.stdout:
        if line.startswith(b"started"):
            break
    client.send_signal(signal.SIGINT)
    client.wait(60)
    deadline = time.monotonic() + 60
    while project.engine.docker("ps", "-aq").out:
        assert time.monotonic() < deadline
    until(lambda: not list((project.engine.data / "build/tmp").iterdir()))


def test_clients_that_leave_leave_nothing_behind(project: Project) -> None:
    engine = project.engine
    for number in range(16):
        text = f"FROM busybox\nRUN echo {number} >/a\nRUN echo b >/b\nRUN echo c >/c\n".encode()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            member = tarfile.TarInfo("Dockerfile")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
        context = archive.getvalue()
        head = "POST /v1.44/build?rm=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        head += "Content-Length: "
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(engine.socket))
            client.sendall(f"{head}{len(context)}\r\n\r\n".encode() + context)
            client.settimeout(0.02 * number)  # each leaves at another step
            with contextlib.suppress(OSError):
                while client.recv(65536):
                    pass
    deadline = time.monotonic() + 60
    while left := engine.docker("ps", "-a").out.splitlines()[1:]:
        assert time.monotonic() < deadline, left
    until(lambda: not list((engine.data / "build/tmp").iterdir()))
    assert engine.docker("run", "--rm", "busybox", "echo", "well").out == "well\n"


def test_docker_py_builds(project: Project) -> None:
    docker = pytest.importorskip("docker")
    client = docker.DockerClient(f"unix://{project.engine.socket}")
    project.file("Dockerfile", "FROM busybox\nRUN echo py >/f")
    image, logs = client.images.build(path=str(project.root), tag="by:py", rm=True)
    assert any("Successfully tagged by:py" in line.get("stream", "") for line in logs)
    assert client.containers.run(image, ["cat", "/f"], remove=True) == b"py\n"
    with pytest.raises(docker.errors.BuildError, match="returned a non-zero code: 3"):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 3"), rm=True, forcerm=True)
    with pytest.raises(docker.errors.APIError, match="unknown instruction"):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nFOO"))
    client.close()


def test_a_killed_engine_leaves_nothing_of_a_build(project: Project) -> None:
    engine = project.engine
    failed = project.build("FROM busybox\nRUN exit 9", ok=False)
    assert failed.code == 9
    kept = engine.docker("ps", "-aq").out.split()
    project.file("Dockerfile", "FROM busybox\nRUN echo started; sleep 300")
    client = engine.spawn("build", str(project.root))
    assert client.stdout is not None
    for line in client.stdout:
        if line.startswith(b"started"):
            break
    engine.kill()
    client.wait(60)
    engine.start()
    deadline = time.monotonic() + 60
    while engine.docker("ps", "-aq").out.split() != kept:
        assert time.monotonic() < deadline
    while list((engine.data / "build/tmp").iterdir()):
        assert time.monotonic() < deadline
