"""Names of images: ``[domain/]path[:tag][@digest]``.

The grammar is the one of the OCI distribution project (github.com/distribution/reference); the
short forms are Docker's: no domain means ``docker.io``, and there a path without a slash means
``library/<path>``. So ``busybox`` is ``docker.io/library/busybox``, and its familiar form is
``busybox`` again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from wherry.engine.errors import BadParameter

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL_PREFIX = "library/"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255  # characters in domain and path together

_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"

_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PATH})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?", re.ASCII
)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}", re.ASCII)
_TAG_ALONE = re.compile(_TAG, re.ASCII)
SHA256 = re.compile(r"sha256:[a-f0-9]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised name; ``tag`` and ``digest`` are empty where there is none."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path: ``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The shortest name that means the same repository: ``busybox``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(OFFICIAL_PREFIX)
        return short if "/" not in short else self.path

    def __str__(self) -> str:
        return self.name + self._suffix()

    def familiar(self) -> str:
        """As Docker prints it: ``busybox:latest``."""
        return self.familiar_name + self._suffix()

    def with_default_tag(self) -> Reference:
        """The same with ``:latest`` where it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same repository under another tag.

        Raises:
            BadParameter: no tag can be called so.
        """
        if not _TAG_ALONE.fullmatch(tag):
            raise BadParameter("invalid tag format")
        return replace(self, tag=tag)

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag


def parse(text: str) -> Reference:
    """The reference that ``text`` means; a missing tag stays missing.

    Raises:
        BadParameter: it is none, in the words of Docker.
    """
    if _IDENTIFIER.fullmatch(text):
        raise BadParameter(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    domain, remainder = _split_domain(text)
    path_end = remainder.find(":")
    path = remainder if path_end < 0 else remainder[:path_end]
    if path.lower() != path and "@" not in path:
        raise BadParameter(f"invalid reference format: repository name ({path}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if match is None:
        raise BadParameter("invalid reference format")
    name = match["name"]
    if len(name) > NAME_LIMIT:
        raise BadParameter(f"repository name must not be more than {NAME_LIMIT} characters")
    digest = match["digest"] or ""
    if digest and not SHA256.fullmatch(digest):
        algorithm, _, value = digest.partition(":")
        if algorithm in ("sha256", "sha384", "sha512"):
            if len(value) != int(algorithm[3:]) // 4 or value.lower() != value:
                raise BadParameter("invalid checksum digest length")
        else:
            raise BadParameter("unsupported digest algorithm")
    return Reference(domain, name[len(domain) + 1 :], match["tag"] or "", digest)


def normalise(text: str) -> Reference:
    """The reference that ``text`` means, with ``:latest`` where it names neither tag nor digest."""
    return parse(text).with_default_tag()


def _split_domain(text: str) -> tuple[str, str]:
    """The domain, and the rest with Docker's ``library/`` put in front where that is meant."""
    first, slash, rest = text.partition("/")
    is_domain = bool(slash) and (
        "." in first or ":" in first or first == "localhost" or first.lower() != first
    )
    domain, remainder = (first, rest) if is_domain else (DEFAULT_DOMAIN, text)
    if domain == LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = OFFICIAL_PREFIX + remainder
    return domain, remainder
