"""The Docker API on TCP with mutual TLS, used by the real client."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Instance
from docker_fixtures import daemon, engine  # noqa: F401
from docker_harness import Daemon, Terminal

from ports import free_port
from wherry.launcher.pki import Authority


@pytest.fixture(scope="module")
def tls(daemon: Daemon) -> Iterator[Daemon]:  # noqa: F811
    """The module's engine, started again with a TCP address, and clients that use it."""
    keys = daemon.root / "pki"
    keys.mkdir()
    authority = Authority(keys, "docker")
    authority.issue_server("server", "docker", names=["localhost"], addresses=["127.0.0.1"])
    authority.issue_client("client", "client", "")
    for name, file in (("ca", "ca.crt"), ("cert", "client.crt"), ("key", "client.key")):
        (keys / f"{name}.pem").write_bytes((keys / file).read_bytes())
    port = free_port()
    daemon.stop()
    daemon.extra = [
        *("--host", f"tcp://127.0.0.1:{port}", "--tlscacert", str(keys / "ca.crt")),
        *("--tlscert", str(keys / "server.crt"), "--tlskey", str(keys / "server.key")),
    ]
    daemon.client_extra = {
        "DOCKER_HOST": f"tcp://127.0.0.1:{port}",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(keys),
    }
    daemon.start()
    yield daemon
    daemon.remove_all()
    daemon.client_extra = {}


def test_the_client_runs_containers(tls: Daemon) -> None:
    assert tls.docker("run", "--rm", "busybox", "echo", "hello").out == "hello\n"
    assert tls.docker("version", "-f", "{{.Server.APIVersion}}").out.strip()


def test_the_end_of_input_is_not_the_end_of_output(tls: Daemon) -> None:
    data = os.urandom(4 << 20)
    done = tls.docker("run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end", input=data)
    assert done.raw == data + b"end\n"
    counted = tls.docker("run", "--rm", "-i", "busybox", "sha256sum", input=data)
    assert counted.out.endswith("  -\n")


def test_terminals_and_execs_work(tls: Daemon) -> None:
    tls.docker("run", "-d", "--name", "target", "busybox", "sleep", "600")
    assert tls.docker("exec", "-i", "target", "cat", input=b"through").out == "through"
    assert tls.docker("exec", "target", "sh", "-c", "exit 7", ok=False).code == 7
    terminal = Terminal(tls, "exec", "-it", "target", "sh")
    terminal.until(r"[#$] ")
    terminal.type(b"echo $((40+2))\n")
    terminal.until(r"\n42")
    terminal.type(b"exit 3\n")
    assert terminal.client.wait(60) == 3


def test_nobody_enters_without_a_certificate(tls: Daemon, tmp_path: Path) -> None:
    host = tls.client_extra["DOCKER_HOST"]
    ca = Path(tls.client_extra["DOCKER_CERT_PATH"], "ca.pem")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}

    def refused(*options: str) -> str:
        done = subprocess.run(
            ["docker", "-H", host, *options, "ps"],
            env=environment | {"DOCKER_CONFIG": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        return done.stderr

    assert "Client sent an HTTP request to an HTTPS server" in refused()
    assert "certificate required" in refused("--tlsverify", "--tlscacert", str(ca))
    # A certificate of another authority is none.
    other = Authority(tmp_path, "other")
    other.issue_client("client", "client", "")
    assert "certificate" in refused(
        *("--tlsverify", "--tlscacert", str(ca)),
        *("--tlscert", str(tmp_path / "client.crt"), "--tlskey", str(tmp_path / "client.key")),
    )


def test_renewed_keys_are_taken_up_on_sighup(tls: Daemon) -> None:
    keys = Path(tls.client_extra["DOCKER_CERT_PATH"])

    def serial() -> str:
        context = ssl.create_default_context(cafile=keys / "ca.pem")
        context.load_cert_chain(keys / "cert.pem", keys / "key.pem")
        address = tls.client_extra["DOCKER_HOST"].removeprefix("tcp://").split(":")
        with (
            socket.create_connection((address[0], int(address[1]))) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            return str(client.getpeercert()["serialNumber"])  # type: ignore[index]

    before = serial()
    Authority(keys, "docker").issue_server(
        "server", "docker", names=["localhost"], addresses=["127.0.0.1"]
    )
    with tls.spawn("events", "--filter", "type=daemon", "--format", "{{.Action}}") as listener:
        assert listener.stdout is not None
        while tls.inspect_info("{{.NEventsListener}}") == "0":
            pass
        tls.hang_up()
        assert listener.stdout.readline() == b"reload\n"
        listener.terminate()
    assert serial() != before


def test_up_serves_tcp_where_it_is_told_to(new_instance: Callable[[], Instance]) -> None:
    instance = new_instance()
    port = free_port()
    instance.wherry("up", "--docker-tcp", f"127.0.0.1:{port}")
    assert f"tcp://127.0.0.1:{port}" in instance.wherry("status").out
    environment = dict(instance.environment)
    for line in instance.wherry("env", "--tcp").out.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        environment[name] = value
    assert environment["DOCKER_HOST"] == f"tcp://127.0.0.1:{port}"

    def ps() -> int:
        return subprocess.run(["docker", "ps"], env=environment, capture_output=True).returncode

    assert ps() == 0
    refused = instance.wherry("up", "--docker-tcp", "off", ok=False)
    assert "the engine runs already" in refused.err
    instance.wherry("down")
    instance.wherry("up")  # it is kept
    assert ps() == 0
    instance.wherry("down")
    instance.wherry("up", "--docker-tcp", "off")
    assert ps() != 0
    assert "turns it on" in instance.wherry("env", "--tcp", ok=False).err
    instance.wherry("down", "--purge")
