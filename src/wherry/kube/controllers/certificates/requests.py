"""What each of Kubernetes' own signers signs.

Upstream: pkg/apis/certificates/helpers.go, pkg/controller/certificates/signer/signer.go.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from wherry.kube.client.transport import Object

if TYPE_CHECKING:
    from cryptography import x509

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"

PROXY = "system:kube-proxy"
_NODES = "system:nodes"
_NODE = "system:node:"
_SIGNATURE, _ENCIPHERMENT = "digital signature", "key encipherment"
_CLIENT_AUTH, _SERVER_AUTH = "client auth", "server auth"


class Unfit(ValueError):
    """A request that its signer does not sign; the text says why, in upstream's words."""


def parse(csr: Object) -> x509.CertificateSigningRequest:
    """The request inside the object. Raises Unfit."""
    from cryptography import x509

    try:
        pem = base64.b64decode(csr["spec"]["request"], validate=True)
        return x509.load_pem_x509_csr(pem)
    except (ValueError, KeyError, binascii.Error) as error:
        raise Unfit(f"unable to parse csr: {error}") from None


def check_client(request: x509.CertificateSigningRequest, usages: frozenset[str]) -> None:
    """Raises Unfit."""
    for usage in sorted(usages - {_SIGNATURE, _ENCIPHERMENT, _CLIENT_AUTH}):
        raise Unfit(f"invalid usage for client certificate: {usage}")
    if _CLIENT_AUTH not in usages:
        raise Unfit(f"missing required usage for client certificate: {_CLIENT_AUTH}")


def check_kubelet_client(request: x509.CertificateSigningRequest, usages: frozenset[str]) -> None:
    """Raises Unfit."""
    _check_organization(request)
    names = _alternative_names(request)
    for kind, what in (
        ("DNSName", "DNS"),
        ("RFC822Name", "Email"),
        ("IPAddress", "IP"),
        ("UniformResourceIdentifier", "URI"),
    ):
        if kind in names:
            raise Unfit(f"{what} subjectAltNames are not allowed")
    _check_name(request)
    _check_usages(usages, _CLIENT_AUTH)


def check_kubelet_serving(request: x509.CertificateSigningRequest, usages: frozenset[str]) -> None:
    """Raises Unfit."""
    _check_organization(request)
    names = _alternative_names(request)
    if not {"DNSName", "IPAddress"} & names:
        raise Unfit("DNS or IP subjectAltName is required")
    for kind, what in (("RFC822Name", "Email"), ("UniformResourceIdentifier", "URI")):
        if kind in names:
            raise Unfit(f"{what} subjectAltNames are not allowed")
    _check_usages(usages, _SERVER_AUTH)
    _check_name(request)


def _check_nothing(request: x509.CertificateSigningRequest, usages: frozenset[str]) -> None:
    return


SIGNERS: Mapping[str, Callable[[Any, frozenset[str]], None]] = {
    CLIENT: check_client,
    KUBELET_CLIENT: check_kubelet_client,
    KUBELET_SERVING: check_kubelet_serving,
    LEGACY: _check_nothing,
}
"""The signers that are ours, and what they ask of a request."""


def is_decided(csr: Object) -> bool:
    """Whether it is approved, denied, or signed already."""
    signed = (csr.get("status") or {}).get("certificate")
    return bool(signed or {"Approved", "Denied"} & set(conditions(csr)))


def serving_node(csr: Object) -> str | None:
    """The node whose kubelet asks for a certificate of its server; None where it is another's."""
    spec = csr["spec"]
    user = spec.get("username") or ""
    if spec.get("signerName") != KUBELET_SERVING or _NODES not in (spec.get("groups") or ()):
        return None
    return user.removeprefix(_NODE) if user.startswith(_NODE) else None


def recognised(csr: Object, node: Object | None) -> list[tuple[str, str]]:
    """As what it could be approved: the right that is needed, and what it is, the first first.

    ``node`` is the Node of ``serving_node``.
    """
    spec = csr["spec"]
    signer = spec.get("signerName")
    usages = frozenset(spec.get("usages") or ())
    try:
        request = parse(csr)
        if signer == KUBELET_CLIENT:
            check_kubelet_client(request, usages)
            found = [("nodeclient", "kubelet client certificate")]
            if spec.get("username") == common_name(request):
                found.insert(0, ("selfnodeclient", "self kubelet client certificate"))
            return found
        if signer == KUBELET_SERVING and node is not None:
            check_kubelet_serving(request, usages)
            own = spec.get("username") == common_name(request)
            if own and set(alternative_names(request)) <= _known_as(node):
                return [("selfnodeserver", "self kubelet server certificate")]
        if signer == CLIENT and _NODES in (spec.get("groups") or ()):
            _check_usages(usages, _CLIENT_AUTH)
            plain = not organizations(request) and not alternative_names(request)
            if plain and common_name(request) == PROXY:
                return [("proxyclient", "proxy client certificate")]
    except Unfit:
        pass
    return []


def _known_as(node: Object) -> set[str]:
    """The names and addresses of a node."""
    addresses = (node.get("status") or {}).get("addresses") or ()
    return {node["metadata"]["name"], *(a["address"] for a in addresses)}


def common_name(request: x509.CertificateSigningRequest) -> str:
    """The CN of the subject, "" where there is none."""
    from cryptography.x509.oid import NameOID

    return "".join(
        str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[-1:]
    )


def organizations(request: x509.CertificateSigningRequest) -> list[str]:
    """The Os of the subject."""
    from cryptography.x509.oid import NameOID

    found = request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return [str(attribute.value) for attribute in found]


def conditions(csr: Object) -> dict[str, Object]:
    """The conditions that hold, by type."""
    listed = (csr.get("status") or {}).get("conditions") or ()
    return {c["type"]: c for c in listed if c.get("status", "True") == "True"}


def _check_organization(request: x509.CertificateSigningRequest) -> None:
    if organizations(request) != [_NODES]:
        raise Unfit("subject organization is not system:nodes")


def _check_name(request: x509.CertificateSigningRequest) -> None:
    if not common_name(request).startswith(_NODE):
        raise Unfit("subject common name does not begin with system:node:")


def _check_usages(usages: frozenset[str], purpose: str) -> None:
    wanted = {_SIGNATURE, _ENCIPHERMENT, purpose}
    if usages not in (wanted, wanted - {_ENCIPHERMENT}):
        raise Unfit(f"usages did not match [{' '.join(sorted(wanted))}]")


def _alternative_names(request: x509.CertificateSigningRequest) -> set[str]:
    """Of which kinds the subject's alternative names are. Raises Unfit."""
    from cryptography import x509

    try:
        found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    except ValueError as error:
        raise Unfit(str(error)) from None
    return {type(name).__name__ for name in found.value}


def alternative_names(request: x509.CertificateSigningRequest) -> list[str]:
    """The subject's alternative names and addresses. Raises Unfit."""
    from cryptography import x509

    try:
        found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    except ValueError as error:
        raise Unfit(str(error)) from None
    return [str(name.value) for name in found.value]
