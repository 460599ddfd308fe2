"""Attach, and the streams of exec, by the real client and by the API itself."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import docker
import pytest
from docker_harness import Terminal, until

from wherry.wire.docker_stream import Demultiplexer

pytest_plugins = ("docker_fixtures",)


class Raw:
    """A request whose connection becomes a stream."""

    def __init__(self, engine, path, body=b"", *, upgrade=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(engine.socket))
        head = f"POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: {len(body)}\r\n"
        if body:
            head += "Content-Type: application/json\r\n"
        if upgrade:
            head += "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        self.socket.sendall(head.encode() + b"\r\n" + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(1)
        self.head = answer.decode()

    def rest(self):
        """All that comes until the end."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := self.socket.recv(1 << 16):
                data += piece
        return data

    def until(self, text):
        data = b""
        while text not in data:
            piece = self.socket.recv(1 << 16)
            assert piece, data
            data += piece
        return data


def outputs(data):
    """What each stream of a multiplexed one has."""
    found = {}
    for stream, piece in Demultiplexer().feed(data):
        found[stream] = found.get(stream, b"") + piece
    return found


def start(engine, *command, options=(), name="web"):
    engine.docker("run", "-d", "--name", name, *options, "busybox", *command)


def actions(engine, since, *filters, shown="{{.Action}}"):
    """What events tell until now."""
    period = ("--since", since, "--until", f"{time.time():.9f}")
    return engine.docker("events", *period, *filters, "--format", shown).out.splitlines()


# ---- attach


def test_old_clients_get_the_stream_without_an_upgrade(engine):
    engine.docker("create", "--name", "web", "busybox", "sh", "-c", "echo out; echo err >&2")
    path = "/containers/web/attach?stream=1&stdout=1&stderr=1"
    old = Raw(engine, f"/v1.41{path}", upgrade=False)
    new = Raw(engine, f"/v1.45{path}")
    assert old.head.startswith("HTTP/1.1 200 OK\r\n")
    assert "application/vnd.docker.raw-stream" in old.head
    assert new.head.startswith("HTTP/1.1 101 UPGRADED\r\n")
    assert "application/vnd.docker.multiplexed-stream" in new.head
    engine.docker("start", "web")
    expected = {1: b"out\n", 2: b"err\n"}
    assert outputs(old.rest()) == outputs(new.rest()) == expected


def test_streams_are_chosen(engine):
    engine.docker("create", "--name", "web", "busybox", "sh", "-c", "echo out; echo err >&2")
    only = Raw(engine, "/containers/web/attach?stream=1&stderr=1")
    engine.docker("start", "web")
    assert outputs(only.rest()) == {2: b"err\n"}


def test_the_past_and_the_present_join_without_a_gap(engine):
    script = (
        "i=0; while [ $i -lt 30000 ]; do echo $i; i=$((i+1)); done; printf end;"
        "until [ -e /go ]; do sleep 0.1; done"
    )
    start(engine, "sh", "-c", script)
    expected = b"".join(b"%d\n" % n for n in range(30_000)) + b"end"
    path = "/containers/web/attach?stream=1&logs=1&stdout=1&stderr=1"
    with ThreadPoolExecutor(8) as pool:
        seen = []
        for _ in range(8):
            seen.append(pool.submit(Raw(engine, path).rest))
            time.sleep(0.02)
        engine.docker("exec", "web", "touch", "/go", ok=False)  # (it may be ended by that)
        for one in seen:
            assert outputs(one.result())[1] == expected


def test_a_line_that_has_only_begun_belongs_to_the_past(engine):
    start(engine, "sh", "-c", "printf 'name? '; read x; echo hello $x", options=["-i"])
    time.sleep(0.3)
    client = Raw(engine, "/containers/web/attach?stream=1&logs=1&stdin=1&stdout=1")
    assert outputs(client.until(b"name? ")) == {1: b"name? "}
    client.socket.sendall(b"you\n")
    assert outputs(client.until(b"you\n")) == {1: b"hello you\n"}


def test_logs_alone_end_and_a_log_that_cannot_be_read_is_told_in_the_stream(engine):
    start(engine, "sh", "-c", "echo out; sleep 60")
    until(lambda: engine.docker("logs", "web").out)
    assert outputs(Raw(engine, "/containers/web/attach?logs=1&stdout=1").rest()) == {1: b"out\n"}
    start(engine, "sleep", "60", options=["--log-driver", "none"], name="mute")
    told = outputs(Raw(engine, "/containers/mute/attach?logs=1&stream=1&stdout=1").rest())
    text = b"Error attaching: configured logging driver does not support reading\n"
    assert told == {1: text}


