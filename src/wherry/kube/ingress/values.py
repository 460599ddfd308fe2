"""What a value may be that a user wrote: each reader takes the text, and returns what it means.

They are narrow on purpose. What gets by stands in nginx.conf, some of it beside nginx's own words.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, Final

Reader = Callable[[str], Any]


class Refused(ValueError):
    """The value is wrong; ``str()`` says why. Every reader here raises it."""


_TEXT = re.compile(r"[\x20-\x7e]*")
_RANGE = re.compile(r"[0-9A-Fa-f.:]+(/[0-9]+)?")
_WORD = r"[^\s\"'{};\\]"
"""A character that neither ends a word of nginx.conf nor begins a block or a text."""
_NEXT = frozenset(
    (
        "error",
        "timeout",
        "invalid_header",
        *(f"http_{code}" for code in (500, 502, 503, 504, 403, 404, 429)),
        "non_idempotent",
        "off",
    )
)


def matching(pattern: str, what: str) -> Callable[[str], str]:
    """Texts that a regular expression matches as a whole."""
    compiled = re.compile(pattern)

    def read(value: str) -> str:
        if not compiled.fullmatch(value.strip()):
            raise Refused(f"must be {what}")
        return value.strip()

    return read


def listed(pattern: str, what: str) -> Callable[[str], tuple[str, ...]]:
    """Such texts with commas in between."""
    one = matching(pattern, what)
    return lambda value: tuple(one(part) for part in value.split(",") if part.strip())


def one_of(*values: str) -> Callable[[str], str]:
    """One of these, in whatever letters."""

    def read(value: str) -> str:
        for known in values:
            if value.strip().lower() == known.lower():
                return known
        raise Refused(f"must be one of {', '.join(values)}")

    return read


def number(lowest: int, highest: int, what: str) -> Callable[[str], int]:
    """A number within bounds."""

    def read(value: str) -> int:
        found = count(value)
        if not lowest <= found <= highest:
            raise Refused(f"must be {what}")
        return found

    return read


def text(value: str) -> str:
    """Whatever can be seen; it is for ``quoted``."""
    if not _TEXT.fullmatch(value):
        raise Refused("must be printable ASCII")
    return value


def truth(value: str) -> bool:
    """As Go and nginx write it."""
    match value.strip().lower():
        case "true" | "1" | "t" | "on":
            return True
        case "false" | "0" | "f" | "off":
            return False
    raise Refused("must be true or false")


def count(value: str) -> int:
    """A number that is not negative."""
    found = value.strip()
    if not (found.isascii() and found.isdigit()) or len(found) > 9:
        raise Refused("must be a number, zero or more")
    return int(found)


def ranges(value: str) -> tuple[str, ...]:
    """Addresses and ranges of them, with commas in between."""
    result = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        try:
            if not _RANGE.fullmatch(part):  # Python takes any text as the zone of an address
                raise ValueError(part)
            result.append(str(ipaddress.ip_network(part, strict=False)))
        except ValueError as error:
            raise Refused(f"{part} is no address and no range of addresses") from error
    if not result:
        raise Refused("names no address")
    return tuple(result)


def next_upstream(value: str) -> str:
    """When another endpoint is tried."""
    words = value.split()
    if not words or set(words) - _NEXT:
        raise Refused(f"must be among {', '.join(sorted(_NEXT))}")
    return " ".join(words)


def error_codes(value: str) -> tuple[int, ...]:
    """Codes for which nginx has another page."""
    code = number(300, 599, "codes from 300 to 599")
    found = {code(part) for part in value.split(",") if part.strip()}
    if 499 in found:  # nginx's own, for clients that have gone
        raise Refused("cannot have 499, which nobody is left to see")
    return tuple(sorted(found))


def expression(value: str) -> str:
    """A regular expression, as far as can be told without nginx."""
    try:
        re.compile(text(value))
    except re.error as error:
        raise Refused(f"is no regular expression: {error}") from error
    return value


def realm(value: str) -> str:
    """The name of what a password opens."""
    if value == "off":
        raise Refused("would switch the login off")
    return text(value)


def rewritten(value: str) -> str:
    """``off``, or what is written in place of what: two words."""
    words = value.split()
    if words != ["off"] and (len(words) != 2 or not all(map(_ONE_WORD.fullmatch, words))):
        raise Refused("must be off, or two words: from and to")
    return " ".join(words)


def no_snippets(value: str) -> str:
    """None at all."""
    raise Refused("snippets are not allowed: they would rule over the Ingresses of others")


def no_firewall(value: str) -> None:
    """Nobody may believe that there is one."""
    if truth(value):
        raise Refused("needs ModSecurity, which is not here")


_ONE_WORD = re.compile(f"{_WORD}+")

size: Final = matching(r"\d+[kKmMgG]?", "a size such as 8m")
word: Final = matching(f"{_WORD}+", "one word")
path: Final = matching(f"/{_WORD}*", "a path")
target: Final = matching(rf"(/|\$\d){_WORD}*", "a path, or what begins with a group as $1")
url: Final = matching(f"https?://{_WORD}+", "a URL")
page: Final = matching(
    rf"((https?|\$[a-z_]+)://{_WORD}|/){_WORD}*", "a URL, or a path on the same host"
)
token: Final = matching(r"[A-Za-z0-9!#%&'*+.^_`|~-]+", "a name")
header: Final = matching("[A-Za-z0-9_-]+", "the name of a header")
headers: Final = listed("[A-Za-z0-9_-]+", "names of headers")
variables: Final = matching(r"([A-Za-z0-9_$./:-]|\$\{[a-z0-9_]+\})+", "a text with variables")
words: Final = matching("[A-Za-z0-9_*, -]*", "a list of names")
object_name: Final = matching("[a-z0-9.-]+", "the name of a Service")
secret: Final = matching("[a-z0-9.-]+(/[a-z0-9.-]+)?", "the name of a Secret")
ciphers: Final = matching("[A-Za-z0-9:+!@=_-]+", "a list of ciphers as OpenSSL has it")
tls_versions: Final = matching(
    r"TLSv1(\.[123])?( +TLSv1(\.[123])?)*", "versions such as TLSv1.2 TLSv1.3"
)
method: Final = one_of(
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"
)
hosts: Final = listed(
    r"(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", "host names"
)
origins: Final = listed(
    r"\*|(https?://)?(\*\.)?[A-Za-z0-9.-]+(:\d+)?|https?://\*",
    "origins such as https://example.com",
)
