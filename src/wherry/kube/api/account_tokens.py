"""What tokens of ServiceAccounts say, where both who makes and who judges them must agree."""

from __future__ import annotations

from typing import Any, Final

from wherry.kube.api import meta

Object = dict[str, Any]

SECRET_TYPE: Final = "kubernetes.io/service-account-token"  # noqa: S105
NAME_ANNOTATION: Final = "kubernetes.io/service-account.name"
UID_ANNOTATION: Final = "kubernetes.io/service-account.uid"
LEGACY_ISSUER: Final = "kubernetes/serviceaccount"
LEGACY: Final = "kubernetes.io/serviceaccount/"
_USER: Final = "system:serviceaccount:"


def user_name(namespace: str, name: str) -> str:
    """The user name of a ServiceAccount."""
    return f"{_USER}{namespace}:{name}"


def split_user_name(user: str) -> tuple[str, str] | None:
    """Namespace and name of the ServiceAccount that a user name stands for; None: it is another's
    name."""
    if not user.startswith(_USER):
        return None
    namespace, colon, name = user[len(_USER) :].partition(":")
    if not colon or not namespace or not name or ":" in name:
        return None
    return namespace, name


def legacy_claims(secret: Object, account: Object) -> Object:
    """What the token in a Secret says; it has no end of its own."""
    namespace, name = meta.namespace(account), meta.name(account)
    return {
        "iss": LEGACY_ISSUER,
        LEGACY + "namespace": namespace,
        LEGACY + "secret.name": meta.name(secret),
        LEGACY + "service-account.name": name,
        LEGACY + "service-account.uid": meta.uid(account),
        "sub": user_name(namespace, name),
    }
