"""Who asks: by client certificate, by bearer token, by the word of a front proxy, or nobody in
particular.

One module a way. A request meets them in this order:

``front_proxy``
    the certificate of a proxy that says whom it speaks for;
``certificates``
    a client's certificate;
``static``, ``service_accounts``, ``bootstrap_tokens``, ``oidc``, ``webhook``
    bearer tokens, each way a `ways.TokenWay`;
``impersonation``
    the user whose name somebody with the right to it takes.

``users`` knows names and groups, ``keys`` the keys of our own tokens, ``config`` what a server is
told of all this. ``authenticator`` asks them in turn.
Names and groups are upstream's (https://kubernetes.io/docs/reference/access-authn-authz/authentication/).
"""

from __future__ import annotations

from wherry.kube.apiserver.authn.authenticator import Authenticator, Peer
from wherry.kube.apiserver.authn.certificates import from_certificate
from wherry.kube.apiserver.authn.users import (
    ANONYMOUS,
    AUTHENTICATED,
    MASTERS,
    UNAUTHENTICATED,
    known,
)

__all__ = [
    "ANONYMOUS",
    "AUTHENTICATED",
    "MASTERS",
    "UNAUTHENTICATED",
    "Authenticator",
    "Peer",
    "from_certificate",
    "known",
]
