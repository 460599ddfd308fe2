"""From the text of a Dockerfile to its instructions as nodes.

Knows lines: parser directives, comments, continuations, here-documents; and how the words of each
instruction are told apart. What the words mean is for ``instructions``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from wherry.engine.build.dockerfile.errors import DockerfileError

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("escape", "syntax", "check")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)")
_WITH_HEREDOC = ("add", "copy", "run")
_LINE_LIMIT = 65535


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document; ``expand`` where its name stood without quotes."""

    name: str
    content: str
    expand: bool
    chomp: bool
    descriptor: int = 0


@dataclass(slots=True)
class Node:
    """One instruction. ``json`` says that ``args`` come from the exec form.

    ``pairs`` are the ``name=value`` of ENV, LABEL and ARG, whose value is None without ``=``.
    """

    keyword: str
    original: str
    line: int
    rest: str = ""
    flags: list[str] = field(default_factory=list)
    args: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str | None]] = field(default_factory=list)
    json: bool = False
    heredocs: list[Heredoc] = field(default_factory=list)


@dataclass(slots=True)
class Parsed:
    """A whole file: its nodes, its escape character, and what its author should know."""

    nodes: list[Node]
    escape: str = "\\"
    directives: Mapping[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def parse(text: str) -> Parsed:
    """The nodes of a Dockerfile.

    Raises:
        DockerfileError: there are none, or one cannot be read.
    """
    lines = text.removeprefix("\ufeff").split("\n")
    if lines[-1] == "":
        lines.pop()
    directives = _directives(lines)
    escape = directives.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise DockerfileError(f"invalid escape token '{escape}' does not match ` or \\")
    parsed = Parsed([], escape, directives)
    continued = re.compile(
        rf"(?:^|(?<=[^{re.escape(escape)}]))((?:{re.escape(escape)}{{2}})*)"
        rf"{re.escape(escape)}[ \t]*$"
    )
    number = 0
    while number < len(lines):
        first = number + 1
        line = _clean(lines[number].lstrip())
        number += 1
        if line.startswith("#") or not line:
            continue
        line, ends = _continuation(line, continued)
        gap = False
        while not ends and number < len(lines):
            following = _clean(lines[number])
            number += 1
            if following.lstrip().startswith("#"):
                continue
            if not following.strip():
                gap = True
                continue
            part, ends = _continuation(following, continued)
            line += part
        if gap:
            parsed.warnings.append(f"[WARNING]: Empty continuation line found in:\n    {line}")
        if len(line) > _LINE_LIMIT:
            raise DockerfileError(
                f"dockerfile line greater than max allowed size of {_LINE_LIMIT - 1}"
            )
        if not line.strip():
            continue
        node = parse_line(line, escape, first)
        number = _read_heredocs(node, lines, number, escape)
        parsed.nodes.append(node)
    if any("Empty continuation line" in warning for warning in parsed.warnings):
        parsed.warnings.append(
            "[WARNING]: Empty continuation lines will become errors in a future release."
        )
    if not parsed.nodes:
        raise DockerfileError("file with no instructions")
    return parsed


def parse_line(line: str, escape: str = "\\", number: int = 1) -> Node:
    """The node of one logical line."""
    keyword, _, rest = line.strip().partition(" ")
    if "\t" in keyword:
        keyword, _, after = keyword.partition("\t")
        rest = f"{after} {rest}"
    flags, rest = _take_flags(rest.strip(), escape)
    node = Node(keyword.lower(), line.strip(), number, rest, flags)
    _SPLITTERS.get(node.keyword, _split_text)(node, escape)
    return node


def _clean(line: str) -> str:
    return line.removesuffix("\r")


def _directives(lines: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        match = _DIRECTIVE.fullmatch(_clean(line).strip())
        if match is None:
            break
        name = match[1].lower()
        if name not in _DIRECTIVES:
            continue
        if name in found:
            raise DockerfileError(f"only one {name} parser directive can be used")
        found[name] = match[2]
    return found


def _continuation(line: str, continued: re.Pattern[str]) -> tuple[str, bool]:
    """The line without its escape character at the end, and whether the instruction ends here."""
    match = continued.search(line)
    if match is None:
        return line, True
    return line[: match.end(1)], False


# ---- here-documents


def _read_heredocs(node: Node, lines: Sequence[str], number: int, escape: str) -> int:
    inner = node
    if node.keyword == "onbuild" and node.rest:
        inner = parse_line(node.rest, escape)
    if inner.keyword not in _WITH_HEREDOC or inner.json:
        return number
    for start in heredoc_starts(inner.rest, escape):
        content: list[str] = []
        while number < len(lines):
            line = lines[number]
            number += 1
            shown = _clean(line).lstrip("\t") if start.chomp else _clean(line)
            if shown == start.name:
                break
            content.append(f"{line.lstrip(chr(9)) if start.chomp else line}\n")
        else:
            raise DockerfileError("unterminated heredoc")
        node.heredocs.append(
            Heredoc(start.name, "".join(content), start.expand, start.chomp, start.descriptor)
        )
    return number


def heredoc_starts(rest: str, escape: str = "\\") -> list[Heredoc]:
    """The here-documents that a line announces, without their content."""
    found = []
    for word in split_words(rest, escape):
        start = heredoc_start(word)
        if start is not None:
            found.append(start)
    return found


def heredoc_start(word: str) -> Heredoc | None:
    """What ``<<NAME``, ``<<-NAME`` or ``3<<"NAME"`` announces."""
    match = _HEREDOC.fullmatch(word)
    if match is None or not match[3]:
        return None
    raw = match[3]
    name = re.sub(r"[\"'\\]", "", raw)
    if not name or re.search(r"\s", raw):
        return None
    return Heredoc(name, "", name == raw, bool(match[2]), int(match[1] or 0))


# ---- words


def _take_flags(rest: str, escape: str) -> tuple[list[str], str]:
    """The ``--name=value`` words at the beginning, without quotes, and what follows."""
    flags: list[str] = []
    position = 0
    while True:
        while position < len(rest) and rest[position].isspace():
            position += 1
        if not rest.startswith("--", position):
            return flags, rest[position:]
        word, end = _flag_word(rest, position, escape)
        if word == "--":
            return flags, rest[end:].lstrip()
        flags.append(word)
        position = end


def _flag_word(text: str, position: int, escape: str) -> tuple[str, int]:
    word, quote = "", ""
    while position < len(text):
        char = text[position]
        if char == escape and position + 1 < len(text):
            position += 1
            word += text[position]
        elif quote:
            if char == quote:
                quote = ""
            else:
                word += char
        elif char in "\"'":
            quote = char
        elif char.isspace():
            break
        else:
            word += char
        position += 1
    return word, position


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Words separated by blanks; what is quoted or escaped stays together, and as it is."""
    words: list[str] = []
    word, quote, started = "", "", False
    position = 0
    while position < len(text):
        char = text[position]
        if not quote and char.isspace():
            if started:
                words.append(word)
            word, started = "", False
            position += 1
            continue
        started = True
        word += char
        if char == escape and quote != "'" and position + 1 < len(text):
            position += 1
            word += text[position]
        elif quote:
            if char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        position += 1
    if started:
        words.append(word)
    return words


def exec_form(text: str) -> list[str] | None:
    """The list of ``["a", "b"]``; None where the text is something else.

    Raises:
        DockerfileError: it is a list of other things than strings.
    """
    text = text.lstrip()
    if not text.startswith("["):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    if not all(isinstance(one, str) for one in value):
        raise DockerfileError(
            "when using JSON array syntax, arrays must be comprised of strings only"
        )
    return list(value)


def _split_text(node: Node, escape: str) -> None:
    """One argument: all of it."""
    node.args = [node.rest] if node.rest else []


def _split_blanks(node: Node, escape: str) -> None:
    node.args = node.rest.split()


def _split_command(node: Node, escape: str) -> None:
    listed = exec_form(node.rest)
    node.json = listed is not None
    if listed is None:
        _split_text(node, escape)
    else:
        node.args = listed


def _split_paths(node: Node, escape: str) -> None:
    listed = exec_form(node.rest)
    node.json = listed is not None
    node.args = node.rest.split() if listed is None else listed


def _split_pairs(node: Node, escape: str) -> None:
    words = split_words(node.rest, escape)
    if not words:
        return
    if "=" not in words[0]:
        name, value = [*node.rest.split(None, 1), ""][:2]
        if not value:
            raise DockerfileError(f"{node.keyword.upper()} must have two arguments")
        node.pairs = [(name, value)]
        return
    for word in words:
        if "=" not in word:
            raise DockerfileError(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            )
        name, _, value = word.partition("=")
        node.pairs.append((name, value))


def _split_names(node: Node, escape: str) -> None:
    for word in split_words(node.rest, escape):
        name, equals, value = word.partition("=")
        node.pairs.append((name, value if equals else None))


def _split_healthcheck(node: Node, escape: str) -> None:
    kind, _, rest = node.rest.partition(" ")
    if not kind:
        return
    listed = exec_form(rest)
    node.json = listed is not None
    rest = rest.strip()
    node.args = [kind, *(listed if listed is not None else [rest] if rest else [])]


_SPLITTERS: Mapping[str, Callable[[Node, str], None]] = {
    "add": _split_paths,
    "arg": _split_names,
    "cmd": _split_command,
    "copy": _split_paths,
    "entrypoint": _split_command,
    "env": _split_pairs,
    "expose": _split_blanks,
    "from": _split_blanks,
    "healthcheck": _split_healthcheck,
    "label": _split_pairs,
    "run": _split_command,
    "shell": _split_command,
    "volume": _split_paths,
}
