"""Handlers of probes and hooks against real sockets."""

import asyncio
import ssl

import pytest
from certificates import Authority
from fake_runtime import FakeRuntime

from wherry.engine.cri.types import CRIError, ExecResult
from wherry.kube.kubelet.hooks import PROBE_AGENT, Asker, Target
from wherry.kube.kubelet.probes import Count

ANSWERS = {
    "/ok": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "/bad": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "/moved": b"HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n",
    "/away": b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.55/\r\nContent-Length: 0\r\n\r\n",
    "/multiple": b"HTTP/1.1 300 Multiple Choices\r\nContent-Length: 0\r\n\r\n",
    "/chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
    ),
    "/continued": b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhi",
    "/torn": b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhi",
    "/loop": b"HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n",
    "/rubbish": b"nonsense\r\n\r\n",
    "/cut": b"HTTP/1.1 200",
}


@pytest.fixture
async def server():
    requests = []

    async def serve(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        requests.append(head)
        path = head.split()[1]
        if path == "/hang":
            await asyncio.sleep(60)
        writer.write(ANSWERS.get(path, b""))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    yield port, requests
    listening.close()


def ask(handler, ports=(), timeout=60.0, runtime=None):
    target = Target("c1", "127.0.0.1", ports)
    return Asker(runtime or FakeRuntime()).ask(handler, target, timeout, PROBE_AGENT)


@pytest.mark.parametrize(
    ("path", "ok", "output"),
    [
        ("/ok", True, "hi"),
        ("/bad", False, "HTTP probe failed with statuscode: 503"),
        ("/moved", True, "hi"),
        ("/away", True, "Probe terminated redirects, Response body: "),
        ("/multiple", True, "Probe terminated redirects, Response body: "),
        ("/chunks", True, "hello"),
        ("/continued", True, "hi"),
        ("/torn", None, "unexpected EOF"),
        ("/loop", False, "stopped after 10 redirects"),
        ("/rubbish", False, "malformed HTTP response"),
        ("/cut", False, "EOF"),
    ],
)
async def test_http(server, path, ok, output):
    port, _ = server
    answer = await ask({"httpGet": {"path": path, "port": port}})
    assert answer.ok is ok
    assert output in answer.output


async def test_http_sends_the_headers_it_was_given_and_finds_ports_by_name(server):
    port, requests = server
    headers = [{"name": "X-Test", "value": "1"}, {"name": "Host", "value": "example.com"}]
    handler = {"httpGet": {"path": "/ok?q=1", "port": "web", "httpHeaders": headers}}
    ports = [{"name": "web", "containerPort": port}]
    await ask(handler, ports)
    assert "GET /ok?q=1 HTTP/1.1\r\n" in requests[0]
    assert "X-Test: 1\r\n" in requests[0]
    assert "Host: example.com\r\n" in requests[0]
    assert "User-Agent: kube-probe/" in requests[0]


async def test_empty_headers_take_away_what_is_sent_by_itself_and_line_ends_are_refused(server):
    port, requests = server
    empty = [{"name": "User-Agent", "value": ""}, {"name": "accept", "value": ""}]
    assert (await ask({"httpGet": {"path": "/ok", "port": port, "httpHeaders": empty}})).ok
    assert "user-agent" not in requests[0].lower() and "accept" not in requests[0].lower()
    hostile = [{"name": "X", "value": "a\r\nHost: other"}]
    answer = await ask({"httpGet": {"path": "/ok", "port": port, "httpHeaders": hostile}})
    assert answer.ok is False and len(requests) == 1


async def test_https_is_not_verified_and_plain_http_on_that_port_fails(server, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(tmp_path).issue("other"))

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWERS["/ok"])
        writer.close()

    secure = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = secure.sockets[0].getsockname()[1]
    handler = {"path": "/", "port": port, "scheme": "HTTPS"}
    assert (await ask({"httpGet": handler})).output == "hi"
    secure.close()
    plain, _ = server
    # (It waits for the end of a request, as we do for its certificate.)
    handler = {"path": "/rubbish", "port": plain, "scheme": "HTTPS"}
    answer = await ask({"httpGet": handler}, timeout=1.0)
    assert answer.ok is False


async def test_http_that_does_not_answer_in_time_fails(server):
    port, _ = server
    answer = await ask({"httpGet": {"path": "/hang", "port": port}}, timeout=0.05)
    assert answer.ok is False
    assert "context deadline exceeded" in answer.output


async def test_tcp(server):
    port, _ = server
    assert (await ask({"tcpSocket": {"port": port}})).ok
    refused = await ask({"tcpSocket": {"port": 1}})
    assert refused.ok is False
    assert refused.output == "dial tcp 127.0.0.1:1: connect: connection refused"


async def test_a_port_that_nobody_named_counts_for_nothing():
    answer = await ask({"tcpSocket": {"port": "nope"}})
    assert answer.ok is None
    assert answer.output == "couldn't find port: nope"


async def test_exec():
    runtime = FakeRuntime()
    runtime.exec_results["good"] = ExecResult(0, b"yes", b"")
    runtime.exec_results["bad"] = ExecResult(1, b"out ", b"err")
    assert (await ask({"exec": {"command": ["good"]}}, runtime=runtime)).ok
    bad = await ask({"exec": {"command": ["bad"]}}, runtime=runtime)
    assert bad.ok is False and bad.output == "out err"
    runtime.fail["exec_sync"] = CRIError("too late", "DeadlineExceeded")
    late = await ask({"exec": {"command": ["bad"]}}, runtime=runtime, timeout=1)
    assert late.ok is False and late.output == 'command timed out: "bad" timed out after 1s'
    runtime.fail["exec_sync"] = CRIError("no such container")
    assert (await ask({"exec": {"command": ["bad"]}}, runtime=runtime)).ok is None


def test_a_probe_changes_its_mind_only_after_so_many_results_in_a_row():
    count = Count(success_threshold=2, failure_threshold=3, passing=False)
    assert [count.add(ok) for ok in (True, False, True, True)] == [False, False, False, True]
    assert count.passing
    assert [count.add(False) for _ in range(3)] == [False, False, True]
    assert not count.passing
