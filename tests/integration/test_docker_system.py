"""The engine as a whole: info, version, events, disk usage, prune, filters, and odd requests."""

from __future__ import annotations

import http.client
import json
import socket
import stat
import subprocess
import sys
import time
from typing import Any

import pytest
from docker_fixtures import daemon, engine  # noqa: F401
from docker_harness import Daemon


def _events(engine: Daemon, *filters: str, since: float = 0) -> list[dict[str, Any]]:  # noqa: F811
    arguments = [word for text in filters for word in ("--filter", text)]
    shown = engine.docker(
        *("events", "--since", f"{since:.9f}", "--until", f"{time.time():.9f}"),
        *("--format", "{{json .}}", *arguments),
    )
    return [json.loads(line) for line in shown.out.splitlines()]


def test_the_socket_is_for_root_and_the_group(engine: Daemon) -> None:  # noqa: F811
    mode = engine.socket.stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660


def test_info_counts_and_describes(engine: Daemon) -> None:  # noqa: F811
    engine.docker("run", "-d", "--name", "up", "busybox", "sleep", "600")
    engine.docker("run", "-d", "--name", "frozen", "busybox", "sleep", "600")
    engine.docker("pause", "frozen")
    engine.docker("create", "--name", "new", "busybox")
    info = engine.request("GET", "/info").body
    counts = ("Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped", "Images")
    assert [info[name] for name in counts] == [3, 1, 1, 1, 1]
    assert info["Driver"] == "overlay2" and info["Swarm"]["LocalNodeState"] == "inactive"
    assert info["DefaultRuntime"] == "runc" and "runc" in info["Runtimes"]
    assert set(info["Plugins"]) == {"Volume", "Network", "Authorization", "Log"}
    assert "name=seccomp,profile=builtin" in info["SecurityOptions"]
    assert info["LiveRestoreEnabled"] is True and info["CgroupVersion"] in ("1", "2")
    old = engine.request("GET", "/v1.24/info").body
    assert old["ExecutionDriver"] == "<not supported>" and "seccomp" in old["SecurityOptions"]
    assert "Server:" in engine.docker("info").out


def test_version_and_ping(engine: Daemon) -> None:  # noqa: F811
    version = engine.request("GET", "/version").body
    assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.50", "1.24")
    assert version["Components"][0]["Name"] == "Engine"
    for method in ("GET", "HEAD"):
        ping = engine.request(method, "/_ping")
        assert ping.status == 200
        assert ping.headers["Api-Version"] == "1.50" and ping.headers["Swarm"] == "inactive"
        assert ping.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert ping.headers["Cache-Control"] == "no-cache, no-store, must-revalidate"


