"""Where a JSON text goes wrong, in the words of Go's ``encoding/json``.

Only texts that are already known to be wrong come here, so this is written to be read, not to be
fast: a scanner that takes one character at a time and knows what may come next.
"""

from __future__ import annotations

_SPACE = frozenset(b" \t\r\n")
_DIGITS = frozenset(b"0123456789")
_HEX = frozenset(b"0123456789abcdefABCDEF")
_OPENERS = {ord("{"): ord("}"), ord("["): ord("]")}
_ESCAPED = frozenset(b'bfnrt\\/"')
_MAX_DEPTH = 10_000
_END = -1


class _Fault(Exception):
    pass


def fault(body: bytes) -> str:
    """Go's sentence for the first fault of syntax; empty where Go would find none."""
    scanner = _Scanner(body)
    try:
        scanner.value("looking for beginning of value")
        scanner.space()
        if scanner.ahead != _END:
            scanner.refuse("after top-level value")
    except _Fault as found:
        return str(found)
    return ""


def first_value(body: bytes) -> tuple[int, str]:
    """Where the first value ends, for who reads values from a stream; or Go's sentence for its
    fault.

    A stream that breaks off inside a value is another fault than a text that does.
    """
    scanner = _Scanner(body)
    try:
        scanner.value("looking for beginning of value")
    except _Fault as found:
        return 0, "unexpected EOF" if scanner.ahead == _END else str(found)
    return scanner.position, ""


def _shown(character: int) -> str:
    if character == ord("'"):
        return "'\\''"
    if character == ord('"'):
        return "'\"'"
    text = chr(character)
    if text.isprintable():
        return f"'{text}'"
    named = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r"}
    return f"'{named.get(character, format(character, '#04x').replace('0x', chr(92) + 'x'))}'"


class _Scanner:
    def __init__(self, body: bytes) -> None:
        self.body = body
        self.position = 0

    @property
    def ahead(self) -> int:
        return self.body[self.position] if self.position < len(self.body) else _END

    def refuse(self, context: str) -> None:
        if self.ahead == _END:
            raise _Fault("unexpected end of JSON input")
        raise _Fault(f"invalid character {_shown(self.ahead)} {context}")

    def space(self) -> None:
        while self.ahead in _SPACE:
            self.position += 1

    def value(self, context: str) -> None:
        """One value. Nesting is held in a list, not in calls: bodies may nest deeply."""
        closers: list[int] = []
        while True:
            self.space()
            opener = self.ahead
            if opener in _OPENERS:
                self.position += 1
                closers.append(_OPENERS[opener])
                if len(closers) > _MAX_DEPTH:
                    raise _Fault("exceeded max depth")
                self.space()
                if self.ahead != closers[-1]:
                    if opener == ord("{"):
                        self.key("looking for beginning of object key string")
                    continue
            else:
                self.scalar(context)
            if not self.after_value(closers):
                return

    def after_value(self, closers: list[int]) -> bool:
        """Closes what ends here. Whether another value follows."""
        while closers:
            self.space()
            in_object = closers[-1] == ord("}")
            if self.ahead == closers[-1]:
                self.position += 1
                closers.pop()
            elif self.ahead == ord(","):
                self.position += 1
                if in_object:
                    self.key("looking for beginning of object key string")
                return True
            else:
                self.refuse("after object key:value pair" if in_object else "after array element")
        return False

    def key(self, context: str) -> None:
        self.space()
        if self.ahead != ord('"'):
            self.refuse(context)
        self.string()
        self.space()
        if self.ahead != ord(":"):
            self.refuse("after object key")
        self.position += 1

    def scalar(self, context: str) -> None:
        first = self.ahead
        if first == ord('"'):
            self.string()
        elif first in _DIGITS or first == ord("-"):
            self.number()
        else:
            for word in (b"true", b"false", b"null"):
                if first == word[0]:
                    self.word(word)
                    return
            self.refuse(context)

    def word(self, word: bytes) -> None:
        for expected in word:
            if self.ahead != expected:
                self.refuse(f"in literal {word.decode()} (expecting {_shown(expected)})")
            self.position += 1

    def string(self) -> None:
        self.position += 1
        while self.ahead != ord('"'):
            if self.ahead == ord("\\"):
                self.position += 1
                self.escape()
            elif self.ahead < 0x20:
                self.refuse("in string literal")
            else:
                self.position += 1
        self.position += 1

    def escape(self) -> None:
        if self.ahead == ord("u"):
            self.position += 1
            for _ in range(4):
                if self.ahead not in _HEX:
                    self.refuse("in \\u hexadecimal character escape")
                self.position += 1
        elif self.ahead in _ESCAPED:
            self.position += 1
        else:
            self.refuse("in string escape code")

    def number(self) -> None:
        if self.ahead == ord("-"):
            self.position += 1
            if self.ahead not in _DIGITS:
                self.refuse("in numeric literal")
        if self.ahead == ord("0"):
            self.position += 1
        else:
            self.digits("in numeric literal")
        if self.ahead == ord("."):
            self.position += 1
            self.digits("after decimal point in numeric literal")
        if self.ahead in (ord("e"), ord("E")):
            self.position += 1
            if self.ahead in (ord("+"), ord("-")):
                self.position += 1
            self.digits("in exponent of numeric literal")

    def digits(self, context: str) -> None:
        if self.ahead not in _DIGITS:
            self.refuse(context)
        while self.ahead in _DIGITS:
            self.position += 1
