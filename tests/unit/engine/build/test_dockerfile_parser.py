"""Lines become instructions as the Dockerfile reference says."""

from __future__ import annotations

import pytest

from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.dockerfile.parser import parse


def originals(text: str) -> list[str]:
    return [node.original for node in parse(text).nodes]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nRUN b", ["FROM a", "RUN b"]),
        ("from a\r\nRUN b\r\n", ["from a", "RUN b"]),
        ("\ufeffFROM a", ["FROM a"]),
        ("# comment\n\n   \nFROM a\n  # another\n\tRUN x", ["FROM a", "RUN x"]),
        ("RUN a \\\n  b", ["RUN a   b"]),
        ("RUN a \\\n# comment\n  # indented\n  b", ["RUN a   b"]),
        ("RUN a \\\n\n\n  b", ["RUN a   b"]),
        ("RUN a \\  \n  b", ["RUN a   b"]),
        ("RUN a\\\nb", ["RUN ab"]),
        ("RUN a \\\\\nRUN b", ["RUN a \\\\", "RUN b"]),
        ("RUN a # no comment", ["RUN a # no comment"]),
        ("RUN a \\", ["RUN a"]),
        ("# escape=`\nRUN a `\n b \\\nRUN c", ["RUN a  b \\", "RUN c"]),
        ("# syntax=x\n# escape = `\nRUN a `\n b", ["RUN a  b"]),
        ("# a comment\n# escape=`\nRUN a `\nRUN b", ["RUN a `", "RUN b"]),
        ("#Escape=`\nRUN a `\n b", ["RUN a  b"]),
    ],
)
def test_logical_lines(text: str, expected: list[str]) -> None:
    assert originals(text) == expected


def test_lines_are_numbered_from_where_they_begin() -> None:
    nodes = parse("# x\nFROM a\n\nRUN b \\\n c\nRUN <<E\nx\nE\nRUN d").nodes
    assert [node.line for node in nodes] == [2, 4, 6, 9]


def test_an_empty_line_in_a_continuation_is_warned_of() -> None:
    assert "Empty continuation line found in:\n    RUN a  b" in parse("RUN a \\\n\n b").warnings[0]
    assert len(parse("RUN a \\\n\n b").warnings) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file with no instructions"),
        ("# only\n\n", "file with no instructions"),
        ("# escape=x\nFROM a", "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM a", "only one escape parser directive can be used"),
        ("RUN <<E\nx", "unterminated heredoc"),
        ('CMD ["a", 1]', "when using JSON array syntax, arrays must be comprised of strings only"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=1 b", 'Syntax error - can\'t find = in "b". Must be of the form: name=value'),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        parse(text)
    assert raised.value.message == message


@pytest.mark.parametrize(
    ("line", "flags", "rest"),
    [
        ("COPY --from=a --chown=b x y", ["--from=a", "--chown=b"], "x y"),
        ("RUN --mount=type=cache,target=/x  a  b", ["--mount=type=cache,target=/x"], "a  b"),
        ('RUN --mount="a b" c', ["--mount=a b"], "c"),
        ("RUN -- --x", [], "--x"),
        ("RUN a --b", [], "a --b"),
        ("RUN --a\\ b c", ["--a b"], "c"),
        ("RUN", [], ""),
    ],
)
def test_flags_come_first(line: str, flags: list[str], rest: str) -> None:
    (node,) = parse(line).nodes
    assert (node.flags, node.rest) == (flags, rest)


@pytest.mark.parametrize(
    ("line", "args", "json"),
    [
        ('CMD ["a", "b c"]', ["a", "b c"], True),
        ('CMD  [ "a" ] ', ["a"], True),
        ("CMD []", [], True),
        ("CMD ['a']", ["['a']"], False),
        ('CMD ["a"', ['["a"'], False),
        ("CMD [ -f x ] && y", ["[ -f x ] && y"], False),
        ('COPY ["a b", "c"]', ["a b", "c"], True),
        ("COPY a  b c", ["a", "b", "c"], False),
        ('VOLUME ["/a"]', ["/a"], True),
        ("VOLUME /a /b", ["/a", "/b"], False),
        ('HEALTHCHECK CMD ["x", "y"]', ["CMD", "x", "y"], True),
        ("HEALTHCHECK CMD x y", ["CMD", "x y"], False),
        ("EXPOSE 80 90", ["80", "90"], False),
        ("WORKDIR a b", ["a b"], False),
    ],
)
def test_exec_and_shell_forms(line: str, args: list[str], json: bool) -> None:
    (node,) = parse(line).nodes
    assert (node.args, node.json) == (args, json)


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("ENV a b c", [("a", "b c")]),
        ("ENV a=b c=d", [("a", "b"), ("c", "d")]),
        ("ENV a='x y' b=\"z w\" c=e\\ f", [("a", "'x y'"), ("b", '"z w"'), ("c", "e\\ f")]),
        ("ENV a=", [("a", "")]),
        ("ENV a==", [("a", "=")]),
        ("LABEL x y", [("x", "y")]),
        ("ARG a", [("a", None)]),
        ("ARG a=1 b c=", [("a", "1"), ("b", None), ("c", "")]),
    ],
)
def test_pairs(line: str, pairs: list[tuple[str, str | None]]) -> None:
    (node,) = parse(line).nodes
    assert node.pairs == pairs


def test_heredocs_are_taken_out_of_the_text() -> None:
    text = "RUN <<A cat <<-'B' 3<<\"C\"\na $x\nA\n\tb\n\tB\nc\n\nC\nCOPY <<F /f\nx\\\nF\nRUN y"
    run, copy, last = parse(text).nodes
    shown = [(h.name, h.content, h.expand, h.chomp, h.descriptor) for h in run.heredocs]
    assert shown == [
        ("A", "a $x\n", True, False, 0),
        ("B", "b\n", False, True, 0),
        ("C", "c\n\n", False, False, 3),
    ]
    assert copy.heredocs[0].content == "x\\\n" and last.original == "RUN y"


@pytest.mark.parametrize("line", ["RUN cat <<< word", "RUN echo '<<E'", "CMD <<E", "RUN a << b"])
def test_what_only_looks_like_a_heredoc(line: str) -> None:
    assert parse(line).nodes[0].heredocs == []


def test_a_trigger_may_have_a_heredoc() -> None:
    (node,) = parse("ONBUILD RUN <<E\nx\nE").nodes
    assert node.heredocs[0].content == "x\n"
