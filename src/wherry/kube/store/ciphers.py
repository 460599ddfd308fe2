"""How a value is made unreadable: the providers of Kubernetes' EncryptionConfiguration.

What a value begins with says which of them, and which key, made it: ``k8s:enc:aescbc:v1:key1:``.
Formats are upstream's (k8s.io/apiserver/pkg/storage/value/encrypt), so that either reads what the
other wrote. ``place`` is where the value lies in the store; ciphers that can bind it to that, so
that nobody puts one secret's value into another's place.
"""

from __future__ import annotations

import os
from typing import Protocol

from wherry.kube.store import salsa

MARK = b"k8s:enc:"
"""What every encrypted value begins with; no object in plain text does."""


class Unreadable(Exception):
    """A value that no key at hand opens; the text says which and never what is in it."""


class Cipher(Protocol):
    """One key of one provider. ``prefix``: what its values begin with."""

    prefix: bytes

    def seal(self, value: bytes, place: str) -> bytes:
        """The value encrypted, without the prefix."""

    def open(self, sealed: bytes, place: str) -> bytes:
        """The value. Raises Unreadable."""


class Identity:
    """Plain text."""

    prefix = b""

    def seal(self, value: bytes, place: str) -> bytes:
        return value

    def open(self, sealed: bytes, place: str) -> bytes:
        if sealed.startswith(MARK):
            raise Unreadable(f"{place}: it is encrypted, and no key for it is configured")
        return sealed


class _Keyed:
    provider = ""

    def __init__(self, name: str, key: bytes) -> None:
        self.prefix = MARK + f"{self.provider}:v1:{name}:".encode()
        self._key = key


class AESGCM(_Keyed):
    """AES in Galois/counter mode, with a random nonce: keys must change before 2^32 writes."""

    provider = "aesgcm"

    def seal(self, value: bytes, place: str) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM as GCM

        nonce = os.urandom(12)
        return nonce + GCM(self._key).encrypt(nonce, value, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM as GCM

        try:
            return GCM(self._key).decrypt(sealed[:12], sealed[12:], place.encode())
        except (InvalidTag, ValueError):
            raise Unreadable(f"{place}: it was not encrypted with this key for here") from None


class AESCBC(_Keyed):
    """AES in cipher block chaining, padded as PKCS#7 says. It does not notice every change."""

    provider = "aescbc"

    def seal(self, value: bytes, place: str) -> bytes:
        from cryptography.hazmat.primitives.ciphers import Cipher as Block
        from cryptography.hazmat.primitives.ciphers import algorithms, modes
        from cryptography.hazmat.primitives.padding import PKCS7

        vector = os.urandom(16)
        padder = PKCS7(128).padder()
        padded = padder.update(value) + padder.finalize()
        encryptor = Block(algorithms.AES(self._key), modes.CBC(vector)).encryptor()
        return vector + encryptor.update(padded) + encryptor.finalize()

    def open(self, sealed: bytes, place: str) -> bytes:
        from cryptography.hazmat.primitives.ciphers import Cipher as Block
        from cryptography.hazmat.primitives.ciphers import algorithms, modes
        from cryptography.hazmat.primitives.padding import PKCS7

        vector, rest = sealed[:16], sealed[16:]
        try:
            decryptor = Block(algorithms.AES(self._key), modes.CBC(vector)).decryptor()
            padded = decryptor.update(rest) + decryptor.finalize()
            unpadder = PKCS7(128).unpadder()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            raise Unreadable(f"{place}: it was not encrypted with this key") from None


class Secretbox(_Keyed):
    """XSalsa20 and Poly1305."""

    provider = "secretbox"

    def seal(self, value: bytes, place: str) -> bytes:
        nonce = os.urandom(salsa.NONCE)
        return nonce + salsa.seal(value, nonce, self._key)

    def open(self, sealed: bytes, place: str) -> bytes:
        nonce, box = sealed[: salsa.NONCE], sealed[salsa.NONCE :]
        if len(box) < salsa.TAG:
            raise Unreadable(f"{place}: it is cut short")
        try:
            return salsa.open_(box, nonce, self._key)
        except salsa.Forged as error:
            raise Unreadable(f"{place}: {error}") from None


SIZES = {"aesgcm": (16, 24, 32), "aescbc": (16, 24, 32), "secretbox": (32,)}
"""How long a key of each provider may be, in bytes."""

PROVIDERS: dict[str, type[AESGCM] | type[AESCBC] | type[Secretbox]] = {
    "aesgcm": AESGCM,
    "aescbc": AESCBC,
    "secretbox": Secretbox,
}
