from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from wherry.kube.api import jose

CLAIMS = {"iss": "me", "sub": "you", "n": 1}


def encoded(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def public_pem(key: jose.Key) -> bytes:
    return key.public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def rsa_key() -> jose.Key:
    made = rsa.generate_private_key(65537, 2048)
    pem = made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return jose.load(pem)[0]


@pytest.mark.parametrize("make", [jose.generate, rsa_key])
def test_what_a_key_signs_it_believes_and_no_other_does(make) -> None:
    key = make()
    token = jose.sign(key, CLAIMS)
    assert jose.verify(token, [key]) == CLAIMS
    assert jose.verify(token, [jose.generate(), *jose.load(public_pem(key))]) == CLAIMS
    assert jose.verify(token, jose.from_jwks({"keys": [key.jwk()]})) == CLAIMS
    with pytest.raises(jose.BadToken):
        jose.verify(token, [make()])
    with pytest.raises(jose.BadToken):
        jose.verify(token, [])


def test_a_token_without_a_signature_is_never_believed() -> None:
    key = jose.generate()
    for alg in ("none", "None", "NONE", "", None):
        header = encoded({"alg": alg, "kid": key.id})
        for signature in ("", jose.sign(key, CLAIMS).split(".")[2]):
            with pytest.raises(jose.BadToken):
                jose.verify(f"{header}.{encoded(CLAIMS)}.{signature}", [key])


@pytest.mark.parametrize("make", [jose.generate, rsa_key])
def test_a_public_key_is_no_shared_secret(make) -> None:
    key = make()
    for secret in (public_pem(key), public_pem(key).strip()):
        signed = f"{encoded({'alg': 'HS256', 'kid': key.id})}.{encoded(CLAIMS)}"
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        with pytest.raises(jose.BadToken):
            jose.verify(f"{signed}.{encoded(mac)}", [key])


def test_what_was_changed_is_not_believed() -> None:
    key = jose.generate()
    header, claims, signature = jose.sign(key, CLAIMS).split(".")
    forged = encoded({**CLAIMS, "sub": "root"})
    for token in (
        f"{header}.{forged}.{signature}",
        f"{encoded({'alg': 'RS256'})}.{claims}.{signature}",
        f"{encoded({'alg': 'ES384'})}.{claims}.{signature}",
        f"{header}.{claims}.{encoded(bytes(64))}",
        f"{header}.{claims}.",
        f"{header}.{claims}",
        f"{header}.{encoded([])}.{signature}",
        "a.b.c",
        "",
        "." * 5,
        "x" * 100_000,
    ):
        with pytest.raises(jose.BadToken):
            jose.verify(token, [key])


def test_a_key_brought_along_in_the_token_counts_for_nothing() -> None:
    ours, theirs = jose.generate(), jose.generate()
    _, claims, _ = jose.sign(theirs, CLAIMS).split(".")
    header = encoded({"alg": "ES256", "kid": ours.id, "jwk": theirs.jwk()})
    from jwt import PyJWS

    token = PyJWS().encode(
        json.dumps(CLAIMS).encode(), theirs.private, "ES256", {"kid": ours.id, "jwk": theirs.jwk()}
    )
    for forged in (token, f"{header}.{claims}.{token.split('.')[2]}"):
        with pytest.raises(jose.BadToken):
            jose.verify(forged, [ours])


def test_algorithms_may_be_narrowed() -> None:
    key = rsa_key()
    token = jose.sign(key, CLAIMS)
    assert jose.verify(token, [key], ("RS256",)) == CLAIMS
    with pytest.raises(jose.BadToken):
        jose.verify(token, [key], ("ES256", "RS512"))


def test_keys_that_cannot_sign_tokens_are_refused() -> None:
    def pem(key: object) -> bytes:
        return key.private_bytes(  # type: ignore[attr-defined]
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    for data in (
        b"",
        b"nonsense",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        pem(ed25519.Ed25519PrivateKey.generate()),
        pem(ec.generate_private_key(ec.SECP256K1())),
    ):
        with pytest.raises(jose.BadKey):
            jose.load(data)


def test_a_set_of_keys_takes_what_it_can_use() -> None:
    key = jose.generate()
    odd = [{"kty": "oct", "k": "AAAA"}, {"kty": "EC"}, {"kty": "RSA", "n": "x"}, 3, None]
    assert [k.id for k in jose.from_jwks({"keys": [*odd, key.jwk()]})] == [key.id]
    assert jose.from_jwks({"keys": "x"}) == jose.from_jwks([]) == []
    private = {**key.jwk(), "use": "enc"}
    assert jose.from_jwks({"keys": [private]}) == []
