"""CEL's grammar: from a text to a tree.

https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax, with the optional syntax of
cel-go (``a.?b``, ``a[?i]``, ``[?x]``, ``{?k: v}``) and names in backquotes.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_MOST_CHARACTERS = 100_000
_MOST_LEVELS = 50

_TOKEN = re.compile(
    r"""
    (?P<space>(?:\s|//[^\n]*)+)
  | (?P<bytes>[bB](?:[rR])?(?:'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\"|
        '(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))
  | (?P<raw>[rR](?:'''.*?'''|\"\"\".*?\"\"\"|'[^'\n]*'|"[^"\n]*"))
  | (?P<string>'''(?:[^\\]|\\.)*?'''|\"\"\"(?:[^\\]|\\.)*?\"\"\"|
        '(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
  | (?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
  | (?P<uint>(?:0x[0-9a-fA-F]+|\d+)[uU])
  | (?P<int>0x[0-9a-fA-F]+|\d+)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<quoted>`[A-Za-z0-9_.\-/ ]+`)
  | (?P<sign>\|\||&&|==|!=|<=|>=|[-+*/%!?:.,<>()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL,
)
RESERVED = (
    *("as", "break", "const", "continue", "else", "for", "function", "if", "import", "let"),
    *("loop", "package", "namespace", "return", "var", "void", "while"),
)
_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "'": "'", '"': '"', "`": "`", "?": "?",
}  # fmt: skip
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|X([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|"
    r"([0-3][0-7]{2})|(.))",
    re.DOTALL,
)


class CompileError(ValueError):
    """An expression that is none; ``str()`` is cel-go's report of it."""


def report(text: str, at: int, why: str) -> str:
    """cel-go's form of a fault at a place in the text."""
    line = text.count("\n", 0, at) + 1
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    shown = text[start : end if end >= 0 else len(text)]
    return f"ERROR: <input>:{line}:{at - start + 1}: {why}\n | {shown}\n | {'.' * (at - start)}^"


class Node(NamedTuple):
    """A part of an expression. What ``parts`` holds follows from ``kind``:

    - ``literal``: the value
    - ``name``: the name
    - ``select``: operand, field, whether optional (``.?``)
    - ``index``: operand, index, whether optional
    - ``call``: receiver or None, function, list of arguments
    - ``list``: list of (item, whether optional)
    - ``map``: list of (key, value, whether optional)
    - ``struct``: name, list of (field, value, whether optional)
    """

    kind: str
    at: int
    parts: Any


class UInt(int):
    """CEL's unsigned integer."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse(text: str) -> Node:
    """The tree of an expression. Raises CompileError."""
    if len(text) > _MOST_CHARACTERS:
        raise CompileError(
            report("", 0, f"expression code point size exceeds limit: size: {len(text)}, limit "
                   f"{_MOST_CHARACTERS}")
        )  # fmt: skip
    return _Parser(text).whole()


def _unescape(body: str) -> str:
    def one(match: re.Match[str]) -> str:
        small, large, four, eight, octal, other = match.groups()
        for digits in (small, large, four, eight):
            if digits:
                return chr(int(digits, 16))
        if octal:
            return chr(int(octal, 8))
        if other not in _ESCAPES:
            raise ValueError(other)
        return _ESCAPES[other]

    return _ESCAPE.sub(one, body) if "\\" in body else body


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[_Token] = list(self._scan())
        self.next = 0
        self.level = 0

    def _scan(self) -> Any:
        at = 0
        while at < len(self.text):
            match = _TOKEN.match(self.text, at)
            if match is None:
                raise self.fault(
                    at,
                    f"Syntax error: token recognition error at: '{self.text[at]}'",
                )
            if match.lastgroup != "space":
                yield _Token(str(match.lastgroup), match.group(), at)
            at = match.end()
        yield _Token("end", "<EOF>", at)

    def fault(self, at: int, why: str) -> CompileError:
        return CompileError(report(self.text, at, why))

    def unexpected(self) -> CompileError:
        token = self.tokens[self.next]
        if token.kind == "end":
            return self.fault(
                token.at, "Syntax error: mismatched input '<EOF>' expecting an expression"
            )
        return self.fault(token.at, f"Syntax error: extraneous input '{token.text}'")

    def sign(self, *wanted: str) -> _Token | None:
        """The next token, taken, if it is one of the signs (or the word ``in``)."""
        token: _Token = self.tokens[self.next]
        if token.text in wanted and token.kind in ("sign", "name"):
            self.next += 1
            return token
        return None

    def need(self, sign: str) -> _Token:
        token = self.sign(sign)
        if token is None:
            raise self.unexpected()
        return token

    def whole(self) -> Node:
        node = self.expression()
        if self.tokens[self.next].kind != "end":
            raise self.unexpected()
        return node

    def expression(self) -> Node:
        self.level += 1
        if self.level > _MOST_LEVELS:
            raise self.fault(self.tokens[self.next].at, "expression recursion limit exceeded: 250")
        condition = self.binary(0)
        if (token := self.sign("?")) is not None:
            yes = self.binary(0)
            self.need(":")
            condition = Node("call", token.at, (None, "_?_:_", [condition, yes, self.expression()]))
        self.level -= 1
        return condition

    _LEVELS = (
        ("||",),
        ("&&",),
        ("==", "!=", "<", "<=", ">", ">=", "in"),
        ("+", "-"),
        ("*", "/", "%"),
    )

    def binary(self, level: int) -> Node:
        if level == len(self._LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while (token := self.sign(*self._LEVELS[level])) is not None:
            right = self.binary(level + 1)
            name = "@in" if token.text == "in" else f"_{token.text}_"
            left = Node("call", token.at, (None, name, [left, right]))
        return left

    def unary(self) -> Node:
        signs: list[_Token] = []
        while (token := self.sign("!", "-")) is not None:
            if signs and signs[-1].text != token.text:
                raise self.fault(token.at, f"Syntax error: extraneous input '{token.text}'")
            signs.append(token)
        if len(signs) % 2 and signs[0].text == "-":  # so that the least int can be written
            token = self.tokens[self.next]
            if token.kind in ("int", "float"):
                self.next += 1
                return self.members(Node("literal", signs[0].at, self.number(token, "-")))
        node = self.members(self.primary())
        if len(signs) % 2:
            name = "!_" if signs[0].text == "!" else "-_"
            node = Node("call", signs[0].at, (None, name, [node]))
        return node

    def members(self, node: Node) -> Node:
        while True:
            if (token := self.sign(".")) is not None:
                optional = self.sign("?") is not None
                name = self.tokens[self.next]
                if name.kind not in ("name", "quoted"):
                    raise self.unexpected()
                self.next += 1
                field = name.text.strip("`")
                if name.kind == "name" and not optional and self.sign("("):
                    node = Node("call", name.at, (node, field, self.arguments(")")))
                else:
                    node = Node("select", token.at, (node, field, optional))
            elif (token := self.sign("[")) is not None:
                optional = self.sign("?") is not None
                node = Node("index", token.at, (node, self.expression(), optional))
                self.need("]")
            elif self.tokens[self.next].text == "{" and (path := _path(node)) is not None:
                at = self.need("{").at
                node = Node("struct", at, (path, self.fields()))
            else:
                return node

    def arguments(self, end: str) -> list[Node]:
        found: list[Node] = []
        while self.sign(end) is None:
            found.append(self.expression())
            if self.sign(",") is None:
                self.need(end)
                break
        return found

    def fields(self) -> list[tuple[str, Node, bool]]:
        found = []
        while self.sign("}") is None:
            optional = self.sign("?") is not None
            name = self.tokens[self.next]
            if name.kind not in ("name", "quoted"):
                raise self.unexpected()
            self.next += 1
            self.need(":")
            found.append((name.text.strip("`"), self.expression(), optional))
            if self.sign(",") is None:
                self.need("}")
                break
        return found

    def primary(self) -> Node:
        token = self.tokens[self.next]
        self.next += 1
        match token.kind:
            case "int" | "uint" | "float":
                return Node("literal", token.at, self.number(token))
            case "string" | "raw" | "bytes":
                return Node("literal", token.at, self.string(token))
            case "name":
                return self.name(token)
        match token.text:
            case "(":
                node = self.expression()
                self.need(")")
                return node
            case "[":
                return Node("list", token.at, self.items())
            case "{":
                return Node("map", token.at, self.entries())
            case "." if self.tokens[self.next].kind == "name":
                return self.primary()
        self.next -= 1
        raise self.unexpected()

    def name(self, token: _Token) -> Node:
        match token.text:
            case "true" | "false":
                return Node("literal", token.at, token.text == "true")
            case "null":
                return Node("literal", token.at, None)
            case "in":
                self.next -= 1
                raise self.unexpected()
        if token.text in RESERVED:
            raise self.fault(token.at, f"reserved identifier: {token.text}")
        if self.sign("("):
            return Node("call", token.at, (None, token.text, self.arguments(")")))
        return Node("name", token.at, token.text)

    def items(self) -> list[tuple[Node, bool]]:
        found = []
        while self.sign("]") is None:
            optional = self.sign("?") is not None
            found.append((self.expression(), optional))
            if self.sign(",") is None:
                self.need("]")
                break
        return found

    def entries(self) -> list[tuple[Node, Node, bool]]:
        found = []
        while self.sign("}") is None:
            optional = self.sign("?") is not None
            key = self.expression()
            self.need(":")
            found.append((key, self.expression(), optional))
            if self.sign(",") is None:
                self.need("}")
                break
        return found

    def number(self, token: _Token, sign: str = "") -> int | float | UInt:
        if token.kind == "float":
            return float(sign + token.text)
        digits = token.text.rstrip("uU")
        value = int(sign + digits, 16 if "x" in digits else 10)
        if token.kind == "uint":
            if value >= 2**64:
                raise self.fault(token.at, "invalid uint literal")
            return UInt(value)
        if not -(2**63) <= value < 2**63:
            raise self.fault(token.at, "invalid int literal")
        return value

    def string(self, token: _Token) -> str | bytes:
        text = token.text
        raw = is_bytes = False
        while text[0] in "rRbB":
            raw, is_bytes = raw or text[0] in "rR", is_bytes or text[0] in "bB"
            text = text[1:]
        quote = 3 if text[:3] in ("'''", '"""') else 1
        body = text[quote:-quote]
        try:
            value = body if raw else _unescape(body)
        except (ValueError, OverflowError):
            raise self.fault(token.at, "invalid string literal") from None
        if not is_bytes:
            return value
        if raw or "\\" not in body:
            return value.encode()
        return b"".join(bytes([ord(c)]) if ord(c) < 256 else c.encode() for c in value)


def _path(node: Node) -> str | None:
    """``a.b.c`` as a text, where the node is that."""
    if node.kind == "name":
        return str(node.parts)
    if node.kind == "select" and not node.parts[2]:
        above = _path(node.parts[0])
        return None if above is None else f"{above}.{node.parts[1]}"
    return None


path = _path