@pytest.mark.parametrize("upgrade", [True, False])
def test_what_stands_against_attaching_is_told_before_the_stream_begins(engine, upgrade):
    def refused(query):
        answer = Raw(engine, f"/containers/web/attach?{query}", upgrade=upgrade)
        return answer.head.splitlines()[0], answer.rest().decode()

    status, text = refused("stream=1")
    assert (status, text) == ("HTTP/1.1 404 Not Found", "No such container: web\r\n")
    start(engine, "sleep", "60")
    status, text = refused("stream=1&detachKeys=ab")
    assert (status, text) == (
        "HTTP/1.1 400 Bad Request",
        "Invalid detach keys (ab) provided\r\n",
    )
    engine.docker("pause", "web")
    status, text = refused("stream=1&stdout=1")
    assert status == "HTTP/1.1 409 Conflict"
    assert text.endswith("is paused, unpause the container before attach\r\n")
    engine.docker("unpause", "web")


def test_a_terminal_is_attached_to_detached_from_and_attached_to_again(engine):
    start(engine, "sh", options=["-it"])
    first = Terminal(engine, "attach", "--detach-keys", "ctrl-x,x", "web", size=(31, 99))
    first.type(b"stty size\n")
    first.until("31 99")
    first.type(b"\x18y\n")  # half of the sequence is input
    first.until("y: not found")
    first.type(b"\x18x")
    assert first.client.wait(60) == 1
    first.until("read escape sequence")
    assert engine.inspect("web", "{{.State.Running}}") == "true"
    second = Terminal(engine, "attach", "web")
    second.type(b"exit 7\n")
    assert second.client.wait(60) == 7


def test_several_clients_see_the_same_and_all_may_write(engine):
    start(engine, "cat", options=["-i"])
    path = "/containers/web/attach?stream=1&stdin=1&stdout=1"
    first, second = Raw(engine, path), Raw(engine, path)
    first.socket.sendall(b"one\n")
    assert first.until(b"one\n") == second.until(b"one\n")
    second.socket.sendall(b"two\n")
    assert first.until(b"two\n") == second.until(b"two\n")
    # The container's input stays open, so the end of a client's input ends the client.
    first.socket.shutdown(socket.SHUT_WR)
    assert first.rest() == b""
    second.socket.sendall(b"three\n")
    second.until(b"three\n")


def test_input_that_ends_with_its_first_client(engine):
    engine.docker("create", "-i", "--name", "web", "busybox", "sh", "-c", "cat; echo done")
    client = Raw(engine, "/containers/web/attach?stream=1&stdin=1&stdout=1")
    engine.docker("start", "web")
    client.socket.sendall(b"one\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert outputs(client.rest()) == {1: b"one\ndone\n"}


def test_a_client_that_does_not_read_holds_the_container_and_nothing_is_lost(engine):
    engine.docker(
        "create",
        "--name",
        "web",
        "--log-driver",
        "none",
        "busybox",
        "sh",
        "-c",
        "yes | head -c 8000000; touch /done; sleep 60",
    )
    client = Raw(engine, "/containers/web/attach?stream=1&stdout=1")
    engine.docker("start", "web")
    time.sleep(1)
    assert engine.docker("exec", "web", "test", "-e", "/done", ok=False).code == 1
    size = 0
    demultiplexer = Demultiplexer()
    while size < 8_000_000:
        size += sum(len(piece) for _, piece in demultiplexer.feed(client.socket.recv(1 << 20)))
    assert size == 8_000_000
    until(lambda: engine.docker("exec", "web", "test", "-e", "/done", ok=False).code == 0)


def test_clients_that_leave_are_forgotten(engine):
    start(engine, "sleep", "60", options=["-i"])
    before = len(os.listdir(f"/proc/{engine._process.pid}/fd"))
    engine.docker("create", "--name", "created", "busybox")
    clients = [
        Raw(engine, f"/containers/{name}/attach?stream=1&stdout=1&{stdin}")
        for name in ("web", "created")
        for stdin in ("", "stdin=1")
        for _ in range(5)
    ]
    assert len(os.listdir(f"/proc/{engine._process.pid}/fd")) > before
    for client in clients:
        client.socket.close()
    until(lambda: len(os.listdir(f"/proc/{engine._process.pid}/fd")) <= before)


def test_events_tell_of_attaching_and_detaching(engine):
    start(engine, "cat", options=["-it"])
    since = f"{time.time():.9f}"
    client = Raw(engine, "/containers/web/attach?stream=1&stdin=1&stdout=1")
    client.socket.sendall(b"\x10\x11")
    assert client.rest() == b""
    until(lambda: "detach" in actions(engine, since))
    assert actions(engine, since) == ["attach", "detach"]


def test_a_websocket(engine):
    start(engine, "cat", options=["-i"])

    async def talk(query, version):
        connector = aiohttp.UnixConnector(str(engine.socket))
        url = f"http://docker/{version}/containers/web/attach/ws?{query}"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.ws_connect(url) as client,
        ):
            await client.send_bytes(b"hello\n")
            return await client.receive(60)

    message = asyncio.run(talk("stream=1&stdin=1&stdout=1", "v1.45"))
    assert (message.type, message.data) == (aiohttp.WSMsgType.BINARY, b"hello\n")
    # Older clients get everything, and logs are read on request.
    message = asyncio.run(talk("stream=1&logs=1", "v1.41"))
    assert message.data == b"hello\n"


