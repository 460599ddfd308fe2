"""Which files COPY takes, and which .dockerignore leaves out."""

from __future__ import annotations

import pytest

from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.dockerfile.patterns import (
    IgnoreFile,
    has_wildcards,
    matcher,
    read_ignore_file,
)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.go", "a.go", True),
        ("*.go", "d/a.go", False),
        ("d/*", "d/x", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("[^a]x", "/x", False),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("a.b", "axb", False),
        ("[]a]", "]", True),
    ],
)
def test_patterns_of_copy(pattern: str, path: str, matches: bool) -> None:
    assert bool(matcher(pattern).fullmatch(path)) is matches


@pytest.mark.parametrize("pattern", ["[", "a[b", "x\\"])
def test_malformed_patterns(pattern: str) -> None:
    with pytest.raises(DockerfileError, match="syntax error in pattern"):
        matcher(pattern)


def test_what_is_a_pattern() -> None:
    assert [has_wildcards(text) for text in ("a*", "a?", "[a]", "a\\*", "a")] == [
        *(True, True, True, False, False),
    ]


@pytest.mark.parametrize(
    ("rules", "path", "excluded"),
    [
        (["a"], "a", True),
        (["a"], "a/b/c", True),
        (["a"], "b/a", False),
        (["/a"], "a", True),
        (["a/"], "a/x", True),
        (["./a"], "a", True),
        (["*/a"], "b/a", True),
        (["*/a"], "c/b/a", False),
        (["**/a"], "a", True),
        (["**/a"], "c/b/a", True),
        (["**"], "x/y", True),
        (["a/**"], "a/b/c", True),
        (["a/**/z"], "a/z", True),
        (["a/**/z"], "a/b/c/z", True),
        (["**/*.go"], "d/x.go", True),
        (["*.md", "!README.md"], "README.md", False),
        (["*.md", "!README.md"], "x.md", True),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["*", "!keep"], "keep/x", False),
        (["*", "!keep/x"], "keep/y", True),
        (["dir", "!dir/in"], "dir/in", False),
        (["!a"], "a", False),
        (["a?"], "ab", True),
        (["t.xt"], "text", False),
        (["../a"], "a", False),
    ],
)
def test_ignore_rules(rules: list[str], path: str, excluded: bool) -> None:
    assert IgnoreFile(rules).excludes(path) is excluded


def test_an_ignore_file_has_comments_and_blanks() -> None:
    text = "\ufeff# no\n\n  a/ \n!  b \n/c/../d\n #e\n"
    assert read_ignore_file(text) == ["a", "!b", "d", "#e"]


def test_an_exception_needs_a_pattern() -> None:
    with pytest.raises(DockerfileError, match="illegal exclusion pattern"):
        IgnoreFile(["!"])
