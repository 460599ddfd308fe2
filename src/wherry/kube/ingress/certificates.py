"""Certificates of hosts: checked before nginx sees them, and one of our own for all other hosts."""

from __future__ import annotations

import datetime
import functools
import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIST = re.compile(b"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_BROKEN = x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError
_DEFAULT_NAME = "Kubernetes Ingress Controller Fake Certificate"
_YEARS = datetime.timedelta(days=3650)


class BadCertificate(ValueError):
    """It cannot be used; ``str()`` says why."""


@functools.lru_cache(1024)  # to check an RSA key takes milliseconds
def bundle(certificate: bytes, key: bytes) -> bytes:
    """Certificate, chain and key in one file.

    Raises:
        BadCertificate: one is missing, broken, or they do not belong together.
    """
    if not certificate or not key:
        raise BadCertificate(f"no {'tls.crt' if not certificate else 'tls.key'} in it")
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        leaf = x509.load_pem_x509_certificates(certificate)[0]
        private = serialization.load_pem_private_key(key, None)
        same = leaf.public_key().public_bytes(*form) == private.public_key().public_bytes(*form)
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        raise BadCertificate(str(error) or "not PEM") from error
    if not same:
        raise BadCertificate("the key is not that of the certificate")
    return certificate.strip() + b"\n" + key.strip() + b"\n"


@functools.lru_cache(1024)
def authorities(certificates: bytes) -> bytes:
    """Certificates of whom is trusted.

    Raises:
        BadCertificate: there is none, or one is broken.
    """
    if not certificates:
        raise BadCertificate("no ca.crt in it")
    try:
        found = x509.load_pem_x509_certificates(certificates)
    except ValueError as error:
        raise BadCertificate(str(error) or "not PEM") from error
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in found)


@functools.lru_cache(1024)
def revoked(listed: bytes) -> bytes:
    """Lists of certificates that are trusted no longer.

    Raises:
        BadCertificate: there is none, or one is broken.
    """
    try:
        found = [x509.load_pem_x509_crl(one) for one in _LIST.findall(listed) or [listed]]
    except ValueError as error:
        raise BadCertificate(f"ca.crl: {error}") from error
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in found)


@functools.lru_cache(1024)
def names(certificate: bytes) -> frozenset[str]:
    """The hosts that a certificate is for, as old ones have it by their common name."""
    try:
        leaf = x509.load_pem_x509_certificates(certificate)[0]
        common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return frozenset()
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        listed = extension.value.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, *_BROKEN):
        listed = []
    return frozenset(name.lower() for name in listed or [str(found.value) for found in common])


def covers(pattern: str, host: str) -> bool:
    """Whether a name in a certificate stands for a host: ``*.`` is one label."""
    return pattern == host or (
        pattern.startswith("*.") and pattern[2:] == host.partition(".")[2] and host[:1] != "*"
    )


def default() -> bytes:
    """A certificate that nobody trusts, for hosts that have none."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _DEFAULT_NAME)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _YEARS)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("ingress.local")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
