import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api.errors import StatusError
from wherry.kube.api.schema import parse_json, parse_yaml
from wherry.wire import json_syntax


def test_json_is_read():
    assert parse_json(b'{"a":[1,2.5,null,true,"x"]}') == ({"a": [1, 2.5, None, True, "x"]}, [])


def test_keys_that_stand_twice_are_told_with_their_paths():
    value, complaints = parse_json(b'{"metadata":{"name":1,"name":2},"l":[{"a":1,"a":2,"a":3}]}')
    assert value == {"metadata": {"name": 2}, "l": [{"a": 3}]}
    assert complaints == ['duplicate field "metadata.name"', 'duplicate field "l[0].a"']


@pytest.mark.parametrize(
    "text",
    [
        b'{"a" :1, "b":":\\":", "a":2}',
        b'{"a":":","a":"\\u003a"}',
        b'{"\\u0061":1,"a":2}',
        b'{"a":{"x":1},"a":{}}',
    ],
)
def test_no_writing_hides_a_key_that_stands_twice(text):
    assert parse_json(text)[1] == ['duplicate field "a"']


@pytest.mark.parametrize("text", [b'{"a":":::", "b" : "\\":"}', b'{"a":"\\u003a\\\\u"}', b'[":"]'])
def test_colons_in_texts_are_no_keys(text):
    assert parse_json(text)[1] == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "unexpected end of JSON input"),
        (b"{", "unexpected end of JSON input"),
        (b'{"a"', "unexpected end of JSON input"),
        (b'{"a":"b', "unexpected end of JSON input"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b"{]", "invalid character ']' looking for beginning of object key string"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b"{} x", "invalid character 'x' after top-level value"),
        (b"[trux]", "invalid character 'x' in literal true (expecting 'e')"),
        (b'["\n"]', "invalid character '\\n' in string literal"),
        (b'["\x01"]', "invalid character '\\x01' in string literal"),
        (b'["\\q"]', "invalid character 'q' in string escape code"),
        (b'["\\u12G4"]', "invalid character 'G' in \\u hexadecimal character escape"),
        (b"[-x]", "invalid character 'x' in numeric literal"),
        (b"[1.x]", "invalid character 'x' after decimal point in numeric literal"),
        (b"[1ex]", "invalid character 'x' in exponent of numeric literal"),
        (b"[01]", "invalid character '1' after array element"),
        (b"[']", "invalid character '\\'' looking for beginning of value"),
    ],
)
def test_broken_json_is_told_in_gos_words(body: bytes, fault: str):
    with pytest.raises(StatusError) as caught:
        parse_json(body, "Pod")
    assert caught.value.code == 400
    assert caught.value.message.startswith(
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; "
        f"json parse error: {fault} ("
    )


def test_the_start_of_the_body_is_shown():
    with pytest.raises(StatusError, match=r"\(<empty>\)$"):
        parse_json(b"")
    with pytest.raises(StatusError, match=r"\(\{a\)$"):
        parse_json(b"{a")
    with pytest.raises(StatusError, match=r"\(7878\)$"):
        parse_json(b"xx")
    with pytest.raises(StatusError, match=r"\(\{a{29} \.\.\.\)$"):
        parse_json(b"{" + b"a" * 100)


@pytest.mark.parametrize("depth", [301, 1000, 2000, 100_000])
def test_deep_bodies_are_refused_not_a_crash(depth: int):
    for body in (
        b"[" * depth + b"]" * depth,
        b'{"a":' * depth + b"1" + b"}" * depth,
        b'{"a":1,"a":' * depth + b"1" + b"}" * depth,
    ):
        for parse in (parse_json, parse_yaml):
            with pytest.raises(StatusError):
                parse(body)


def test_bodies_may_be_as_deep_as_any_kind_needs():
    body = b'{"a":[' * 150 + b"]}" * 150
    assert parse_json(body) == parse_yaml(body)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_right_json_has_no_fault(value: object):
    assert json_syntax.fault(json.dumps(value).encode()) == ""


@given(JSON, st.integers(0, 200))
def test_cut_json_ends_unexpectedly(value: object, at: int):
    text = json.dumps([value, "end"]).encode()
    cut = text[: min(at, len(text) - 1)]
    assert json_syntax.fault(cut) == "unexpected end of JSON input"


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(body: bytes):
    for parse in (parse_json, parse_yaml):
        try:
            parse(body)
        except StatusError as error:
            assert error.code == 400


YAML = b"""
date: 2026-01-01
clock: 22:22
float: 1e3
whole: 3.0
octal: 0777
hex: 0x1F
truth: yes
text: "1"
tagged: !!str 5
counted: !!int "7"
nothing: ~
empty:
block: |
  a
  b
1: one
true: t
"""


def test_yaml_is_read_as_go_does():
    assert parse_yaml(YAML) == (
        {
            "date": "2026-01-01",
            "clock": "22:22",
            "float": 1000,
            "whole": 3,
            "octal": 511,
            "hex": 31,
            "truth": True,
            "text": "1",
            "tagged": "5",
            "counted": 7,
            "nothing": None,
            "empty": None,
            "block": "a\nb\n",
            "1": "one",
            "true": "t",
        },
        [],
    )


def test_yaml_merge_keys_and_anchors():
    value, _ = parse_yaml(b"a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  c: 3\ne: *x\n")
    assert value["d"] == {"b": 1, "c": 3} and value["e"] == {"b": 1, "c": 2}
    value, _ = parse_yaml(b"a: &x {b: 1}\nc: &y {b: 2, d: 3}\ne: {<<: [*x, *y]}\n")
    assert value["e"] == {"b": 1, "d": 3}


def test_only_the_first_document_counts():
    assert parse_yaml(b"a: 1\n---\na: 2\n") == ({"a": 1}, [])
    assert parse_yaml(b"") == (None, [])


def test_a_yaml_key_set_twice_is_told_with_its_line():
    value, complaints = parse_yaml(b"a: 1\nb:\n  c: 1\n  c: 2\n")
    assert value == {"a": 1, "b": {"c": 2}}
    assert complaints == ['yaml: unmarshal errors:\n  line 4: key "c" already set in map']


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"a: b: c\n", "yaml: line 1: mapping values are not allowed in this context"),
        (b"a: 1\nb: [1,2\n", "yaml: line 2: did not find expected ',' or ']'"),
        (b"a: *x\n", "yaml: unknown anchor 'x' referenced"),
        (b"a: &x [*x]\n", "yaml: anchor 'x' value contains itself"),
        (b"{[]: 1}\n", "yaml: line 1: a map or list cannot be a key"),
        (b"<<: 1\n", "yaml: map merge requires map or sequence of maps as the value"),
        (b"a: .inf\n", "json: unsupported value: .inf"),
    ],
)
def test_broken_yaml_is_told(body: bytes, fault: str):
    with pytest.raises(StatusError) as caught:
        parse_yaml(body, "Pod")
    assert f"error converting YAML to JSON: {fault}" in caught.value.message


def test_a_yaml_bomb_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(StatusError, match="excessive aliasing"):
        parse_yaml("\n".join(lines).encode())