def test_docker_py_attaches(engine):
    client = docker.DockerClient(f"unix://{engine.socket}")
    with contextlib.closing(client):
        container = client.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2"])
        stream = container.attach(stream=True, demux=True, stdout=True, stderr=True)
        container.start()
        pieces = list(stream)
        assert sorted(pieces, key=str) == [(None, b"err\n"), (b"out\n", None)]
        assert container.attach(logs=True, stream=False, stderr=False) == b"out\n"
        assert container.logs(timestamps=True, stderr=False).endswith(b"Z out\n")
        assert next(container.logs(stream=True, tail=1)) in (b"out\n", b"err\n")


# ---- exec


def made(engine, **body):
    answer = engine.request("POST", "/containers/web/exec", body)
    assert answer.status == 201, answer.body
    return answer.body["Id"]


def started(engine, exec_id, **body):
    return Raw(engine, f"/exec/{exec_id}/start", json.dumps(body).encode())


def test_an_exec_shows_what_it_is(engine):
    start(engine, "sleep", "60", options=["-u", "web"])
    exec_id = made(
        engine, Cmd=["sleep", "50"], AttachStdout=True, DetachKeys="ctrl-a", Privileged=True
    )
    shown = engine.request("GET", f"/exec/{exec_id}/json").body
    assert shown == {
        "ID": exec_id,
        "Running": False,
        "ExitCode": None,
        "ProcessConfig": {
            "tty": False,
            "entrypoint": "sleep",
            "arguments": ["50"],
            "privileged": True,
            "user": "web",
        },
        "OpenStdin": False,
        "OpenStderr": False,
        "OpenStdout": True,
        "CanRemove": False,
        "ContainerID": engine.inspect("web")["Id"],
        "DetachKeys": "AQ==",
        "Pid": 0,
    }
    assert engine.inspect("web")["ExecIDs"] == [exec_id]
    engine.request("POST", f"/exec/{exec_id}/start", {"Detach": True})
    shown = engine.request("GET", f"/exec/{exec_id}/json").body
    assert shown["Running"] and shown["Pid"] > 0
    again = engine.request("POST", f"/exec/{exec_id}/start", {"Detach": True})
    assert again.status == 409
    assert again.body["message"] == f"Error: Exec command {exec_id} is already running"


def test_execs_end_with_their_container_and_go_with_it(engine):
    start(engine, "sleep", "60")
    exec_id = made(engine, Cmd=["sleep", "60"], AttachStdout=True)
    client = started(engine, exec_id)
    until(lambda: engine.request("GET", f"/exec/{exec_id}/json").body["Running"])
    never = made(engine, Cmd=["true"])
    engine.docker("kill", "web")
    assert client.rest() == b""
    until(lambda: not engine.request("GET", f"/exec/{exec_id}/json").body["Running"])
    assert engine.request("GET", f"/exec/{exec_id}/json").body["ExitCode"] == 137
    until(lambda: engine.inspect("web")["ExecIDs"] is None)
    assert engine.request("POST", f"/exec/{never}/start", {}).status in (404, 409)
    engine.docker("rm", "web")
    gone = engine.request("GET", f"/exec/{exec_id}/json")
    assert (gone.status, gone.body) == (404, {"message": f"No such exec instance: {exec_id}"})


@pytest.mark.parametrize("tty", [False, True])
def test_how_the_output_of_an_exec_is_framed_is_for_its_starter_to_say(engine, tty):
    start(engine, "sleep", "60")
    exec_id = made(engine, Cmd=["echo", "hi"], AttachStdout=True, Tty=True)
    data = started(engine, exec_id, Tty=tty).rest()
    assert (data if tty else outputs(data)[1]) == b"hi\r\n"


