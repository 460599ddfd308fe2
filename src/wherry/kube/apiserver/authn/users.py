"""Users as the rest of the server knows them, and the groups that authentication itself gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wherry.kube.apiserver.request import User

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"
SERVICE_ACCOUNTS = "system:serviceaccounts"
ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"


def known(
    name: str,
    groups: Sequence[str] = (),
    uid: str = "",
    extra: Mapping[str, Sequence[str]] | None = None,
) -> User:
    """A user who proved to be one."""
    held = {key: tuple(values) for key, values in (extra or {}).items()}
    own = tuple(group for group in groups if group != AUTHENTICATED)
    return User(name, (*own, AUTHENTICATED), uid, held)


def service_account_groups(namespace: str) -> tuple[str, str]:
    """The groups of every ServiceAccount of a namespace."""
    return SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}"
