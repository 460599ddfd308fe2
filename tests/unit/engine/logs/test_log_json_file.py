import io
import json

from hypothesis import example, given
from hypothesis import strategies as st

from wherry.engine.logs.formats import Lines, fixed
from wherry.engine.logs.json_file import JSONDecoder, encode, encode_attributes, escape
from wherry.engine.logs.types import Partial, Piece

TIME = 1_714_557_600_000_000_120
STAMP = b"2024-05-01T10:00:00.00000012Z"


def escape_as_go(data: bytes) -> bytes:
    """The rules, one character at a time."""
    output, at = bytearray(), 0
    names = {0x5C: b"\\\\", 0x22: b'\\"', 0x0A: b"\\n", 0x0D: b"\\r"}
    while at < len(data):
        byte = data[at]
        if byte < 0x80:
            if byte in names:
                output += names[byte]
            elif byte < 0x20 or byte in b"<>&":
                output += b"\\u%04x" % byte
            else:
                output.append(byte)
            at += 1
            continue
        for size in (2, 3, 4):
            try:
                character = data[at : at + size].decode()
            except UnicodeDecodeError:
                continue
            if len(character) == 1:
                break
        else:
            output += b"\\ufffd"
            at += 1
            continue
        if character in "\u2028\u2029":
            output += b"\\u%04x" % ord(character)
        else:
            output += character.encode()
        at += size
    return bytes(output)


@given(st.binary(max_size=200))
@example(b"a\\n\\\\t\t\b\f?\x00\x7f\\")
@example(b'\xe2\x82 \xed\xa0\x80 \xf0\x9f\x9a\x80 ? \xe2\x80\xa8 \xff\xef\xbf\xbd <>&"\\')
@example(bytes(range(256)))
def test_text_is_escaped_as_dockerd_does(data):
    assert escape(data) == escape_as_go(data)


@given(st.text(alphabet='\\"nut\n\r\t\x7f<é', max_size=40))
def test_text_can_be_read_back(text):
    assert json.loads(b'"%s"' % escape(text.encode())) == text


def test_a_line_is_as_dockerd_writes_it():
    assert encode(Piece(2, TIME, b"a <b>\n\n")) == (
        b'{"log":"a \\u003cb\\u003e\\n","stream":"stderr","time":"%s"}\n'
        b'{"log":"\\n","stream":"stderr","time":"%s"}\n' % (STAMP, STAMP)
    )


def test_parts_have_no_newline_but_for_the_last():
    first = encode(Piece(1, TIME, b"abc", Partial("x", 1, False)))
    last = encode(Piece(1, TIME, b"def\n", Partial("x", 2, True)))
    assert first == b'{"log":"abc","stream":"stdout","time":"%s"}\n' % STAMP
    assert last == b'{"log":"def\\n","stream":"stdout","time":"%s"}\n' % STAMP


def test_attributes_stand_before_the_time():
    attributes = b'"attrs":' + encode_attributes({"b": "<", "a": "1"}) + b","
    assert encode(Piece(1, TIME, b"x\n"), attributes) == (
        b'{"log":"x\\n","stream":"stdout","attrs":{"a":"1","b":"\\u003c"},"time":"%s"}\n' % STAMP
    )


def test_entries_are_found_wherever_the_file_is_cut():
    data = encode(Piece(1, TIME, b"one\ntwo\n")) + encode(Piece(2, TIME, b"\xff\n"))
    for step in (1, 7, 1000):
        decoder = JSONDecoder()
        entries = [
            e for at in range(0, len(data), step) for e in decoder.feed(data[at : at + step])
        ]
        assert [(stream, text) for stream, _, text, _ in entries] == [
            (1, b"one\n"),
            (1, b"two\n"),
            (2, "\ufffd\n".encode()),
        ]


def test_what_is_no_entry_is_left_out():
    good = encode(Piece(1, TIME, b"x\n"))
    data = b'{"log":"torn' + b"\n" + good + b"[]\n{}\n" + b'{"log":1,"time":"x"}\n' + good
    assert [text for _, _, text, _ in JSONDecoder().feed(data)] == [b"x\n", b"x\n"]


def test_times_compare_as_text():
    assert fixed("2024-05-01T10:00:00.12Z") == "2024-05-01T10:00:00.120000000Z"
    assert fixed("2024-05-01T10:00:00Z") == "2024-05-01T10:00:00.000000000Z"
    assert fixed("2024-05-01T12:00:00.5+02:00") == "2024-05-01T10:00:00.500000000Z"


@given(st.lists(st.integers(0, 70_000), max_size=8), st.integers(0, 9))
def test_the_tail_holds_as_many_lines_as_asked_for(lengths, wanted):
    lines = [b"x" * length + b"\n" for length in lengths]
    data = b"".join(lines)
    offset, found = Lines().tail(io.BytesIO(data), wanted)
    assert found == min(wanted, len(lines))
    assert data[offset:] == b"".join(lines[len(lines) - found :])


def test_a_torn_line_is_seen_at_the_end():
    data = b"a\nb\ntorn"
    assert Lines().end(io.BytesIO(data)) == 4
    assert Lines().end(io.BytesIO(b"torn")) == 0
    assert Lines().end(io.BytesIO(b"a\n" + b"x" * 200_000)) == 2
