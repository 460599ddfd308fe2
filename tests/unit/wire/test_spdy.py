"""SPDY frames: bytes in, events out."""

import struct
import zlib

import pytest

from wherry.wire.spdy import (
    DICTIONARY,
    DataReceived,
    GoAway,
    PingReceived,
    Session,
    SpdyError,
    StreamAccepted,
    StreamOpened,
    StreamReset,
)


def test_the_dictionary_is_the_one_of_the_specification():
    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


def test_a_stream_opened_by_one_end_is_seen_by_the_other_with_lower_case_header_names():
    client, server = Session(server=False), Session(server=True)
    number, data = client.open({"streamType": "stdin"})
    assert number == 1
    assert server.feed(data) == [StreamOpened(1, {"streamtype": "stdin"}, False)]
    assert client.feed(server.accept(1)) == [StreamAccepted(1, {})]


def test_header_compression_carries_its_state_from_stream_to_stream():
    client, server = Session(server=False), Session(server=True)
    for index, kind in enumerate(["error", "stdin", "stdout", "stderr", "resize"]):
        number, data = client.open({"streamtype": kind, "port": str(index)})
        assert number == 2 * index + 1
        (event,) = server.feed(data)
        assert event == StreamOpened(number, {"streamtype": kind, "port": str(index)}, False)


def test_data_arrives_whole_however_the_bytes_are_cut():
    client, server = Session(server=False), Session(server=True)
    _, opening = client.open({})
    wire = opening + client.data(1, b"hello ") + client.data(1, b"world", finish=True)
    events = [event for byte in wire for event in server.feed(bytes([byte]))]
    assert events[1:] == [DataReceived(1, b"hello ", False), DataReceived(1, b"world", True)]


def test_long_data_is_cut_into_frames_and_only_the_last_one_ends_the_stream():
    client, server = Session(server=False), Session(server=True)
    server.feed(client.open({})[1])
    payload = bytes(range(256)) * 400
    events = server.feed(client.data(1, payload, finish=True))
    assert b"".join(e.data for e in events) == payload
    assert [e.finished for e in events] == [False] * (len(events) - 1) + [True]


def test_a_ping_of_the_peer_is_answered_with_the_same_number():
    server = Session(server=True)
    ping = struct.pack(">III", 0x80030006, 4, 7)
    assert server.feed(ping) == [PingReceived(ping)]


def test_the_answer_to_our_own_ping_is_no_event():
    assert Session(server=True).feed(struct.pack(">III", 0x80030006, 4, 8)) == []


def test_reset_and_goaway_are_told():
    client, server = Session(server=False), Session(server=True)
    assert server.feed(client.reset(1, 5)) == [StreamReset(1, 5)]
    assert server.feed(client.go_away(2)) == [GoAway(2)]


def test_window_updates_and_settings_are_passed_over():
    server = Session(server=True)
    frames = struct.pack(">IIII", 0x80030009, 8, 1, 100) + struct.pack(">III", 0x80030004, 4, 0)
    assert server.feed(frames) == []


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">II", 0x80020001, 0),  # SPDY/2
        struct.pack(">II", 0, 0),  # data on stream 0
        struct.pack(">II", 0x80030001, 0xFFFFFF),  # a control frame of 16 MiB
        struct.pack(">II", 0x80030001, 4) + b"abcd",  # too short
        struct.pack(">IIIIH", 0x80030001, 14, 1, 0, 0) + b"abcd",  # not compressed
    ],
)
def test_what_is_not_spdy_is_refused(data):
    with pytest.raises(SpdyError):
        Session(server=True).feed(data)


def test_a_stream_number_may_not_be_used_twice_nor_be_ours():
    client, server = Session(server=False), Session(server=True)
    server.feed(client.open({})[1])
    again = Session(server=False)
    with pytest.raises(SpdyError):
        server.feed(again.open({})[1])


def test_a_header_block_that_inflates_without_end_is_refused():
    server = Session(server=True)
    deflate = zlib.compressobj(9, wbits=zlib.MAX_WBITS, zdict=DICTIONARY)
    block = deflate.compress(bytes(8 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    frame = struct.pack(">IIIIH", 0x80030001, 10 + len(block), 1, 0, 0) + block
    with pytest.raises(SpdyError, match="too long"):
        server.feed(frame)
