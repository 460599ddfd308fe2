"""Certificates of hosts: checked before nginx sees them, and one of our own for all other hosts."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DEFAULT_NAME = "Kubernetes Ingress Controller Fake Certificate"
_YEARS = datetime.timedelta(days=3650)


class BadCertificate(ValueError):
    """It cannot be used; ``str()`` says why."""


def bundle(certificate: bytes, key: bytes) -> bytes:
    """Certificate, chain and key in one file.

    Raises:
        BadCertificate: one is missing, broken, or they do not belong together.
    """
    if not certificate or not key:
        raise BadCertificate(f"no {'tls.crt' if not certificate else 'tls.key'} in it")
    try:
        leaf = x509.load_pem_x509_certificates(certificate)[0]
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        raise BadCertificate(str(error) or "not PEM") from error
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if leaf.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        raise BadCertificate("the key is not that of the certificate")
    return certificate.strip() + b"\n" + key.strip() + b"\n"


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
