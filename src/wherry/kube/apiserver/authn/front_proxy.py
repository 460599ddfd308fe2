"""A front proxy speaks for its users: it shows a certificate of an authority of its own, and names
the user in headers.

https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from wherry.kube.apiserver.authn.users import known
from wherry.kube.apiserver.request import User


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """Whose word counts, and where it stands. ``allowed_names``: none given means any name that
    the authority ``client_ca`` vouches for."""

    client_ca: Path
    allowed_names: tuple[str, ...] = ()
    username_headers: tuple[str, ...] = ("X-Remote-User",)
    uid_headers: tuple[str, ...] = ()
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    extra_prefixes: tuple[str, ...] = ("X-Remote-Extra-",)

    def allows(self, name: str) -> bool:
        """Whether a proxy of that name may speak for users."""
        return not self.allowed_names or name in self.allowed_names

    def user(self, headers: Iterable[tuple[str, str]]) -> User | None:
        """The user whom a request's headers name; None: nobody."""
        given = [(header.lower(), value) for header, value in headers]
        name = _first(given, self.username_headers)
        if not name:
            return None
        groups = [v for w in self.group_headers for h, v in given if h == w.lower()]
        extra: dict[str, list[str]] = {}
        for prefix in self.extra_prefixes:
            for header, value in given:
                if header.startswith(prefix.lower()):
                    key = unquote(header[len(prefix) :])
                    extra.setdefault(key, []).append(value)
        return known(name, groups, _first(given, self.uid_headers), extra)


def _first(headers: Iterable[tuple[str, str]], wanted: Iterable[str]) -> str:
    for name in wanted:
        for header, value in headers:
            if header == name.lower() and value:
                return value
    return ""