def test_events_tell_a_containers_life(engine: Daemon) -> None:  # noqa: F811
    since = time.time()
    engine.docker("run", "--name", "life", "-l", "k=v", "busybox", "sh", "-c", "exit 3", ok=False)
    engine.docker("rename", "life", "after")
    engine.docker("start", "after")
    engine.docker("wait", "after")
    engine.docker("rm", "after")
    events = _events(engine, "type=container", "label=k=v", since=since)
    assert [event["Action"] for event in events] == [
        *("create", "attach", "start", "die", "rename", "start", "die", "destroy")
    ]
    times = [event["timeNano"] for event in events]
    assert times == sorted(times) and all(e["time"] == e["timeNano"] // 10**9 for e in events)
    die = next(event for event in events if event["Action"] == "die")
    attributes = die["Actor"]["Attributes"]
    assert attributes["exitCode"] == "3" and int(attributes["execDuration"]) < 60
    assert (attributes["image"], attributes["k"]) == ("busybox", "v")
    assert (die["status"], die["id"], die["from"]) == ("die", die["Actor"]["ID"], "busybox")
    rename = next(event for event in events if event["Action"] == "rename")
    assert rename["Actor"]["Attributes"]["oldName"] == "/life"
    networks = _events(engine, "type=network", since=since)
    assert [event["Action"] for event in networks] == ["connect", "disconnect"] * 2
    assert networks[0]["Actor"]["Attributes"]["name"] == "bridge"
    assert _events(engine, "event=die", "container=after", since=since)[0]["Action"] == "die"
    assert _events(engine, "image=busybox", "event=destroy", since=since)
    assert _events(engine, "image=other", since=since) == []


def test_events_come_as_they_happen(engine: Daemon) -> None:  # noqa: F811
    listener = engine.spawn("events", "--filter", "event=kill", "--format", "{{.Action}} {{.ID}}")
    while engine.inspect_info("{{.NEventsListener}}") == "0":
        assert listener.poll() is None
    identity = engine.docker("run", "-d", "busybox", "sleep", "600").out.strip()
    engine.docker("kill", identity)
    assert listener.stdout is not None
    assert listener.stdout.readline().decode() == f"kill {identity}\n"
    listener.terminate()
    listener.wait(60)
    listener.stdout.close()


def test_events_until_a_moment_to_come_end_there(engine: Daemon) -> None:  # noqa: F811
    begun = time.time()
    engine.docker("events", "--until", f"{begun + 1:.9f}")
    assert time.time() >= begun + 1
    refused = engine.request("GET", "/events?since=20&until=10")
    assert refused.status == 400
    assert refused.body["message"] == "`since` time (20) cannot be after `until` time (10)"


def test_disk_usage(engine: Daemon) -> None:  # noqa: F811
    engine.docker("run", "--name", "writer", "busybox", "dd", "if=/dev/zero", "of=/f", "count=2048")
    document = engine.request("GET", "/system/df").body
    assert document["LayersSize"] == document["Images"][0]["Size"] > 0
    assert document["Images"][0]["Containers"] == 1
    assert document["Containers"][0]["SizeRw"] >= 1 << 20
    alone = engine.request("GET", "/system/df?type=volume").body
    assert alone["Images"] is None and alone["Containers"] is None and alone["Volumes"] is not None
    refused = engine.request("GET", "/system/df?type=moon")
    assert (refused.status, refused.body["message"]) == (400, "unknown object type: moon")
    rows = {
        line.split()[0]: line.split() for line in engine.docker("system", "df").out.splitlines()
    }
    assert rows["Containers"][1:4] == ["1", "0", "1.049MB"]
    assert "writer" in engine.docker("system", "df", "-v").out


def test_prune_takes_what_is_not_used(engine: Daemon) -> None:  # noqa: F811
    since = time.time()
    engine.docker("run", "--name", "ended", "busybox", "true")
    engine.docker("run", "--name", "kept", "-l", "keep", "busybox", "true")
    engine.docker("run", "-d", "--name", "running", "busybox", "sleep", "600")
    engine.docker("network", "create", "unused")
    early = engine.docker("container", "prune", "-f", "--filter", "until=1h").out
    assert early == "Total reclaimed space: 0B\n"
    shown = engine.docker("system", "prune", "-f", "--filter", "label!=keep").out
    assert "Deleted Containers:" in shown and "Deleted Networks:\nunused" in shown
    names = engine.docker("ps", "-a", "--format", "{{.Names}}").out.split()
    assert sorted(names) == ["kept", "running"]
    engine.docker("rm", "-f", "running")
    engine.docker("system", "prune", "-af", "--volumes")
    assert engine.docker("images", "-q").out == engine.docker("ps", "-aq").out == ""
    pruned = _events(engine, "event=prune", since=since)
    assert {"container", "network", "image"} <= {event["Type"] for event in pruned}
    assert all("reclaimed" in event["Actor"]["Attributes"] for event in pruned)
    engine.import_busybox()


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["status=exited"], {"ended"}),
        (["status=created", "status=paused"], {"new", "frozen"}),
        (["exited=4"], {"ended"}),
        (["name=^/n"], {"new"}),
        (["label=tier"], {"web", "new"}),
        (["label=tier=front"], {"web"}),
        (["ancestor=busybox"], {"web", "ended", "new", "frozen"}),
        (["ancestor=nothing"], set()),
        (["before=ended"], {"web"}),
        (["since=ended"], {"new", "frozen"}),
        (["publish=18501"], {"web"}),
        (["expose=80-90/tcp"], {"web"}),
        (["network=none"], {"new"}),
        (["volume=/data"], {"new"}),
        (["health=none"], {"web", "ended", "new", "frozen"}),
        (["is-task=true"], set()),
    ],
)
def test_ps_filters(fleet: Daemon, filters: list[str], names: set[str]) -> None:
    arguments = [word for text in filters for word in ("--filter", text)]
    shown = fleet.docker("ps", "-a", "--format", "{{.Names}}", *arguments).out.split()
    assert set(shown) == names
    identity = fleet.docker("ps", "-q", "--filter", "name=web", "--no-trunc").out.strip()
    assert fleet.docker("ps", "-q", "--filter", f"id={identity[:9]}").out.strip() == identity[:12]


@pytest.fixture(scope="module")
def fleet(daemon: Daemon) -> Daemon:  # noqa: F811
    daemon.remove_all()
    sleep = ("busybox", "sleep", "600")
    daemon.docker("run", "-d", "--name", "web", "-l", "tier=front", "-p", "18501:80", *sleep)
    daemon.docker("run", "--name", "ended", "busybox", "sh", "-c", "exit 4", ok=False)
    volume = ("-v", "/tmp:/data")
    daemon.docker("create", "--name", "new", "-l", "tier=back", "--network=none", *volume, *sleep)
    daemon.docker("run", "-d", "--name", "frozen", *sleep)
    daemon.docker("pause", "frozen")
    return daemon


