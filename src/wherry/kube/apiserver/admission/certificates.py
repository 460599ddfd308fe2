"""CertificateSigningRequests: who may approve and sign for which signer, and what nobody gets.

A right names the signer, or its whole domain (``example.com/*``); approving and signing are checked
against the signer the request was made for.
Upstream: plugin/pkg/admission/certificates.
"""

from __future__ import annotations

import base64
import binascii

from wherry.kube.api.resources import CERTIFICATE_SIGNING_REQUESTS
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.authn import MASTERS
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import RequestInfo

_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
_DECISIONS = ("Approved", "Denied")


def approve(attributes: Attributes, context: Context) -> None:
    """An update of ``approval``."""
    signer = _signer(attributes.old)
    if not _may(attributes, context, "approve", signer):
        raise attributes.forbidden(
            f'user not permitted to approve requests with signerName "{signer}"'
        )


def sign(attributes: Attributes, context: Context) -> None:
    """An update of ``status``: the certificate, and what has failed, are the signer's to say."""
    old, new = attributes.old or {}, attributes.new
    before, after = old.get("status") or {}, new.get("status") or {}
    if before.get("certificate") == after.get("certificate") and _others(before) == _others(after):
        return
    signer = _signer(attributes.old)
    if not _may(attributes, context, "sign", signer):
        raise attributes.forbidden(
            f'user not permitted to sign requests with signerName "{signer}"'
        )


def restrict_subject(attributes: Attributes, context: Context) -> None:
    """A new request: nobody becomes a master of the cluster by asking for a certificate."""
    spec = attributes.new.get("spec") or {}
    if spec.get("signerName") != _CLIENT_SIGNER:
        return
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        pem = base64.b64decode(spec.get("request", ""), validate=True)
        request = x509.load_pem_x509_csr(pem)
    except (ValueError, binascii.Error) as error:
        raise attributes.forbidden(f"failed to parse CSR: {error}") from None
    groups = request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if any(group.value == MASTERS for group in groups):
        raise attributes.forbidden(
            f"use of {_CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
        )


def _others(status: Object) -> list[Object]:
    """The conditions that no approver sets."""
    return [c for c in status.get("conditions") or () if c.get("type") not in _DECISIONS]


def _signer(csr: Object | None) -> str:
    name: str = ((csr or {}).get("spec") or {}).get("signerName", "")
    return name


def _may(attributes: Attributes, context: Context, verb: str, signer: str) -> bool:
    group = CERTIFICATE_SIGNING_REQUESTS.group
    domain = signer.partition("/")[0]
    return any(
        context.authorizer.allows(
            attributes.user,
            RequestInfo("", "", verb, True, group, "*", "signers", "", "", name),
        )
        for name in (signer, f"{domain}/*")
    )
