"""Makes a certificate of a request: the subject and its names are the request's, all else ours.

Upstream: pkg/controller/certificates/authority.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry.kube.controllers.certificates.requests import Unfit

if TYPE_CHECKING:
    from cryptography import x509

_BACK = timedelta(minutes=5)  # clocks may differ by so much
_SHORTEST = timedelta(minutes=10)
_KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_PURPOSES = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}


@dataclass(frozen=True, slots=True)
class Authority:
    """Whose key signs: the files of its certificate and key; ``days`` is how long a certificate
    lasts at most."""

    certificate: Path
    key: Path
    days: int = 365

    def sign(
        self,
        request: x509.CertificateSigningRequest,
        usages: Iterable[str],
        seconds: int | None,
        now: datetime | None = None,
    ) -> bytes:
        """The certificate, PEM; it ends after ``seconds`` where they are fewer than our days.

        Raises:
            Unfit: the request is not signed by the key it is for, or asks for what there is not.
            OSError, ValueError: the authority's files cannot be read.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        if not request.is_signature_valid:
            raise Unfit("the request's signature does not fit its key")
        authority = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        key: Any = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
        now = now or datetime.now(UTC)
        lasts = timedelta(days=self.days)
        if seconds is not None:
            lasts = min(lasts, max(timedelta(seconds=seconds), _SHORTEST))
        ends = min(now + lasts, authority.not_valid_after_utc)
        if ends <= now:
            raise ValueError(f"the signer has expired: NotAfter={authority.not_valid_after_utc}")
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(authority.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACK)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
                critical=False,
            )
        )
        asked = list(usages)
        held = {_KEY_USAGES[usage] for usage in asked if usage in _KEY_USAGES}
        if held:
            builder = builder.add_extension(_key_usage(held), critical=True)
        purposes = dict.fromkeys(_PURPOSES[usage] for usage in asked if usage in _PURPOSES)
        if purposes:
            identifiers = [x509.ObjectIdentifier(purpose) for purpose in purposes]
            builder = builder.add_extension(x509.ExtendedKeyUsage(identifiers), critical=False)
        try:
            names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            builder = builder.add_extension(names.value, critical=False)
        except x509.ExtensionNotFound:
            pass
        except ValueError as error:
            raise Unfit(str(error)) from None
        made = builder.sign(key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)


def _key_usage(held: set[str]) -> x509.KeyUsage:
    from cryptography import x509

    flags = {name: name in held for name in _KEY_USAGES.values()}
    if not flags["key_agreement"]:  # of which these two say more
        flags["encipher_only"] = flags["decipher_only"] = False
    return x509.KeyUsage(**flags)