@pytest.mark.parametrize(
    ("filter_", "complaint"),
    [
        ("colour=red", "invalid filter 'colour'"),
        ("status=asleep", "invalid filter 'status=asleep'"),
        ("is-task=maybe", "invalid filter 'is-task=[maybe]'"),
        ("publish=80:80", "filter for 'publish' should not contain ':': 80:80"),
        ("before=nobody", "no such container nobody"),
    ],
)
def test_filters_that_are_none_are_refused(
    daemon: Daemon,  # noqa: F811
    filter_: str,
    complaint: str,
) -> None:
    refused = daemon.docker("ps", "--filter", filter_, ok=False)
    assert (refused.code, refused.err) == (1, f"Error response from daemon: {complaint}\n")


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nothing", 404, "page not found"),
        ("DELETE", "/info", 404, "page not found"),
        ("GET", "/v1.24/nothing", 404, "page not found"),
        (
            *("GET", "/v1.23/info", 400),
            "client version 1.23 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        (
            *("GET", "/v1.999/info", 400),
            "client version 1.999 is too new. Maximum supported API version is 1.50",
        ),
        ("POST", "/session", 404, "page not found"),
        ("POST", "/grpc", 404, "page not found"),
        ("POST", "/swarm/leave", 503, "This node is not part of a swarm"),
        *(
            (
                *(method, path, 503),
                'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
                "to connect this node to swarm and try again.",
            )
            for method, path in (("GET", "/nodes"), ("POST", "/services/create"))
        ),
        ("GET", "/containers/json?filters=x", 400, "invalid filter"),
        ("GET", "/containers/nobody/json", 404, "No such container: nobody"),
        (
            "POST",
            "/containers/nobody/kill",
            404,
            "cannot kill container: nobody: No such container: nobody",
        ),
    ],
)
def test_errors_are_json_in_dockers_words(
    daemon: Daemon,  # noqa: F811
    method: str,
    path: str,
    status: int,
    message: str,
) -> None:
    answer = daemon.request(method, path)
    assert (answer.status, answer.body) == (status, {"message": message})
    assert answer.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", None, "invalid JSON: got EOF while reading request body"),
        (b"{}", "application/json", "config cannot be empty in order to create a container"),
        (
            *(b"{}", "text/plain"),
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        ),
        (b"{}", None, "malformed Content-Type header (): mime: no media type"),
        (
            *(b"{image", "application/json"),
            "invalid JSON: invalid character 'i' looking for beginning of object key string",
        ),
        (b'{"Image":', "application/json", "invalid JSON: unexpected EOF"),
        (b'{"Image":"x"} x', "application/json", "unexpected content after JSON"),
        (
            *(b'{"Image":5}', "application/json; charset=utf-8"),
            "invalid JSON: json: cannot unmarshal number into Go struct field CreateRequest.Image "
            "of type string",
        ),
    ],
)
def test_bodies_that_are_none_are_refused(
    daemon: Daemon,  # noqa: F811
    body: bytes,
    kind: str | None,
    message: str,
) -> None:
    connection = http.client.HTTPConnection("docker")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(daemon.socket))
    headers = {"Content-Type": kind} if kind else {}
    connection.request("POST", "/v1.50/containers/create", body, headers)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (400, {"message": message})
    connection.close()


_TESTCONTAINERS = """
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs
import urllib.request

serve = "sh -c 'echo welcome > /tmp/index.html; echo serving; exec httpd -f -p 8000 -h /tmp'"
with Network() as network:
    web = DockerContainer("busybox").with_command(serve).with_exposed_ports(8000)
    web = web.with_network(network).with_network_aliases("web").with_env("COLOUR", "blue")
    with web:
        wait_for_logs(web, "serving", timeout=60)
        while web.exec(["wget", "-qO-", "http://127.0.0.1:8000/"]).exit_code != 0:
            pass  # it has said so before it listens
        address = f"http://127.0.0.1:{web.get_exposed_port(8000)}/"
        print(urllib.request.urlopen(address, timeout=60).read().decode().strip())
        print(web.exec(["sh", "-c", "echo $COLOUR"]).output.decode().strip())
        other = DockerContainer("busybox").with_network(network)
        with other.with_command("wget -qO- http://web:8000/") as client:
            client.get_wrapped_container().wait()
            print(client.get_logs()[0].decode().strip())
"""


def test_testcontainers_works(engine: Daemon) -> None:  # noqa: F811
    done = subprocess.run(
        [sys.executable, "-c", _TESTCONTAINERS],
        env=engine.client_environment | {"TESTCONTAINERS_RYUK_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["welcome", "blue", "welcome"]
