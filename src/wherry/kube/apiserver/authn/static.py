"""Static tokens, from a file or from whoever starts the server (``--token-auth-file``).

A line is ``token,user,uid[,"group1,group2"]``, as CSV.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from wherry.kube.apiserver.authn.users import known
from wherry.kube.apiserver.authn.ways import Audiences, Authenticated, shared
from wherry.kube.apiserver.request import User


class StaticTokens:
    """Tokens that stand for users, to the server's own ``audiences``.

    They are looked up by digest: how long that takes says nothing about how much was right.
    """

    def __init__(self, tokens: Mapping[str, User], audiences: Audiences) -> None:
        self._users = {_digest(token): (token, user) for token, user in tokens.items()}
        self._audiences = audiences

    async def authenticate(self, token: str, audiences: Audiences) -> Authenticated | None:
        found = self._users.get(_digest(token))
        if found is None or not hmac.compare_digest(found[0].encode(), token.encode()):
            return None
        common = shared(audiences, self._audiences)
        return Authenticated(found[1], common) if common else None


def read(path: Path) -> dict[str, User]:
    """The tokens of a file.

    Raises:
        ValueError, OSError: it cannot be read; the text names the line.
    """
    tokens: dict[str, User] = {}
    with path.open(newline="") as file:
        for number, record in enumerate(csv.reader(file, skipinitialspace=True), 1):
            if not record or record[0].startswith("#"):
                continue
            if len(record) < 3:
                raise ValueError(
                    f"{path}: line {number}: token file must have at least 3 columns (token, user "
                    f"name, user uid), found {len(record)}"
                )
            token, name, uid = (field.strip() for field in record[:3])
            if not token:
                continue
            groups = [g.strip() for g in record[3].split(",")] if len(record) > 3 else []
            tokens[token] = known(name, [g for g in groups if g], uid)
    return tokens


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
