"""The grammar of repositories, tags and digests.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests
"""

from __future__ import annotations

import re

from wherry.registry.errors import RegistryError

NAME_LIMIT = 255
# Digest algorithms and the number of hexadecimal digits of each.
ALGORITHMS = {"sha256": 64, "sha512": 128}

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"(?P<algorithm>[a-z0-9]+):(?P<hex>[a-f0-9]+)", re.ASCII)


def repository(text: str) -> str:
    """``text``, if a repository can be called so.

    Raises:
        RegistryError: NAME_INVALID.
    """
    if len(text) > NAME_LIMIT or not _NAME.fullmatch(text):
        raise RegistryError("NAME_INVALID", {"name": text})
    return text


def is_tag(text: str) -> bool:
    """Whether a manifest can be tagged so."""
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether ``text`` is a digest in an algorithm that we know."""
    match = _DIGEST.fullmatch(text)
    return match is not None and len(match["hex"]) == ALGORITHMS.get(match["algorithm"], -1)


def digest(text: str) -> str:
    """``text``, if it is a digest.

    Raises:
        RegistryError: DIGEST_INVALID.
    """
    if not is_digest(text):
        raise RegistryError("DIGEST_INVALID", {"digest": text})
    return text
