"""log, exec and the like: from kubectl through the API server to a kubelet of the test's own."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from apiserver_clients import session
from apiserver_process import Finished, Server


class Kubelet:
    """Answers what it is told to, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, list[str]]]] = []
        self.users: list[str] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello\n"
        self.more = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split(" ")
        parts = urlsplit(target)
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(parts.query):
            query.setdefault(name, []).append(value)
        self.asked.append((method, parts.path, query))
        subject = dict(pair for (pair,) in writer.get_extra_info("peercert")["subject"])
        self.users.append(subject["commonName"])
        assert "authorization:" not in head.lower()
        if "upgrade: websocket" in head.lower():
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")
            writer.write(b"Connection: Upgrade\r\n\r\nfirst ")
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
                if b"bye" in data:
                    break
        else:
            writer.write(self.answer)
            if b"chunked" in self.answer:
                await self.more.wait()
                writer.write(b"4\r\nmore\r\n0\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    running.kubectl("create", "serviceaccount", "default")
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.fixture
async def kubelet(server: Server) -> AsyncIterator[Kubelet]:
    fake = Kubelet()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*map(str, server.authority.issue("kubelet", "system:node:n1")))
    context.load_verify_locations(str(server.authority.certificate))
    context.verify_mode = ssl.CERT_REQUIRED
    listening = await asyncio.start_server(fake.serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        },
    }
    await kubectl(server, "apply", "-f", "-", stdin=json.dumps(node))
    status = json.dumps({"status": node["status"]})
    await kubectl(
        server, "patch", "node", "n1", "--subresource=status", "--type=merge", "-p", status
    )
    yield fake
    listening.close()
    await kubectl(server, "delete", "pods", "--all", "--force", "--grace-period=0")


async def kubectl(server: Server, *arguments: str, **options: Any) -> Finished:
    return await asyncio.to_thread(server.kubectl, *arguments, **options)


async def pod(server: Server, *containers: str, node: str = "n1") -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {
            "nodeName": node,
            "containers": [{"name": c, "image": "busybox"} for c in containers],
        },
    }
    await kubectl(server, "create", "-f", "-", stdin=json.dumps(manifest))


async def test_a_log_is_asked_of_the_node_with_the_clients_options(
    server: Server, kubelet: Kubelet
) -> None:
    await pod(server, "c")
    done = await kubectl(
        server, "logs", "web", "--tail=5", "--since=10s", "--timestamps", "--previous"
    )
    assert done.out == "hello\n"
    ((method, path, query),) = kubelet.asked
    assert (method, path) == ("GET", "/containerLogs/default/web/c")
    assert query == {
        "tailLines": ["5"],
        "sinceSeconds": ["10"],
        "timestamps": ["true"],
        "previous": ["true"],
    }
    assert kubelet.users == ["kubernetes-admin"]


async def test_a_log_is_passed_on_as_it_grows(server: Server, kubelet: Kubelet) -> None:
    await pod(server, "c")
    kubelet.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello\n\r\n"
    process = await asyncio.create_subprocess_exec(
        *("kubectl", f"--kubeconfig={server.kubeconfig()}", "logs", "-f", "web"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"hello\n"
    kubelet.more.set()
    assert await process.stdout.read() == b"more"
    assert await process.wait() == 0


@pytest.mark.parametrize("protocol", ["", "binary.k8s.io", "base64.binary.k8s.io"])
async def test_a_log_is_told_over_a_websocket(
    server: Server, kubelet: Kubelet, protocol: str
) -> None:
    await pod(server, "c")
    async with session(server) as client:
        path = "/api/v1/namespaces/default/pods/web/log?container=c"
        protocols = [protocol] if protocol else []
        async with client.ws_connect(path, protocols=protocols) as socket:
            messages = [message.data async for message in socket]
    if protocol.startswith("base64"):
        messages = [base64.b64decode(message) for message in messages]
    assert messages[0] == b"" and b"".join(messages) == b"hello\n"


async def test_one_of_the_streams_is_asked_for_by_its_name(
    server: Server, kubelet: Kubelet
) -> None:
    await pod(server, "c")
    path = "/api/v1/namespaces/default/pods/web/log?stream="
    await kubectl(server, "get", "--raw", f"{path}Stderr")
    assert kubelet.asked[-1][2] == {"stream": ["Stderr"]}
    await kubectl(server, "get", "--raw", f"{path}All&tailLines=2")
    assert kubelet.asked[-1][2] == {"tailLines": ["2"]}
    done = await kubectl(server, "get", "--raw", f"{path}Other", ok=False)
    text = 'Unsupported value: "Other": supported values: "All", "Stderr", "Stdout"'
    assert text in done.err
    done = await kubectl(server, "get", "--raw", f"{path}Stdout&tailLines=2", ok=False)
    assert "`tailLines` and specific `stream` are mutually exclusive for now" in done.err


async def test_a_refusal_of_the_kubelet_reaches_the_client(
    server: Server, kubelet: Kubelet
) -> None:
    await pod(server, "c")
    text = b'container "c" in pod "web" is waiting to start: ContainerCreating'
    kubelet.answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
    done = await kubectl(server, "logs", "web", ok=False)
    assert done.err.strip() == (
        'Error from server (BadRequest): container "c" in pod "web" is waiting to start: '
        "ContainerCreating"
    )


async def test_which_container_must_be_clear(server: Server, kubelet: Kubelet) -> None:
    await pod(server, "a", "b")
    done = await kubectl(server, "get", "--raw", LOG, ok=False)
    assert "a container name must be specified for pod web, choose one of: [a b]" in done.err
    done = await kubectl(server, "logs", "web", "-c", "nix", ok=False)
    assert "container nix is not valid for pod web" in done.err
    await kubectl(server, "logs", "web", "-c", "b")
    assert kubelet.asked[-1][1] == "/containerLogs/default/web/b"


LOG = "/api/v1/namespaces/default/pods/web/log"


async def test_a_pod_on_no_node_has_an_empty_log_and_no_shell(
    server: Server, kubelet: Kubelet
) -> None:
    await pod(server, "c", node="")
    assert (await kubectl(server, "logs", "web")).out == ""
    done = await kubectl(server, "exec", "web", "--", "true", ok=False)
    assert "pod web does not have a host assigned" in done.err
    assert kubelet.asked == []


async def test_a_node_out_of_reach_is_named(server: Server, kubelet: Kubelet) -> None:
    await pod(server, "c")
    status = json.dumps({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 9}}}})
    await kubectl(
        server, "patch", "node", "n1", "--subresource=status", "--type=merge", "-p", status
    )
    done = await kubectl(server, "logs", "web", ok=False)
    assert (
        'Get "https://127.0.0.1:9/containerLogs/default/web/c": dial tcp 127.0.0.1:9: connect: '
        "connection refused"
    ) in done.err


