"""Protocols of exec and attach: negotiation, WebSocket messages, sizes, ends."""

import json

import pytest

from wherry.wire.remotecommand import (
    SPDY_PROTOCOLS,
    WEBSOCKET_PROTOCOLS,
    Channel,
    ProtocolError,
    ResizeReader,
    StreamOptions,
    Unsupported,
    decode_message,
    encode_end,
    encode_message,
    exit_status,
    negotiate,
    protocol_version,
    success,
)


def test_the_first_known_protocol_of_the_clients_list_is_taken():
    assert negotiate(["v9.x", "v4.channel.k8s.io", "v3.channel.k8s.io"], SPDY_PROTOCOLS) == (
        "v4.channel.k8s.io"
    )
    assert negotiate(["v5.channel.k8s.io, v4.channel.k8s.io"], WEBSOCKET_PROTOCOLS) == (
        "v5.channel.k8s.io"
    )


def test_a_client_that_lists_nothing_speaks_version_1():
    assert negotiate([], SPDY_PROTOCOLS) == ""
    assert protocol_version("") == 1
    assert protocol_version("channel.k8s.io") == 1
    assert protocol_version("v4.base64.channel.k8s.io") == 4


def test_a_client_with_unknown_protocols_only_is_told_so():
    with pytest.raises(Unsupported, match=r"client supports \[v9 v8\]"):
        negotiate(["v9", "v8"], SPDY_PROTOCOLS)


def test_streams_are_asked_for_by_the_kubelets_names_and_by_the_apis():
    by_kubelet = StreamOptions.from_query({"input": "1", "output": "1", "error": "1"})
    by_api = StreamOptions.from_query({"stdin": "true", "stdout": "true", "stderr": "true"})
    assert by_kubelet == by_api == StreamOptions(True, True, True, False)


def test_a_terminal_has_no_stderr_of_its_own_but_a_resize_channel_from_v3_on():
    options = StreamOptions.from_query({"stdin": "1", "stdout": "1", "stderr": "1", "tty": "1"})
    base = {Channel.ERROR, Channel.STDIN, Channel.STDOUT}
    assert options.channels(2) == base
    assert options.channels(4) == base | {Channel.RESIZE}


def test_a_command_without_any_stream_is_refused():
    with pytest.raises(ProtocolError, match="at least 1 of"):
        StreamOptions.from_query({"tty": "1"})


@pytest.mark.parametrize("protocol", [*WEBSOCKET_PROTOCOLS, ""])
def test_messages_come_back_as_they_were_sent(protocol):
    message = encode_message(protocol, Channel.STDERR, b"\x00\xffx")
    assert isinstance(message, str) == ("base64" in protocol)
    assert decode_message(protocol, message) == (2, b"\x00\xffx")


def test_malformed_messages_are_refused():
    with pytest.raises(ProtocolError):
        decode_message("v4.channel.k8s.io", b"")
    with pytest.raises(ProtocolError):
        decode_message("base64.channel.k8s.io", "0###")


def test_sizes_are_read_however_they_are_cut():
    reader = ResizeReader()
    assert reader.feed(b'{"Width":80,"Hei') == []
    assert reader.feed(b'ght":24}\n{"Width":100,"Height":50}') == [(80, 24), (100, 50)]
    with pytest.raises(ProtocolError):
        reader.feed(b"nonsense")


def test_the_exit_code_travels_as_a_cause_from_v4_on_and_as_text_before():
    status = json.loads(encode_end(4, exit_status(7)))
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    assert b"non-zero exit code" in encode_end(1, exit_status(7))
    assert encode_end(1, success()) == b""
    assert json.loads(encode_end(5, exit_status(0)))["status"] == "Success"
