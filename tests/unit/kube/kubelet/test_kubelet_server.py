"""The kubelet's port: who may come in, and the streams."""

import asyncio
import base64
import json
import socket
from dataclasses import replace

import aiohttp
import pytest
from certificates import Authority
from fake_runtime import FakeRuntime
from pod_pieces import RUNNING, pod, runtime, status

from wherry.engine.cri.types import CRIError
from wherry.kube.kubelet.metrics import Metrics
from wherry.kube.kubelet.pages import Pages
from wherry.kube.kubelet.parts import KubeletConfig
from wherry.kube.kubelet.server import Server
from wherry.wire.spdy import DataReceived, Session, StreamReset

CALLER = "kube-apiserver-kubelet-client"


class Process:
    """Says hello, then echoes its input until it ends; exits with ``code``."""

    def __init__(self, code=0, *, stdin=False, err=b""):
        self.code, self.sizes, self.closed = code, [], asyncio.Event()
        self.reads = stdin
        self._output = asyncio.Queue()
        self._output.put_nowait((1, b"hello\n"))
        if err:
            self._output.put_nowait((2, err))
        if not stdin:
            self._output.put_nowait((0, b""))

    async def read(self):
        return await self._output.get()

    async def write(self, data):
        if not self.reads:
            raise BrokenPipeError
        self._output.put_nowait((1, data))

    async def close_stdin(self):
        self._output.put_nowait((0, b""))

    async def resize(self, width, height):
        self.sizes.append((width, height))

    async def wait(self):
        return self.code

    async def close(self):
        self.closed.set()


class Runtime(FakeRuntime):
    def __init__(self):
        super().__init__()
        self.process = None
        self.commands = []
        self.dialled = asyncio.Event()

    async def exec(self, container_id, cmd, *, tty, stdin):
        self.commands.append((container_id, list(cmd), tty, stdin))
        if cmd[0] == "nonsense":
            raise CRIError('exec: "nonsense": executable file not found in $PATH')
        return self.process

    async def attach(self, container_id, *, stdin):
        return self.process

    async def port_forward(self, sandbox_id, port):
        if port == 81:
            raise CRIError("connection refused")
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        ours.setblocking(False)
        self.peer = await asyncio.open_connection(sock=theirs)
        self.dialled.set()
        return ours.detach()


class View:
    """One pod with one container that runs."""

    def __init__(self, log):
        self.log = log
        self.ended = asyncio.Event()
        self.state = RUNNING

    def pod(self, uid):
        return runtime(replace(status("web"), log_path=self.log, started_at=1, state=self.state))

    def container(self, id):
        return self.pod("u").containers[0]

    def containers(self):
        return list(self.pod("u").containers)

    def ready_sandboxes(self):
        return []

    def end_of(self, id):
        return self.ended


class Pods:
    def list_pods(self):
        return [pod("web")]

    def places(self, uid):
        return {}

    def find_pod(self, namespace, name):
        return pod("web") if (namespace, name) == ("d", "p") else None


