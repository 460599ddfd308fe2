"""Client certificates: CN is the name, O the groups.

The connection verified the certificate already; here it is only read, once a connection.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping
from typing import Any

from wherry.kube.apiserver.authn.users import CREDENTIAL_ID, known
from wherry.kube.apiserver.request import User

_UID = "1.3.6.1.4.1.57683.2"  # the attribute Kubernetes has for it


def from_certificate(
    certificate: Mapping[str, Any] | None, der: bytes | None = None
) -> User | None:
    """The user a verified certificate (``getpeercert``) names; ``der`` is its encoded form."""
    if not certificate:
        return None
    name, uid, groups = "", "", []
    for relative_name in certificate.get("subject", ()):
        for key, value in relative_name:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
            elif key == _UID:
                uid = value
    if not name:
        return None
    extra = {CREDENTIAL_ID: (f"X509SHA256={hashlib.sha256(der).hexdigest()}",)} if der else None
    return known(name, groups, uid, extra)


def verified_root(connection: ssl.SSLObject) -> bytes | None:
    """The authority (DER) a connection's certificate was traced to; None where it showed none."""
    inner = getattr(connection, "_sslobj", None)
    chain = inner.get_verified_chain() if inner is not None else None
    if not chain:
        return None
    encoded: bytes = ssl.PEM_cert_to_DER_cert(chain[-1].public_bytes())
    return encoded
