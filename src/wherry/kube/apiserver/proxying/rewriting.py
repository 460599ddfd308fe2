"""Links in what a proxied server answers: those to itself lead through the proxy.

Upstream: k8s.io/apimachinery/pkg/util/proxy/transport.go.
"""

from __future__ import annotations

import gzip
import html
import posixpath
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from urllib.parse import SplitResult, urlsplit, urlunsplit

_LINKS: dict[str, frozenset[str]] = {
    tag: frozenset(names.split())
    for tag, names in {
        "a": "href",
        "applet": "codebase",
        "area": "href",
        "audio": "src",
        "base": "href",
        "blockquote": "cite",
        "body": "background",
        "button": "formaction",
        "command": "icon",
        "del": "cite",
        "embed": "src",
        "form": "action",
        "frame": "longdesc src",
        "head": "profile",
        "html": "manifest",
        "iframe": "longdesc src",
        "img": "longdesc src usemap",
        "input": "src usemap formaction",
        "ins": "cite",
        "link": "href",
        "object": "classid codebase data usemap",
        "q": "cite",
        "script": "src",
        "source": "src",
        "video": "poster src",
    }.items()
}


def rewrite_url(url: str, prefix: str, backend: str, asked: str) -> str:
    """``url`` as it is to stand in an answer.

    Args:
        prefix: the path under which the client sees the server.
        backend: ``host:port`` of the server.
        asked: the Host header of the client's request.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if parts.netloc not in ("", backend, asked) or not parts.path.startswith("/"):
        return url
    scheme, netloc = ("", "") if parts.netloc != asked else (parts.scheme, parts.netloc)
    path = parts.path
    if not path.startswith(prefix):
        path = posixpath.normpath(f"{prefix}/{path}")
        path = f"/{path.lstrip('/')}" + ("/" if parts.path.endswith("/") else "")
    return urlunsplit(SplitResult(scheme, netloc, path, parts.query, parts.fragment))


class _Rewriter(HTMLParser):
    """Copies a document, with the links of its tags changed."""

    def __init__(self, change: Callable[[str], str]) -> None:
        super().__init__(convert_charrefs=False)
        self._change = change
        self.pieces: list[str] = []

    def _tag(self, tag: str, attributes: list[tuple[str, str | None]], end: str) -> None:
        names = _LINKS.get(tag)
        raw = self.get_starttag_text() or ""
        if names is None or not any(name in names for name, _ in attributes):
            self.pieces.append(raw)
            return
        written = [tag]
        for name, value in attributes:
            if value is None:
                written.append(name)
                continue
            changed = self._change(value) if name in names else value
            written.append(f'{name}="{html.escape(changed)}"')
        self.pieces.append(f"<{' '.join(written)}{end}>")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag(tag, attrs, "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag(tag, attrs, "/")

    def handle_endtag(self, tag: str) -> None:
        self.pieces.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def handle_entityref(self, name: str) -> None:
        self.pieces.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.pieces.append(f"&#{name};")

    def handle_comment(self, data: str) -> None:
        self.pieces.append(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self.pieces.append(f"<!{decl}>")

    def unknown_decl(self, data: str) -> None:
        self.pieces.append(f"<![{data}]>")

    def handle_pi(self, data: str) -> None:
        self.pieces.append(f"<?{data}>")


def rewrite_html(text: str, change: Callable[[str], str]) -> str:
    """A document with every address in a tag put through ``change``."""
    rewriter = _Rewriter(change)
    rewriter.feed(text)
    rewriter.close()
    return "".join(rewriter.pieces)


def rewrite_body(data: bytes, encoding: str, change: Callable[[str], str]) -> bytes | None:
    """An HTML body with its links changed, encoded as it was; None where it cannot be read."""
    try:
        match encoding:
            case "":
                plain = data
            case "gzip":
                plain = zlib.decompress(data, 31)
            case "deflate":
                plain = zlib.decompress(data, -15)
            case _:
                return None
    except zlib.error:
        return None
    changed = rewrite_html(plain.decode(errors="surrogateescape"), change)
    out = changed.encode(errors="surrogateescape")
    if encoding == "gzip":
        return gzip.compress(out, 6)
    if encoding == "deflate":
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        return compressor.compress(out) + compressor.flush()
    return out