class Node:
    """The server with what is behind it, and a client."""

    def __init__(self, directory):
        self.authority = Authority(directory)
        certificate, key = self.authority.issue("kubelet")
        self.log = directory / "0.log"
        self.log.write_bytes(
            b"2026-03-01T12:00:00Z stdout F one\n2026-03-01T12:00:01Z stdout F 2\n"
        )
        self.runtime, self.view = Runtime(), View(self.log)
        config = KubeletConfig(
            node_name="one",
            node_ip="127.0.0.1",
            root_dir=directory,
            pod_logs=directory / "pods",
            port=0,
            tls_cert=certificate,
            tls_key=key,
            client_ca=self.authority.certificate,
            allowed_client=CALLER,
        )

        metrics = Metrics("one")
        pages = Pages(config, self.runtime, self.view, Pods(), metrics).routes
        self.server = Server(
            *(config, self.runtime, self.view, Pods()), pages=pages, metrics=metrics
        )
        self.context = self.authority.client(CALLER)

    async def start(self):
        await self.server.start()
        # (It has a port of each family.)
        places = self.server._runner.addresses
        (self.port,) = (port for address, port, *_ in places if address == "0.0.0.0")
        self.url = f"https://127.0.0.1:{self.port}"

    async def get(self, path, context=None):
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.url + path, ssl=context or self.context) as answer,
        ):
            return answer.status, await answer.text()

    async def spdy(self, path, *protocols):
        """Upgrade to SPDY; the client's end, with the protocol that was chosen."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.context)
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: SPDY/3.1"]
        lines += [f"X-Stream-Protocol-Version: {p}" for p in protocols]
        writer.write(("\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n").encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        return Client(reader, writer), head


class Client:
    """A SPDY client over an open connection."""

    def __init__(self, reader, writer):
        self.session = Session(server=False)
        self.reader, self.writer = reader, writer
        self.data, self.ended, self.reset = {}, set(), set()

    def open(self, **headers):
        number, frames = self.session.open(headers)
        self.data[number] = b""
        self.writer.write(frames)
        return number

    def send(self, number, data, *, finish=False):
        self.writer.write(self.session.data(number, data, finish=finish))

    async def until(self, check):
        while not check():
            data = await asyncio.wait_for(self.reader.read(65536), 60)
            if not data:
                assert check(), (self.data, self.ended)
                return
            for event in self.session.feed(data):
                if isinstance(event, DataReceived):
                    self.data[event.stream_id] += event.data
                    if event.finished:
                        self.ended.add(event.stream_id)
                elif isinstance(event, StreamReset):
                    self.reset.add(event.stream_id)


@pytest.fixture
async def node(tmp_path):
    node = Node(tmp_path)
    await node.start()
    yield node
    await node.server.stop()


async def test_only_the_api_server_comes_in(node):
    assert await node.get("/healthz") == (200, "ok")
    assert (await node.get("/healthz", node.authority.client(None)))[0] == 401
    code, text = await node.get("/pods", node.authority.client("mallory"))
    assert code == 403
    assert text.startswith("Forbidden (user=mallory, verb=get, resource=nodes")


async def test_a_certificate_of_another_authority_is_worth_nothing(node, tmp_path):
    context = node.authority.client(None)
    context.load_cert_chain(*Authority(tmp_path, "other").issue(CALLER))
    with pytest.raises((aiohttp.ClientError, OSError)):
        await node.get("/pods", context)


async def test_pods_are_listed(node):
    _, text = await node.get("/pods")
    assert json.loads(text)["items"][0]["metadata"]["name"] == "p"


async def test_logs(node):
    assert await node.get("/containerLogs/d/p/web") == (200, "one\n2\n")
    assert await node.get("/containerLogs/d/p/web?tailLines=1") == (200, "2\n")
    assert (await node.get("/containerLogs/d/p/none"))[0] == 400
    assert (await node.get("/containerLogs/d/none/web"))[0] == 404
    code, text = await node.get("/containerLogs/d/p/web?previous=true")
    assert (code, text) == (400, 'previous terminated container "web" in pod "p" not found')
    assert (await node.get("/containerLogs/d/p/web?tailLines=x"))[0] == 400


async def test_a_command_over_spdy_ends_with_its_exit_code(node):
    node.runtime.process = Process(7, err=b"oops")
    path = "/exec/d/p/web?command=sh&command=-c&output=1&error=1"
    client, head = await node.spdy(path, "v9.x", "v4.channel.k8s.io", "v1")
    assert head.startswith("HTTP/1.1 101")
    assert "X-Stream-Protocol-Version: v4.channel.k8s.io" in head
    error, out, err = (client.open(streamType=kind) for kind in ("error", "stdout", "stderr"))
    await client.until(lambda: {error, out, err} <= client.ended)
    assert client.data[out] == b"hello\n"
    assert client.data[err] == b"oops"
    assert json.loads(client.data[error])["details"]["causes"] == [
        {"reason": "ExitCode", "message": "7"}
    ]
    assert node.runtime.commands == [("web-0", ["sh", "-c"], False, False)]


async def test_input_over_spdy_goes_in_and_its_end_too(node):
    node.runtime.process = Process(stdin=True)
    path = "/exec/d/p/web?command=cat&output=1&input=1&tty=1"
    client, _ = await node.spdy(path, "v4.channel.k8s.io")
    kinds = ("error", "stdin", "stdout", "resize")
    error, stdin, out, resize = (client.open(streamType=kind) for kind in kinds)
    client.send(resize, b'{"Width":80,"Height":24}')
    await client.until(lambda: client.data[out] == b"hello\n")
    client.send(stdin, b"abc")
    client.send(stdin, b"def", finish=True)
    await client.until(lambda: out in client.ended)
    assert client.data[out] == b"hello\nabcdef"
    assert json.loads(client.data[error])["status"] == "Success"
    assert node.runtime.process.sizes == [(80, 24)]


async def test_an_old_client_is_told_the_end_in_words(node):
    node.runtime.process = Process(7)
    client, _ = await node.spdy("/exec/d/p/web?command=x&output=1", "channel.k8s.io")
    error, out = client.open(streamType="error"), client.open(streamType="stdout")
    await client.until(lambda: {error, out} <= client.ended)
    assert client.data[error].startswith(b"command terminated with non-zero exit code")


async def test_a_client_that_goes_away_ends_the_command(node):
    node.runtime.process = Process(stdin=True)
    client, _ = await node.spdy("/exec/d/p/web?command=x&output=1", "v4.channel.k8s.io")
    client.open(streamType="error"), client.open(streamType="stdout")
    await client.until(lambda: any(client.data.values()))
    client.writer.close()
    await asyncio.wait_for(node.runtime.process.closed.wait(), 60)


async def test_a_command_that_cannot_be_run(node):
    client, _ = await node.spdy("/exec/d/p/web?command=nonsense&output=1", "v4.channel.k8s.io")
    error, _ = client.open(streamType="error"), client.open(streamType="stdout")
    await client.until(lambda: error in client.ended)
    assert json.loads(client.data[error])["message"] == (
        "Internal error occurred: error executing command in container: "
        'exec: "nonsense": executable file not found in $PATH'
    )


async def test_unknown_protocols_and_bad_requests_are_refused(node):
    _, head = await node.spdy("/exec/d/p/web?command=x&output=1", "v9.channel.k8s.io")
    assert head.startswith("HTTP/1.1 403")
    assert "X-Accepted-Stream-Protocol-Versions: v4.channel.k8s.io" in head
    for path in ("/exec/d/p/web?output=1", "/exec/d/p/web?command=x"):
        _, head = await node.spdy(path, "v4.channel.k8s.io")
        assert head.startswith("HTTP/1.1 400")
    assert (await node.get("/exec/d/p/web?command=x&output=1"))[0] == 400


async def websocket(node, path, protocol, exchange):
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(node.url + path, ssl=node.context, protocols=[protocol]) as socket_,
    ):
        assert socket_.protocol == protocol
        return await exchange(socket_)


async def test_a_command_over_websocket_with_the_close_signal_of_v5(node):
    node.runtime.process = Process(3, stdin=True)

    async def exchange(socket_):
        await socket_.send_bytes(b"\x00abc")
        await socket_.send_bytes(b"\x04" + b'{"Width":100,"Height":40}')
        await socket_.send_bytes(b"\xff\x00")
        return [message.data async for message in socket_]

    path = "/exec/d/p/web?command=cat&output=1&input=1"
    messages = await websocket(node, path, "v5.channel.k8s.io", exchange)
    assert messages[0] == b"\x01"  # the streams are there
    assert b"".join(m[1:] for m in messages if m[0] == 1) == b"hello\nabc"
    assert json.loads(messages[-1][1:])["reason"] == "NonZeroExitCode"
    assert messages[-1][0] == 3
    assert node.runtime.process.sizes == [(100, 40)]


async def the_end(node, reader, writer, goodbye):
    """Nothing comes until the client says goodbye; then the connection ends."""
    rest = asyncio.ensure_future(reader.read())
    with pytest.raises(TimeoutError):
        # Who closes while something is on its way may cut it off.
        await asyncio.wait_for(asyncio.shield(rest), 0.1)
    writer.write(goodbye)
    if not goodbye:
        writer.close()
    await asyncio.wait_for(rest, 60)
    await asyncio.wait_for(node.runtime.process.closed.wait(), 60)


async def test_a_connection_of_spdy_is_there_until_the_client_has_taken_all(node):
    node.runtime.process = Process()
    client, _ = await node.spdy("/exec/d/p/web?command=x&input=1&output=1", "v4.channel.k8s.io")
    error, stdin, out = (client.open(streamType=kind) for kind in ("error", "stdin", "stdout"))
    await client.until(lambda: {error, out} <= client.ended)
    client.send(stdin, bytes(3 << 20))  # more than is kept for one who reads
    await the_end(node, client.reader, client.writer, b"")


async def test_a_websocket_is_there_until_the_client_has_taken_all(node):
    node.runtime.process = Process()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=node.context)
    lines = ["GET /exec/d/p/web?command=x&output=1 HTTP/1.1", "Host: x", "Connection: Upgrade"]
    lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += [f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}"]
    lines += ["Sec-WebSocket-Protocol: v5.channel.k8s.io"]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    close = b"\x88\x02\x03\xe8"  # 1000: all is well
    assert b'"Success"' in await asyncio.wait_for(reader.readuntil(close), 60)
    await the_end(node, reader, writer, b"\x88\x82" + bytes(4) + b"\x03\xe8")


async def test_a_command_over_websocket_in_base64(node):
    node.runtime.process = Process()

    async def exchange(socket_):
        return [message.data async for message in socket_]

    path = "/attach/d/p/web?output=1"
    messages = await websocket(node, path, "v4.base64.channel.k8s.io", exchange)
    assert messages[1] == "1" + base64.b64encode(b"hello\n").decode()
    assert json.loads(base64.b64decode(messages[-1][1:]))["status"] == "Success"


async def test_ports_over_spdy_each_connection_with_two_streams(node):
    client, _ = await node.spdy("/portForward/d/p", "portforward.k8s.io")
    headers = {"port": "80", "requestID": "0"}
    error = client.open(streamType="error", **headers)
    client.send(error, b"", finish=True)
    data = client.open(streamType="data", **headers)
    client.send(data, b"ping", finish=True)
    await client.until(lambda: error in client.ended)
    reader, writer = node.runtime.peer
    assert await reader.read() == b"ping"
    writer.write(b"pong")
    writer.close()
    await client.until(lambda: data in client.ended)
    assert client.data[data] == b"pong"


async def test_a_port_that_nobody_listens_on_is_told_on_the_error_stream(node):
    client, _ = await node.spdy("/portForward/d/p", "portforward.k8s.io")
    headers = {"port": "81", "requestID": "0"}
    error = client.open(streamType="error", **headers)
    data = client.open(streamType="data", **headers)
    await client.until(lambda: error in client.ended and data in client.reset)
    assert client.data[error] == (b"error forwarding port 81 to pod s0, uid u: connection refused")


async def test_ports_through_a_websocket_tunnel(node):
    async def exchange(socket_):
        session = Session(server=False)
        for kind in ("error", "data"):
            _, frames = session.open({"streamType": kind, "port": "80", "requestID": "1"})
            await socket_.send_bytes(frames)
        await socket_.send_bytes(session.data(3, b"ping", finish=True))
        received = b""
        async for message in socket_:
            for event in session.feed(message.data):
                if isinstance(event, DataReceived) and event.stream_id == 3:
                    received += event.data
                    if event.finished:
                        return received
                elif isinstance(event, DataReceived):
                    node.runtime.peer[1].write(b"pong")
                    node.runtime.peer[1].close()
        return received

    path, protocol = "/portForward/d/p", "SPDY/3.1+portforward.k8s.io"
    assert await websocket(node, path, protocol, exchange) == b"pong"


async def test_ports_over_numbered_websocket_channels(node):
    async def exchange(socket_):
        first = [(await socket_.receive()).data for _ in range(2)]
        await socket_.send_bytes(b"\x00ping")
        await asyncio.wait_for(node.runtime.dialled.wait(), 60)
        node.runtime.peer[1].write(b"pong")
        return [*first, (await socket_.receive()).data]

    path = "/portForward/d/p?port=80"
    assert await websocket(node, path, "v4.channel.k8s.io", exchange) == [
        b"\x00\x50\x00",
        b"\x01\x50\x00",
        b"\x00pong",
    ]


async def test_the_kubelet_counts_what_it_does(node):
    await node.get("/pods")
    code, page = await node.get("/metrics")
    assert code == 200
    assert 'kubelet_node_name{node="one"} 1' in page.splitlines()
    assert 'kubelet_running_containers{container_state="running"} 1' in page.splitlines()
    counted = 'long_running="false",method="GET",path="pods",server_type="readwrite"'
    assert f"kubelet_http_requests_total{{{counted}}} 1" in page.splitlines()
    assert "process_resident_memory_bytes " in page


async def test_files_of_logs_are_shown_and_nothing_beside_them(node):
    root = node.log.parent
    (root / "pods").mkdir()
    (root / "pods" / "a.log").write_text("line\n")
    secret = root.parent / "secret"
    secret.write_text("secret")
    (root / "way-out").symlink_to(secret)
    code, text = await node.get("/logs/")
    assert code == 200 and '<a href="pods/">pods/</a>' in text
    assert await node.get("/logs/pods/a.log") == (200, "line\n")
    for path in ("/logs/way-out", "/logs/..%2fsecret", "/logs/nothing"):
        assert await node.get(path) == (404, "404 page not found\n")
