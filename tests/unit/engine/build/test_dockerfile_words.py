"""Variables and quotes in words."""

from __future__ import annotations

import pytest

from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.dockerfile.words import expand, expand_to_words

VARIABLES = {"x": "abc", "empty": "", "path": "/usr/local/lib", "two": "a b", "n1": "num"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("plain", "plain"),
        ("$x", "abc"),
        ("${x}", "abc"),
        ("$x$x", "abcabc"),
        ("a${x}b", "aabcb"),
        ("$xb", ""),
        ("$n1.txt", "num.txt"),
        ("$unset", ""),
        ("'$x'", "$x"),
        ('"$x y"', "abc y"),
        ("\\$x", "$x"),
        ('"\\$x"', "$x"),
        ('"a\\"b"', 'a"b'),
        ('"a\\nb"', "a\\nb"),
        ("a\\ b", "a b"),
        ("\\\\", "\\"),
        ("a\\", "a"),
        ("$", "$"),
        ("$.", "$."),
        ("a$", "a$"),
        ("it''s", "its"),
        ("${x:-y}", "abc"),
        ("${unset:-y}", "y"),
        ("${empty:-y}", "y"),
        ("${empty-y}", ""),
        ("${unset-y}", "y"),
        ("${x:+y}", "y"),
        ("${empty:+y}", ""),
        ("${empty+y}", "y"),
        ("${unset+y}", ""),
        ("${x:?no}", "abc"),
        ("${empty?no}", ""),
        ("${unset:-$x}", "abc"),
        ("${unset:-${x}d}", "abcd"),
        ("${unset:-'a b'}", "a b"),
        ("${unset:-a\\}b}", "a}b"),
        ("${x#a}", "bc"),
        ("${path#*/}", "usr/local/lib"),
        ("${path##*/}", "lib"),
        ("${path%/*}", "/usr/local"),
        ("${path%%/*}", ""),
        ("${path%?}", "/usr/local/li"),
        ("${path%%l*}", "/usr/"),
        ("${x#z}", "abc"),
        ("${unset#a}", ""),
        ("${path/l/L}", "/usr/Local/lib"),
        ("${path//l/L}", "/usr/LocaL/Lib"),
        ("${path/local/}", "/usr//lib"),
        ("${path//\\//-}", "-usr-local-lib"),
        ("${x/?/z}", "zbc"),
        ("${x/b*/z}", "az"),
    ],
)
def test_expansion(word: str, expected: str) -> None:
    assert expand(word, VARIABLES) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ('"a', "unexpected end of statement while looking for matching double-quote"),
        ("${x", "syntax error: missing '}'"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${x:-y", "syntax error: missing '}'"),
        ("${x:=y}", "unsupported modifier (:=) in substitution"),
        ("${x^}", "unsupported modifier (^) in substitution"),
        ("${unset:?is needed}", "unset: is needed"),
        ("${unset?}", "unset: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
    ],
)
def test_what_cannot_be_expanded(word: str, message: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        expand(word, VARIABLES)
    assert raised.value.message.startswith("failed to process ")
    assert raised.value.message.endswith(message)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("$two", ["a", "b"]),
        ('"$two"', ["a b"]),
        ("x$two", ["xa", "b"]),
        ("$unset", []),
        ("''", [""]),
        ("a b", ["a", "b"]),
    ],
)
def test_words(word: str, expected: list[str]) -> None:
    assert expand_to_words(word, VARIABLES) == expected


def test_another_escape_character() -> None:
    assert expand("`$x\\", {"x": "1"}, "`") == "$x\\"
