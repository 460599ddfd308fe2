"""What all ways to know a bearer token have in common."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from wherry.kube.apiserver.request import User

Audiences = tuple[str, ...]


class Refused(Exception):
    """The token is of this way's making and must not be believed; the text says why, and nothing
    of what is in it."""


class Authenticated(NamedTuple):
    """Whom a token stands for, and for which of the audiences asked after."""

    user: User
    audiences: Audiences


class TokenWay(Protocol):
    """One way to know a bearer token."""

    async def authenticate(self, token: str, audiences: Audiences) -> Authenticated | None:
        """Whom it stands for, to one of ``audiences``; None: it is no token of this kind.

        Raises:
            Refused: it is, and is not good.
        """


def shared(wanted: Audiences, held: Audiences) -> Audiences:
    """Those of ``wanted`` that are in ``held``."""
    return tuple(audience for audience in wanted if audience in held)
