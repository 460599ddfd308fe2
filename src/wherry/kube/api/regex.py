"""Regular expressions of users, on values of users: RE2, as Go has it, which takes linear time.

Python's own could be kept busy for hours by a few characters. Upstream: Go's regexp package.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

_MOST_MEMORY = 8 << 20  # bytes a compiled expression may take


class BadPattern(ValueError):
    """A text that is no regular expression; ``str()`` is Go's sentence for it."""


_GO_WORDS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "unexpected )": "unexpected )",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid character class range": "invalid character class range",
    "invalid escape sequence": "invalid escape sequence",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid UTF-8": "invalid UTF-8",
    "invalid named capture group": "invalid named capture",
    "invalid repetition size": "invalid repeat count",
}


@lru_cache(1024)
def compiled(pattern: str) -> Any:
    """The expression, with ``search``, ``fullmatch`` and ``finditer``. Raises BadPattern."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MOST_MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise BadPattern(f"error parsing regexp: {_go_words(error, pattern)}") from None


def _go_words(error: Exception, pattern: str) -> str:
    said = error.args[0] if error.args else ""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    sentence, _, part = text.partition(": ")
    if sentence.startswith("missing ") and sentence != "missing ]":
        part = pattern
    return f"{_GO_WORDS.get(sentence, sentence)}: `{part or pattern}`"


def search(pattern: str, text: str) -> bool:
    """Whether the pattern matches anywhere in the text. Raises BadPattern."""
    return compiled(pattern).search(text) is not None
