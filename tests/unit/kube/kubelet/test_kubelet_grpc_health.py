"""gRPC probes against the real gRPC library."""

import asyncio

import grpc
import pytest
from fake_runtime import FakeRuntime
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.kubelet.grpc_health import RPCError, decode_answer, encode_request
from wherry.kube.kubelet.hooks import PROBE_AGENT, Asker, Target


@pytest.fixture
async def server():
    seen = []

    async def check(request, context):
        seen.append((request, dict(context.invocation_metadata())["user-agent"]))
        service = request[2:].decode()
        if service == "slow":
            await asyncio.sleep(60)
        if service == "unknown":
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service: 100 %")
        return b"\x08\x02" if service == "sick" else b"\x08\x01"

    handler = grpc.unary_unary_rpc_method_handler(check)
    made = grpc.aio.server()
    made.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})]
    )
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()
    yield port, seen
    await made.stop(None)


async def ask(port, service="", timeout=60.0):
    handler = {"grpc": {"port": port, "service": service}}
    return await Asker(FakeRuntime()).ask(handler, Target("c", "127.0.0.1"), timeout, PROBE_AGENT)


async def test_a_server_is_healthy_or_not(server):
    port, seen = server
    assert (await ask(port)).ok
    assert seen[0][0] == b"" and seen[0][1] == PROBE_AGENT
    sick = await ask(port, "sick")
    assert sick.ok is False
    assert sick.output == 'service unhealthy (responded with "NOT_SERVING")'
    unknown = await ask(port, "unknown")
    assert unknown.output == (
        "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service: 100 %"
    )
    slow = await ask(port, "slow", 0.5)
    assert slow.output == "timeout: health rpc did not complete within 0.5s"


async def test_a_server_without_health_says_so():
    made = grpc.aio.server()
    port = made.add_insecure_port("127.0.0.1:0")
    await made.start()
    answer = await ask(port)
    assert "this server does not implement the grpc health protocol" in answer.output
    await made.stop(None)
    gone = await ask(port, timeout=2.0)
    assert gone.ok is False
    assert gone.output == (
        f'timeout: failed to connect service "127.0.0.1:{port}" within 2s: '
        "context deadline exceeded"
    )


async def test_what_is_no_grpc_fails():
    async def serve(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    plain = await asyncio.start_server(serve, "127.0.0.1", 0)
    answer = await ask(plain.sockets[0].getsockname()[1])
    assert answer.ok is False and "code = Unavailable" in answer.output
    plain.close()


@given(st.binary(max_size=40))
def test_rubbish_is_refused_in_words(data):
    try:
        assert decode_answer({":status": "200", "grpc-status": "0"}, data) >= 0
    except RPCError as error:
        assert str(error)


def test_long_names_are_encoded():
    assert encode_request("x" * 300)[5:8] == b"\x0a\xac\x02"