async def test_a_bad_option_is_refused_before_the_kubelet_is_asked(
    server: Server, kubelet: Kubelet
) -> None:
    await pod(server, "c")
    done = await kubectl(server, "get", "--raw", f"{LOG}?tailLines=-1", ok=False)
    assert "tailLines: Invalid value: -1: must be greater than or equal to 0" in done.err
    assert kubelet.asked == []


async def upgraded(
    server: Server, path: str, *, early: bytes = b""
) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection after the server's answer to an upgrade: its head, and both directions."""
    context = ssl.create_default_context(cafile=str(server.authority.certificate))
    context.load_cert_chain(*map(str, server.admin))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n"
    request += "Upgrade: websocket\r\n\r\n"
    writer.write(request.encode() + early)
    return await reader.readuntil(b"\r\n\r\n"), reader, writer


async def test_an_upgrade_becomes_a_tunnel(server: Server, kubelet: Kubelet) -> None:
    await pod(server, "c")
    path = "/api/v1/namespaces/default/pods/web/exec?command=sh&command=-c&stdin=1&stdout=1&tty=1"
    head, reader, writer = await upgraded(server, path)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert await reader.readexactly(6) == b"first "
    blob = bytes(range(256)) * 4000
    writer.write(blob)
    assert await reader.readexactly(len(blob)) == blob
    writer.write(b"bye")
    assert await asyncio.wait_for(reader.read(), 60) == b"bye"
    method, asked, query = kubelet.asked[-1]
    assert (method, asked) == ("GET", "/exec/default/web/c")
    assert query == {"command": ["sh", "-c"], "input": ["1"], "output": ["1"], "tty": ["1"]}
    writer.close()


async def test_bytes_sent_before_the_answer_are_not_lost(server: Server, kubelet: Kubelet) -> None:
    await pod(server, "c")
    path = "/api/v1/namespaces/default/pods/web/attach?stdin=1"
    _, reader, writer = await upgraded(server, path, early=b"early bye")
    assert await asyncio.wait_for(reader.read(), 60) == b"first early bye"
    writer.close()


async def test_a_port_forward_names_its_ports(server: Server, kubelet: Kubelet) -> None:
    await pod(server, "c")
    path = "/api/v1/namespaces/default/pods/web/portforward?ports=80"
    head, _, writer = await upgraded(server, path)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert kubelet.asked[-1][1:] == ("/portForward/default/web", {"port": ["80"]})
    writer.close()


async def test_a_client_that_goes_ends_the_tunnel(server: Server, kubelet: Kubelet) -> None:
    await pod(server, "c")
    path = "/api/v1/namespaces/default/pods/web/exec?command=sh&stdout=1"
    _, reader, writer = await upgraded(server, path)
    await reader.readexactly(6)
    writer.transport.abort()
    assert server.process is not None
    sockets = Path(f"/proc/{server.process.pid}/fd")
    async with asyncio.timeout(60):
        while len(list(sockets.iterdir())) >= 30:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)


async def test_a_stranger_gets_no_shell(server: Server, kubelet: Kubelet) -> None:
    await pod(server, "c")
    bob = server.kubeconfig("bob")
    done = await kubectl(server, "exec", "web", "--", "true", ok=False, kubeconfig=bob)
    assert done.code != 0 and 'User "bob" cannot' in done.err
    assert kubelet.asked == []


async def test_a_nodes_own_paths_are_behind_its_proxy(server: Server, kubelet: Kubelet) -> None:
    done = await kubectl(server, "get", "--raw", "/api/v1/nodes/n1/proxy/healthz?a=b")
    assert done.out == "hello\n"
    assert kubelet.asked[-1] == ("GET", "/healthz", {"a": ["b"]})
