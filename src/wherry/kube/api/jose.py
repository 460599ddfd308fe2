"""Signed tokens: JSON Web Signatures made and judged with keys of files. No I/O.

What a token says of its own algorithm and key is a hint only: a key is good for the algorithms of
its kind, and every other is refused, ``none`` and all that would take a public key for a shared
secret among them. RFC 7515, RFC 7517, RFC 7518.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

Claims = dict[str, Any]

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_LONGEST: Final = 64 * 1024  # bytes of a token
_SMALLEST_RSA: Final = 1024  # bits


class BadToken(ValueError):
    """A token that must not be believed; the text says why and never what is in it."""


class BadKey(ValueError):
    """What should be a key is none of use."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, its id, the algorithms it is good for (the first is the one it signs with);
    ``private`` where we may sign with it."""

    id: str
    algorithms: tuple[str, ...]
    public: RSAPublicKey | EllipticCurvePublicKey
    private: RSAPrivateKey | EllipticCurvePrivateKey | None = None

    def private_pem(self) -> bytes:
        """The private half, as a file holds it."""
        from cryptography.hazmat.primitives import serialization

        assert self.private is not None
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def jwk(self) -> Claims:
        """The public half as a JSON Web Key."""
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

        common = {"use": "sig", "kid": self.id, "alg": self.algorithms[0]}
        if isinstance(self.public, RSAPublicKey):
            rsa = self.public.public_numbers()
            return {**common, "kty": "RSA", "n": _number(rsa.n), "e": _number(rsa.e)}
        numbers, size = self.public.public_numbers(), (self.public.curve.key_size + 7) // 8
        curve = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[self.algorithms[0]]
        place = {"x": _number(numbers.x, size), "y": _number(numbers.y, size)}
        return {**common, "kty": "EC", "crv": curve, **place}


def generate() -> Key:
    """A new key that signs."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return _key(ec.generate_private_key(ec.SECP256R1()))


def load(pem: bytes) -> list[Key]:
    """The keys of a PEM file: private and public keys, and those of certificates.

    Raises:
        BadKey: there is none, or one that cannot sign tokens.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    keys = []
    for label, block in _blocks(pem):
        try:
            if label.endswith(b"PRIVATE KEY"):
                keys.append(_key(serialization.load_pem_private_key(block, password=None)))
            elif label == b"CERTIFICATE":
                keys.append(_key(x509.load_pem_x509_certificate(block).public_key()))
            elif label.endswith(b"PUBLIC KEY"):
                keys.append(_key(serialization.load_pem_public_key(block)))
        except (ValueError, TypeError) as error:
            raise BadKey(f"data does not contain any valid RSA or ECDSA keys: {error}") from None
    if not keys:
        raise BadKey("data does not contain any valid RSA or ECDSA keys")
    return keys


def from_jwks(document: object) -> list[Key]:
    """The signing keys of a JSON Web Key Set; those of kinds that are not known are left out."""
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    listed = document.get("keys") if isinstance(document, dict) else None
    keys = []
    for given in listed if isinstance(listed, list) else ():
        if not isinstance(given, dict) or given.get("use", "sig") != "sig":
            continue
        if given.get("kty") not in ("RSA", "EC"):
            continue
        try:
            made = _key(PyJWK(given).key)
        except (PyJWTError, ValueError, TypeError, KeyError):
            continue
        declared = given.get("alg")
        algorithms = (declared,) if declared in made.algorithms else made.algorithms
        keys.append(Key(str(given.get("kid") or ""), algorithms, made.public))
    return keys


def sign(key: Key, claims: Mapping[str, Any]) -> str:
    """The claims as a token in compact form."""
    from jwt import PyJWS

    assert key.private is not None
    headers = {"kid": key.id, "typ": None}
    return PyJWS().encode(orjson.dumps(claims), key.private, key.algorithms[0], headers)


def peek(token: str) -> tuple[Claims, Claims]:
    """Header and claims as they stand, believed by nobody yet. Raises BadToken."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST:
        raise BadToken("it is no signed token")
    try:
        header, claims = (orjson.loads(_decode(part)) for part in parts[:2])
    except ValueError:
        raise BadToken("it is no signed token") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise BadToken("it is no signed token")
    return header, claims


def verify(token: str, keys: Iterable[Key], algorithms: Sequence[str] | None = None) -> Claims:
    """The claims of a token that one of the keys has signed; with ``algorithms``, by one of those.

    Raises:
        BadToken: none has.
    """
    from jwt import PyJWS
    from jwt.exceptions import PyJWTError

    header, claims = peek(token)
    wanted, algorithm = header.get("kid"), header.get("alg")
    candidates = list(keys)
    named = [k for k in candidates if wanted and hmac.compare_digest(k.id, str(wanted))]
    for key in named or candidates:
        allowed = [a for a in key.algorithms if algorithms is None or a in algorithms]
        if algorithm not in allowed:
            continue
        try:
            PyJWS().decode_complete(
                token,
                key.public,
                algorithms=allowed,
            )
        except (PyJWTError, ValueError):
            continue
        return claims
    raise BadToken("failed to verify signature")


def _key(key: Any) -> Key:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    private = None
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        private, key = key, key.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _SMALLEST_RSA:
            raise BadKey(f"an RSA key of {key.key_size} bits is too short")
        algorithms: tuple[str, ...] = _RSA
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        algorithms = (_CURVES[key.curve.name],)
    else:
        raise BadKey("only RSA and ECDSA keys sign tokens")
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Key(_encode(hashlib.sha256(der).digest()), algorithms, key, private)


def _blocks(pem: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Label and text of each PEM block."""
    rest = pem
    while True:
        _, begin, rest = rest.partition(b"-----BEGIN ")
        label, dashes, _ = rest.partition(b"-----")
        if not begin or not dashes:
            return
        end = b"-----END " + label + b"-----"
        body, found, rest = rest.partition(end)
        if not found:
            return
        yield label, b"-----BEGIN " + body + end + b"\n"


def _number(value: int, size: int = 0) -> str:
    return _encode(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
