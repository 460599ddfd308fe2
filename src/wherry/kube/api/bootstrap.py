"""How a machine that knows nothing but a token comes to trust a cluster, and the cluster it.

A bootstrap token, ``id.secret``, lies in a Secret of kube-system. ``cluster-info`` in kube-public,
which everybody may read, tells where the API server is and whom to trust for it; it is signed with
each token (a JSON Web Signature without its content), so that whoever has one can tell whether
somebody in between has changed it. Pure functions.

https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from wherry.kube.api import meta

Object = dict[str, Any]

TYPE: Final = "bootstrap.kubernetes.io/token"
NAMESPACE: Final = "kube-system"
PREFIX: Final = "bootstrap-token-"
INFO_NAME, INFO_NAMESPACE = "cluster-info", "kube-public"
INFO_KUBECONFIG: Final = "kubeconfig"
SIGNATURE_PREFIX: Final = "jws-kubeconfig-"
GROUP: Final = "system:bootstrappers:kubeadm:default-node-token"
USAGES: Final = ("signing", "authentication")

_TOKEN: Final = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_ID: Final = re.compile(r"[a-z0-9]{6}")
_GROUP: Final = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


class BadToken(ValueError):
    """What was given is no token, or not good; the text is for its reader."""


def new_token() -> str:
    """A token that nobody can guess."""
    text = "".join(secrets.choice(_ALPHABET) for _ in range(22))
    return f"{text[:6]}.{text[6:]}"


def split(token: str) -> tuple[str, str]:
    """A token's id and its secret.

    Raises:
        BadToken: it has another form.
    """
    matched = _TOKEN.fullmatch(token)
    if matched is None:
        raise BadToken(
            rf'the bootstrap token "{token}" was not of the form '
            r'"\A([a-z0-9]{6})\.([a-z0-9]{16})\z"'
        )
    return matched[1], matched[2]


def token_id(text: str) -> str:
    """The id in what names a token: the token or its id alone.

    Raises:
        BadToken: it is neither.
    """
    if _ID.fullmatch(text):
        return text
    try:
        return split(text)[0]
    except BadToken:
        raise BadToken(
            f'given token "{text}" didn\'t match pattern "[a-z0-9]{{6}}" or '
            '"([a-z0-9]{6}).([a-z0-9]{16})"'
        ) from None


def secret(
    token: str,
    *,
    expires: datetime | None,
    usages: Iterable[str] = USAGES,
    groups: Iterable[str] = (GROUP,),
    description: str = "",
) -> Object:
    """The Secret that makes a token good; it is so for ever where it does not expire.

    Raises:
        BadToken: the token, a usage or a group is wrong.
    """
    identity, kept = split(token)
    data = {"token-id": identity, "token-secret": kept}
    if expires is not None:
        data["expiration"] = expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if description:
        data["description"] = description
    groups = list(groups)
    for group in groups:
        if not is_group(group):
            raise BadToken(f'bootstrap group "{group}" is invalid (must match {_GROUP.pattern})')
    if groups:
        data["auth-extra-groups"] = ",".join(groups)
    for usage in usages:
        if usage not in USAGES:
            raise BadToken(f"invalid bootstrap token usage: {usage}; use {', '.join(USAGES)}")
        data[f"usage-bootstrap-{usage}"] = "true"
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": TYPE,
        "metadata": {"name": PREFIX + identity, "namespace": NAMESPACE},
        "data": {name: base64.b64encode(v.encode()).decode() for name, v in data.items()},
    }


def is_group(name: str) -> bool:
    """Whether a token may put its bearer into that group."""
    return _GROUP.fullmatch(name) is not None


def is_token(o: Object) -> bool:
    """Whether a Secret is a token's."""
    return (
        o.get("type") == TYPE and meta.namespace(o) == NAMESPACE and meta.name(o).startswith(PREFIX)
    )


def field(o: Object, name: str) -> str:
    """A field of a token's Secret; empty where it is none, or no text."""
    encoded = (o.get("data") or {}).get(name) or ""
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""


def expiry(o: Object) -> datetime | None:
    """When a token ends; None: never. One that does not say it well has ended already."""
    text = field(o, "expiration")
    if not text:
        return None
    try:
        return meta.parse_time(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


# ---- what is signed


def cluster_info(server: str, authority_pem: str) -> Object:
    """The ConfigMap, not signed yet."""
    encoded = base64.b64encode(authority_pem.encode()).decode()
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "", "cluster": {"certificate-authority-data": encoded, "server": server}}
        ],
        "contexts": [],
        "current-context": "",
        "preferences": {},
        "users": [],
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": INFO_NAME, "namespace": INFO_NAMESPACE},
        "data": {INFO_KUBECONFIG: json.dumps(kubeconfig, indent=1) + "\n"},
    }


def sign(content: str, identity: str, kept: str) -> str:
    """The signature of ``content`` by a token: header and signature, the content left out."""
    header = _encoded(json.dumps({"alg": "HS256", "kid": identity}, separators=(",", ":")))
    return f"{header}..{_mac(header, content, kept)}"


def verified(signature: str, content: str, identity: str, kept: str) -> bool:
    """Whether that token has signed ``content``."""
    header, _, rest = signature.partition("..")
    try:
        padded = header + "=" * (-len(header) % 4)
        said = json.loads(base64.urlsafe_b64decode(padded))
    except ValueError:
        return False
    if not isinstance(said, dict) or said.get("alg") != "HS256" or said.get("kid") != identity:
        return False
    return hmac.compare_digest(rest.encode(), _mac(header, content, kept).encode())


def _encoded(data: str | bytes) -> str:
    data = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _mac(header: str, content: str, kept: str) -> str:
    signed = f"{header}.{_encoded(content)}".encode()
    return _encoded(hmac.digest(kept.encode(), signed, hashlib.sha256))


def signed(
    info: Mapping[str, str], tokens: Iterable[Object], now: datetime | None = None
) -> dict[str, str]:
    """The data of ``cluster-info`` with the signatures of all tokens that are good for it."""
    content = info.get(INFO_KUBECONFIG, "")
    data = {k: v for k, v in info.items() if not k.startswith(SIGNATURE_PREFIX)}
    for token in tokens if content else ():
        identity, kept = field(token, "token-id"), field(token, "token-secret")
        if meta.name(token) != PREFIX + identity or not _TOKEN.fullmatch(f"{identity}.{kept}"):
            continue
        ends = expiry(token)
        if ends is not None and ends <= (now or datetime.now(UTC)):
            continue
        if field(token, "usage-bootstrap-signing") == "true":
            data[SIGNATURE_PREFIX + identity] = sign(content, identity, kept)
    return data


def pin(subject_public_key: bytes) -> str:
    """How an authority is known by its public key (SubjectPublicKeyInfo, DER)."""
    return f"sha256:{hashlib.sha256(subject_public_key).hexdigest()}"
