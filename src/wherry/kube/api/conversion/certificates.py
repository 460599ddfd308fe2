"""CertificateSigningRequests of certificates.k8s.io/v1beta1: who is to sign could be left out.

Upstream: pkg/apis/certificates/v1beta1/defaults.go.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from wherry.kube.api.conversion.version import Conversion
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds.base import Object

_UNKNOWN = "kubernetes.io/legacy-unknown"
_KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
_KUBELET_SERVING = "kubernetes.io/kubelet-serving"
_ALWAYS = {"digital signature"}
_SOMETIMES = {"key encipherment"}


def _default(o: Object) -> None:
    spec = o.setdefault("spec", {})
    if spec.get("usages") is None:
        spec["usages"] = ["digital signature", "key encipherment"]
    if spec.get("signerName") is None:
        spec["signerName"] = _signer(spec.get("request", ""), spec["usages"])
    for condition in (o.get("status") or {}).get("conditions") or ():
        if not condition.get("status"):
            condition["status"] = "True"


def _signer(request: str, usages: Sequence[str]) -> str:
    """The signer that a request is meant for, by what it asks."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        csr = x509.load_pem_x509_csr(base64.b64decode(request, validate=True))
    except (binascii.Error, ValueError):
        return _UNKNOWN
    subject = csr.subject
    groups = [a.value for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    names = [a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if groups != ["system:nodes"] or not names or not str(names[0]).startswith("system:node:"):
        return _UNKNOWN
    try:
        named = list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        named = []
    except ValueError:
        return _UNKNOWN
    asked = set(usages) - _SOMETIMES
    if asked == _ALWAYS | {"client auth"} and not named:
        return _KUBELET_CLIENT
    reachable = [each for each in named if isinstance(each, x509.DNSName | x509.IPAddress)]
    if asked == _ALWAYS | {"server auth"} and named and reachable == named:
        return _KUBELET_SERVING
    return _UNKNOWN


def _fault(fault: FieldError) -> FieldError | None:
    return None if "the legacy signerName is not allowed" in fault.detail else fault


CSR = Conversion(default=_default, fault=_fault)
