"""Answers of HTTP servers as they come in, cut anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.kubelet.http_get import MAX_BODY, Answered, ProbeError

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n4\r\nhell\r\n1\r\no\r\n0\r\n\r\n"
# As a CGI script has it that says nothing but an empty line.
BARE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\n\nhello"


def feed(data, cuts=()):
    answer, position = Answered(), 0
    for cut in cuts:
        answer.feed(data[position : position + cut])
        position += cut
    answer.feed(data[position:])
    return answer


@given(st.sampled_from([PLAIN, CHUNKED, BARE]), st.lists(st.integers(1, 20), max_size=10))
def test_it_does_not_matter_how_an_answer_is_cut(data, cuts):
    answer = feed(data, cuts)
    assert (answer.done, answer.status, answer.body) == (True, 200, "hello")


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=10))
def test_whatever_comes_is_an_answer_or_a_fault(data, cuts):
    try:
        answer = feed(data, cuts)
        answer.end()
    except ProbeError:
        return
    assert answer.done and answer.status


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 99999999\r\n"])
def test_no_more_than_the_beginning_of_a_body_is_waited_for(framing):
    answer = feed(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n" + b"x" * (MAX_BODY + 5))
    assert answer.done
    assert len(answer.body) == MAX_BODY


def test_a_chunk_without_end_does_not_fill_the_memory():
    answer = feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n")
    for _ in range(100):
        if not answer.done:
            answer.feed(b"x" * 1000)
    assert answer.done
