import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.wire.docker_stream import (
    MAXIMUM_PAYLOAD,
    STDERR,
    STDOUT,
    Demultiplexer,
    FrameError,
    frame,
)


def test_a_frame_is_eight_bytes_of_header_and_the_payload():
    assert frame(STDERR, b"abc") == b"\x02\0\0\0\0\0\0\x03abc"


def test_long_output_is_split_into_frames_a_reader_can_hold():
    data = b"x" * (MAXIMUM_PAYLOAD + 1)
    frames = Demultiplexer().feed(frame(STDOUT, data))
    assert [len(payload) for _, payload in frames] == [MAXIMUM_PAYLOAD, 1]


def test_a_raw_stream_is_not_taken_for_frames():
    with pytest.raises(FrameError):
        Demultiplexer().feed(b"$ echo hello\r\n")


@given(
    st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=50)), max_size=8),
    st.integers(1, 7),
)
def test_frames_survive_any_division_into_reads(frames, step):
    wire = b"".join(frame(stream, data) for stream, data in frames)
    reader = Demultiplexer()
    got = []
    for at in range(0, len(wire), step):
        got += reader.feed(wire[at : at + step])
    assert got == frames
    assert reader.pending == 0
