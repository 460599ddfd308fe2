"""A course's first part, command by command: containers in practice, volumes, all the commands.

Instead of the images that it pulls there are ones made here: ``ubuntu`` has a ``/bin/bash``,
``nginx`` an entrypoint and a web server on port 80. What the course does with images and
Dockerfiles is tested elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_fixtures import daemon, engine  # noqa: F401
from docker_harness import Daemon, Terminal, busybox_archive, until

from ports import free_port

_SAY_HELLO = ("/bin/bash", "-c", "while true;do echo hello world;sleep 1; done")


@pytest.fixture(scope="module")
def images(daemon: Daemon) -> Daemon:  # noqa: F811
    """The engine with ubuntu and nginx in it."""
    ubuntu = _with_files(
        {
            "bin/bash": b'#!/bin/busybox sh\nexec /bin/busybox sh "$@"\n',
            "var/log/": b"",
            "usr/share/nginx/html/index.html": b"welcome\n",
            "usr/share/nginx/html/50x.html": b"sorry\n",
            "docker-entrypoint.sh": b'#!/bin/sh\nexec "$@"\n',
        }
    )
    daemon.docker("import", "-c", 'CMD ["/bin/bash"]', "-", "ubuntu", input=ubuntu)
    changes = [
        'ENTRYPOINT ["/docker-entrypoint.sh"]',
        'CMD ["httpd", "-f", "-h", "/usr/share/nginx/html"]',
        "EXPOSE 80",
    ]
    options = [word for change in changes for word in ("-c", change)]
    daemon.docker("import", *options, "-", "nginx", input=ubuntu)
    return daemon


def _with_files(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO(busybox_archive())
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mode, info.size = 0o755, len(data)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def docker(images: Daemon) -> Iterator[Daemon]:
    images.remove_all()
    yield images
    images.remove_all()


def test_the_first_container(docker: Daemon) -> None:
    shell = Terminal(docker, "run", "-it", "ubuntu", "/bin/bash")
    shell.until(r"[#$] ")
    short = docker.docker("ps", "-q").out.strip()
    shell.type(b"hostname\n")
    shell.until(rf"\n{short}")
    shell.type(b"cat /etc/hosts\n")
    shell.until(rf"127\.0\.0\.1\tlocalhost[\s\S]*ip6-allrouters[\s\S]*172\.\d+\.\d+\.\d+\t{short}")
    shell.type(b"ps\n")
    shell.until(r"PID[\s\S]*\n\s+1 root")
    shell.type(b"exit\n")
    assert shell.client.wait(60) == 0
    listed = docker.docker("ps", "-a", "--format", "{{.ID}} {{.Command}} {{.Status}}").out
    assert re.match(rf'{short} "/bin/bash" Exited \(0\) .* ago', listed)


def test_names_restarts_and_attaching(docker: Daemon) -> None:
    first = Terminal(docker, "run", "--name", "bob_the_container", "-it", "ubuntu", "/bin/bash")
    first.until(r"[#$] ")
    again = docker.docker("run", "--name", "bob_the_container", "ubuntu", ok=False)
    assert again.code == 125
    assert 'The container name "/bob_the_container" is already in use by container' in again.err
    bad = docker.docker("create", "--name", "bob/1", "ubuntu", ok=False)
    assert "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed" in bad.err
    first.type(b"exit\n")
    assert first.client.wait(60) == 0

    assert docker.docker("start", "bob_the_container").out == "bob_the_container\n"
    identity = docker.inspect("bob_the_container", "{{.Id}}")[:17]
    assert docker.docker("restart", "-t", "0", identity).out == f"{identity}\n"
    attached = Terminal(docker, "attach", "bob_the_container")
    attached.type(b"echo $((6*7))\n")
    attached.until(r"\n42")
    attached.type(b"exit\n")
    assert attached.client.wait(60) == 0

    ids = docker.docker("ps", "-aq").out.split()
    assert docker.docker("rm", *ids).out.split() == ids
    assert docker.docker("ps", "-aq").out == ""


def test_a_daemon_and_its_logs(docker: Daemon) -> None:
    identity = docker.docker("run", "--name", "daemon_dave", "-d", "ubuntu", *_SAY_HELLO).out
    assert re.fullmatch(r"[0-9a-f]{64}\n", identity)
    follower = docker.spawn("logs", "-f", "daemon_dave")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"hello world\n"
    assert follower.stdout.readline() == b"hello world\n"
    follower.terminate()
    follower.wait(60)
    follower.stdout.close()
    assert docker.docker("logs", "daemon_dave").out.startswith("hello world\nhello world\n")

    header, *processes = docker.docker("top", "daemon_dave").out.splitlines()
    assert header.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert any("while true;do echo hello world;sleep 1; done" in line for line in processes)

    docker.docker("exec", "-d", "daemon_dave", "touch", "demo.txt")
    shell = Terminal(docker, "exec", "-it", "daemon_dave", "/bin/bash")
    shell.until(r"[#$] ")
    shell.type(b"until ls /demo.txt; do sleep 0.1; done\n")
    shell.until(r"\n/demo.txt")
    shell.type(b"exit\n")
    assert shell.client.wait(60) == 0

    shown = docker.inspect("daemon_dave")
    assert shown["Id"] == identity.strip()
    assert (shown["Path"], shown["Args"]) == (_SAY_HELLO[0], list(_SAY_HELLO[1:]))


def test_logs_that_go_to_syslog(docker: Daemon) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
        address = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        docker.docker(
            *("run", "--name", "daemon_dave", "--log-driver=syslog"),
            # Since the course was written dockerd keeps a copy that it can read.
            *("--log-opt", f"syslog-address={address}", "--log-opt", "cache-disabled=true"),
            *("-d", "nginx", *_SAY_HELLO),
        )
        message = receiver.recv(65536).decode()
        short = docker.docker("ps", "-q").out.strip()
        assert re.search(rf"{short}\[\d+\]: hello world", message), message
    refused = docker.docker("logs", "daemon_dave", ok=False)
    assert refused.err == (
        "Error response from daemon: configured logging driver does not support reading\n"
    )


def test_restarting_killing_stopping_and_removing(docker: Daemon) -> None:
    docker.docker("run", "--name", "daemon_dave", "-d", "--restart=always", "nginx", *_SAY_HELLO)
    assert docker.inspect("daemon_dave", "{{.HostConfig.RestartPolicy.Name}}") == "always"
    shown = docker.inspect("daemon_dave")
    assert shown["Path"] == "/docker-entrypoint.sh" and shown["Args"] == list(_SAY_HELLO)

    line = docker.docker("ps").out.splitlines()[1]
    assert re.search(
        r'nginx\s+"/docker-entrypoint.…"\s+.* ago\s+Up .*\s+80/tcp\s+daemon_dave', line
    )
    refused = docker.docker("rm", "daemon_dave", ok=False)
    assert refused.code == 1
    assert 'cannot remove container "/daemon_dave": container is running' in refused.err
    assert docker.docker("kill", "daemon_dave").out == "daemon_dave\n"
    assert "daemon_dave" not in docker.docker("ps").out
    listed = docker.docker("ps", "-a").out.splitlines()[1]
    assert re.search(r"Exited \(137\) .* ago\s+daemon_dave", listed)
    assert docker.docker("rm", "-f", "daemon_dave").out == "daemon_dave\n"

    docker.docker("run", "--name", "daemon_dave", "-d", "ubuntu", "sleep", "600")
    prefix = docker.docker("ps", "-q").out[:5]
    assert docker.docker("kill", prefix).out == f"{prefix}\n"
    docker.docker("start", "daemon_dave")
    assert docker.docker("stop", "-t", "1", "daemon_dave").out == "daemon_dave\n"


def test_create_pause_stats_copy_and_diff(docker: Daemon, tmp_path: Path) -> None:
    identity = docker.docker("create", "-it", "nginx", "bash").out.strip()
    short = identity[:3]
    shell = Terminal(docker, "start", "-i", short)
    shell.until(r"[#$] ")
    assert docker.docker("pause", short).out == f"{short}\n"
    assert "(Paused)" in docker.docker("ps").out
    assert docker.docker("unpause", short).out == f"{short}\n"
    header, line = docker.docker("stats", "--no-stream", short).out.splitlines()
    assert " ".join(header.split()) == (
        "CONTAINER ID NAME CPU % MEM USAGE / LIMIT MEM % NET I/O BLOCK I/O PIDS"
    )
    assert re.match(rf"{identity[:12]}\s+\S+\s+[\d.]+%\s+\S+ / \S+", line)

    demo = tmp_path / "demo.txt"
    demo.write_text("a demonstration\n")
    docker.docker("cp", str(demo), f"{short}:/root")
    docker.docker("cp", f"{short}:/root/demo.txt", str(tmp_path / "back.txt"))
    assert (tmp_path / "back.txt").read_text() == "a demonstration\n"
    stream = docker.docker("cp", f"{short}:/root/demo.txt", "-").raw
    with tarfile.open(fileobj=io.BytesIO(stream)) as copied:
        assert copied.getnames() == ["demo.txt"]
    assert docker.docker("diff", short).out == "C /root\nA /root/demo.txt\n"
    shell.type(b"exit\n")
    assert shell.client.wait(60) == 0


def test_ports(docker: Daemon) -> None:
    port = free_port()
    docker.docker("run", "-d", "-p", f"{port}:80", "--name", "static_web", "nginx")
    assert f"80/tcp -> 0.0.0.0:{port}" in docker.docker("port", "static_web").out
    assert f"0.0.0.0:{port}" in docker.docker("port", "static_web", "80").out

    def page() -> bytes:
        with (
            contextlib.suppress(OSError),  # until the server listens
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer,
        ):
            return bytes(answer.read())
        return b""

    assert until(page) == b"welcome\n"
    docker.docker("rm", "-f", "static_web")
    for option in (("-p", "80"), ("-P",)):
        docker.docker("run", "-d", *option, "--name", "static_web", "nginx")
        match = re.search(r"80/tcp -> 0\.0\.0\.0:(\d+)", docker.docker("port", "static_web").out)
        assert match and int(match[1]) >= 32768
        assert f":{match[1]}->80/tcp" in docker.docker("ps", "-l").out
        docker.docker("rm", "-f", "static_web")


def test_export_and_import(docker: Daemon, tmp_path: Path) -> None:
    docker.docker("run", "--name", "origin", "ubuntu", "sh", "-c", "echo kept > /root/file")
    archive = tmp_path / "ubuntu.tar"
    archive.write_bytes(docker.docker("export", "origin").raw)
    made = docker.docker("import", "-", "ubuntu:1.0.0", input=archive.read_bytes()).out
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", made)
    assert docker.docker("run", "--rm", "ubuntu:1.0.0", "cat", "/root/file").out == "kept\n"
    docker.docker("rmi", "ubuntu:1.0.0")


def test_commit(docker: Daemon) -> None:
    shell = Terminal(docker, "run", "-it", "ubuntu", "/bin/bash")
    shell.until(r"[#$] ")
    shell.type(b"echo apache > /usr/apache2; echo done$((1))\n")
    shell.until("done1")
    short = docker.docker("ps", "-q").out[:5]
    image = docker.docker("commit", "-a", "user", "-m", "commit info", short, "me/apache2:1.0.0")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", image.out)
    document = json.loads(docker.docker("inspect", image.out.strip()[7:28]).out)[0]
    assert document["RepoTags"] == ["me/apache2:1.0.0"]
    assert (document["Author"], document["Comment"]) == ("user", "commit info")
    assert docker.docker("run", "--rm", "me/apache2:1.0.0", "cat", "/usr/apache2").out == "apache\n"
    shell.type(b"exit\n")
    assert shell.client.wait(60) == 0
    docker.remove_all()
    docker.docker("rmi", "me/apache2:1.0.0")


def test_what_run_overrides(docker: Daemon) -> None:
    assert docker.docker("run", "--rm", "-w", "/var/log", "ubuntu", "pwd").out == "/var/log\n"
    shown = docker.docker("run", "--rm", "-e", "WEB_PORT=8008", "ubuntu", "env").out
    assert "WEB_PORT=8008" in shown.splitlines()
    assert docker.docker("run", "--rm", "--entrypoint", "echo", "nginx", "hi").out == "hi\n"


def test_binds_and_volumes(docker: Daemon, tmp_path: Path) -> None:
    target = tmp_path / "static_web" / "target"  # made where it is missing
    docker.docker("run", "-d", "-it", "--name", "devtest", "-v", f"{target}:/app", "nginx")
    assert target.is_dir()
    docker.docker("exec", "devtest", "touch", "/app/here")
    assert (target / "here").exists()
    docker.docker("rm", "-f", "devtest")
    missing = docker.docker(
        *("run", "--rm", "--mount", f"type=bind,source={tmp_path}/none,target=/app", "nginx"),
        ok=False,
    )
    assert "bind source path does not exist" in missing.err
    mount = f"type=bind,source={target},target=/app"
    assert docker.docker("run", "--rm", "--mount", mount, "nginx", "ls", "/app").out == "here\n"

    docker.docker("run", "-d", "-it", "--name", "devtest", "-v", "target:/app", "nginx")
    assert "target" in docker.docker("volume", "ls", "-q").out.split()
    docker.docker("rm", "-f", "devtest")

    assert docker.docker("volume", "create", "my-vol").out == "my-vol\n"
    shown = json.loads(docker.docker("volume", "inspect", "my-vol").out)[0]
    assert (shown["Name"], shown["Driver"], shown["Scope"]) == ("my-vol", "local", "local")
    docker.docker("run", "-d", "--name", "devtest", "--mount", "source=my-vol,target=/app", "nginx")
    busy = docker.docker("volume", "rm", "my-vol", ok=False)
    assert "volume is in use" in busy.err
    docker.docker("rm", "-f", "devtest")
    assert docker.docker("volume", "rm", "my-vol").out == "my-vol\n"

    mount = "source=nginx-vol,target=/usr/share/nginx/html"
    docker.docker("run", "-d", "--name", "nginxtest", "--mount", mount, "nginx")
    place = docker.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "nginx-vol").out.strip()
    assert sorted(p.name for p in Path(place).iterdir()) == ["50x.html", "index.html"]
    docker.docker("rm", "-f", "nginxtest")
    docker.docker("volume", "rm", "nginx-vol", "target")


def test_the_table_of_commands(docker: Daemon, tmp_path: Path) -> None:
    docker.docker("run", "-d", "--name", "test", "ubuntu", "sleep", "600")
    assert docker.docker("events", "--since=20150720", "--until=20150808").out == ""
    until = f"{time.time():.9f}"
    past = docker.docker("events", "--since=0", f"--until={until}", "-f", "container=test").out
    assert re.search(r"container create [0-9a-f]{64} \(image=ubuntu, name=test\)", past)
    assert re.search(r"container start [0-9a-f]{64} \(image=ubuntu, name=test\)", past)

    assert "Server:" in docker.docker("version").out
    information = docker.docker("info").out
    for line in (" Containers: 1", "  Running: 1", "  Paused: 0", "  Stopped: 0"):
        assert line in information.splitlines()
    assert "Storage Driver: overlay2" in information

    assert docker.docker("ps", "-a", "-q").out.strip()
    header, line = docker.docker("ps", "-as").out.splitlines()
    assert header.split()[-1] == "SIZE" and re.search(r"\(virtual [\d.]+MB\)$", line)
    assert "sleep 600" in docker.docker("top", "test", "-o", "pid,cmd").out
    identity = docker.docker("inspect", "-f", "{{.Id}}", "test").out.strip()
    assert len(identity) == 64
    address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    assert re.fullmatch(
        r"172\.\d+\.\d+\.\d+\n", docker.docker("inspect", "-f", address, "test").out
    )

    script = tmp_path / "local.sh"
    script.write_text("echo from the host\n")
    docker.docker("cp", str(script), f"{identity}:/tmp")
    assert docker.docker("exec", "test", "sh", "/tmp/local.sh").out == "from the host\n"
    assert "A /tmp/local.sh" in docker.docker("diff", "test").out.splitlines()

    for command in ("stop -t 0", "start", "restart -t 0", "pause", "unpause", "kill -s KILL"):
        assert docker.docker(*command.split(), "test").out == "test\n"
    docker.docker("run", "-d", "ubuntu", "sleep", "600")
    running = docker.docker("ps", "-q").out.split()
    assert docker.docker("stop", "-t", "0", *running).out.split() == running
    docker.docker("start", *running)
    assert docker.docker("kill", "-s", "KILL", *running).out.split() == running
    everything = docker.docker("ps", "-a", "-q").out.split()
    assert docker.docker("rm", *everything).out.split() == everything