def test_an_exec_has_the_size_it_was_given(engine):
    start(engine, "sleep", "60")
    first = made(
        engine,
        Cmd=["sh", "-c", "sleep .2; stty size"],
        AttachStdin=True,
        AttachStdout=True,
        Tty=True,
        ConsoleSize=[33, 77],
    )
    assert started(engine, first, Tty=True).rest() == b"33 77\r\n"
    second = made(
        engine,
        Cmd=["sh", "-c", "sleep .2; stty size"],
        AttachStdin=True,
        AttachStdout=True,
        Tty=True,
    )
    resized = engine.request("POST", f"/exec/{second}/resize?h=44&w=88")
    assert resized.status == 200
    assert started(engine, second, Tty=True).rest() == b"44 88\r\n"
    until(lambda: not engine.request("GET", f"/exec/{second}/json").body["Running"])
    late = engine.request("POST", f"/exec/{second}/resize?h=44&w=88")
    assert late.status == 409
    bad = engine.request("POST", f"/exec/{second}/resize?h=44")
    assert (bad.status, bad.body["message"]) == (
        400,
        'strconv.Atoi: parsing "": invalid syntax',
    )


def test_an_exec_that_cannot_run_says_so_in_the_stream(engine):
    start(engine, "sleep", "60")
    exec_id = made(engine, Cmd=["nope"], AttachStdout=True, AttachStderr=True)
    text = outputs(started(engine, exec_id).rest())[1]
    assert text.startswith(b"OCI runtime exec failed: exec failed: ")
    assert text.endswith(b'"nope": executable file not found in $PATH: unknown\r\n')
    until(lambda: engine.request("GET", f"/exec/{exec_id}/json").body["ExitCode"] == 127)
    detached = made(engine, Cmd=["nope"])
    answer = engine.request("POST", f"/exec/{detached}/start", {"Detach": True})
    assert answer.status == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "No exec command specified"),
        ({"Cmd": ["true"], "DetachKeys": "xx"}, "Invalid escape keys (xx) provided"),
    ],
)
def test_bad_execs_are_refused(engine, body, message):
    start(engine, "sleep", "60")
    answer = engine.request("POST", "/containers/web/exec", body)
    assert (answer.status, answer.body["message"]) == (400, message)


def test_detach_keys_leave_an_exec_running(engine):
    start(engine, "sleep", "60")
    since = f"{time.time():.9f}"
    script = "echo ready; sleep 2; touch /done; sleep 60"
    exec_id = made(
        engine,
        Cmd=["sh", "-c", script],
        AttachStdin=True,
        AttachStdout=True,
        Tty=True,
        DetachKeys="a,b",
    )
    client = started(engine, exec_id, Tty=True)
    client.until(b"ready")
    client.socket.sendall(b"ab")
    client.rest()
    until(lambda: engine.docker("exec", "web", "test", "-e", "/done", ok=False).code == 0)
    until(lambda: "exec_detach" in actions(engine, since))


def test_events_tell_of_an_exec(engine):
    start(engine, "sleep", "60")
    since = f"{time.time():.9f}"
    engine.docker("exec", "web", "sh", "-c", "exit 3", ok=False)
    kinds = ("exec_create", "exec_start", "exec_die")
    filters = [word for kind in kinds for word in ("--filter", f"event={kind}")]
    shown = "{{.Action}} {{.Actor.Attributes.exitCode}}"
    until(lambda: len(actions(engine, since, *filters)) == 3)
    assert actions(engine, since, *filters, shown=shown) == [
        "exec_create: sh -c exit 3 <no value>",
        "exec_start: sh -c exit 3 <no value>",
        "exec_die 3",
    ]


def test_many_execs_leave_nothing(engine):
    start(engine, "sleep", "60")
    engine.docker("exec", "web", "true")
    pid = engine._process.pid
    before = len(os.listdir(f"/proc/{pid}/fd"))

    def work():
        for _ in range(20):
            exec_id = made(engine, Cmd=["echo", "x"], AttachStdout=True)
            client = started(engine, exec_id)
            assert outputs(client.rest()) == {1: b"x\n"}
            client.socket.close()
            broken = made(engine, Cmd=["nope"], AttachStdout=True, Tty=True)
            started(engine, broken, Tty=True).socket.close()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before)

    def dead():
        listing = ["ps", "--no-headers", "-o", "stat", "--ppid", str(pid)]
        states = subprocess.run(listing, capture_output=True, check=False).stdout.split()
        return [state for state in states if state.startswith(b"Z")]

    until(lambda: not dead())
    until(lambda: engine.inspect("web")["ExecIDs"] is None)
