"""For whom a certificate is, and whether it can be used."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wherry.kube.ingress import certificates

# Made by openssl, of the curve prime239v1, which the library does not know.
CERTIFICATE = b"""\
-----BEGIN CERTIFICATE-----
MIIBZjCCARGgAwIBAgIUc2b2kV25/jLCIltQ7/c3wovDq70wCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBeDAgFw0yNjExMjEyMDM3MzdaGA8yMTI2MTAyODIwMzczN1ow
DDEKMAgGA1UEAwwBeDBVMBMGByqGSM49AgEGCCqGSM49AwEEAz4ABAqJsX/7Zuvc
LBCZQGcGYJ7+F+5EGSq6rjT9S+7691YrLrst8g38N3oZGc32QLAvfD832+ZlvkD7
d6nbLqNTMFEwHQYDVR0OBBYEFFAZYfqJottK2hvY+HEL3Y5OWpAcMB8GA1UdIwQY
MBaAFFAZYfqJottK2hvY+HEL3Y5OWpAcMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZI
zj0EAwIDQwAwQAIef/8hRh47cuHzLXaT2d0sNxTFx2zGdzssZPyLRmChAh4vGXVi
NQQ8VS7+PbVGbr9n/saxklHM++gg6/ymObc=
-----END CERTIFICATE-----
"""
KEY = b"""\
-----BEGIN PRIVATE KEY-----
MIGBAgEAMBMGByqGSM49AgEGCCqGSM49AwEEBGcwZQIBAQQeAsrrgPLJVt5rxhS9
CHsssfUR1ReSWBiZn3rHz45coUADPgAEComxf/tm69wsEJlAZwZgnv4X7kQZKrqu
NP1L7vr3Visuuy3yDfw3ehkZzfZAsC98Pzfb5mW+QPt3qdsu
-----END PRIVATE KEY-----
"""


def test_names_in_certificates():
    pem = certificates.default()
    assert certificates.names(pem) == {"ingress.local"}
    assert certificates.covers("*.a.com", "x.a.com") and certificates.covers("a.com", "a.com")
    assert certificates.covers("*.a.com", "*.a.com")
    for pattern, host in (("*.a.com", "a.com"), ("*.a.com", "y.x.a.com"), ("a.com", "x.a.com")):
        assert not certificates.covers(pattern, host)


def test_old_certificates_name_their_host_in_the_subject():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubia.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    assert certificates.names(pem) == {"kubia.example.com"}


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        (CERTIFICATE, KEY, "is not supported"),
        (CERTIFICATE, b"", "no tls.key in it"),
        (b"", KEY, "no tls.crt in it"),
        (b"nothing", b"nothing", "[a-z]"),
        (certificates.default(), b"nothing", "[a-z]"),
    ],
)
def test_what_cannot_be_used_is_told(certificate: bytes, key: bytes, said: str):
    with pytest.raises(certificates.BadCertificate, match=said):
        certificates.bundle(certificate, key)


def test_a_certificate_that_cannot_be_read_is_for_nobody():
    assert certificates.names(b"nothing") == frozenset()
