"""Warning headers: what the client should know beside the answer (RFC 7234, section 5.5).

Upstream: k8s.io/apiserver/pkg/endpoints/filters/warning.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_MOST = 4096  # characters in sum; above that each warning is cut
_MOST_OF_ONE = 256


def headers(warnings: Iterable[str]) -> list[str]:
    """The values of Warning headers for these texts: each told once, none endless. A text with
    control characters cannot be told."""
    texts = [text for text in dict.fromkeys(warnings) if text and _can_be_told(text)]
    if sum(map(len, texts)) > _MOST:
        texts = _cut(texts)
    return [f"299 - {_quoted(text)}" for text in texts]


def _cut(texts: Iterable[str]) -> list[str]:
    out: list[str] = []
    told = 0
    for text in texts:
        if told >= _MOST:
            break
        out.append(text[:_MOST_OF_ONE])
        told += len(out[-1])
    return out


_UNTOLD = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _can_be_told(text: str) -> bool:
    return _UNTOLD.search(text) is None


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
