from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wherry.kube.controllers.account_token import filled, is_orphan
from wherry.kube.controllers.certificates import requests
from wherry.kube.controllers.certificates.controllers import leaves_at
from wherry.kube.controllers.certificates.requests import Unfit
from wherry.kube.controllers.certificates.signing import Authority

KUBELET = ("digital signature", "key encipherment", "client auth")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def request(
    name: str = "system:node:n1", organization: str = "system:nodes", *dns: str
) -> x509.CertificateSigningRequest:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if dns:
        names = x509.SubjectAlternativeName([x509.DNSName(each) for each in dns])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())


def refused(signer: str, asked: x509.CertificateSigningRequest, *usages: str) -> str:
    try:
        requests.SIGNERS[signer](asked, frozenset(usages))
    except Unfit as error:
        return str(error)
    return ""


def test_each_signer_has_its_rules() -> None:
    client, kubelet, serving = requests.CLIENT, requests.KUBELET_CLIENT, requests.KUBELET_SERVING
    assert refused(client, request("jane", "dev"), "client auth") == ""
    assert refused(client, request(), "server auth", "client auth") == (
        "invalid usage for client certificate: server auth"
    )
    assert refused(client, request(), "digital signature") == (
        "missing required usage for client certificate: client auth"
    )
    assert refused(kubelet, request(), *KUBELET) == ""
    assert refused(kubelet, request(), "digital signature", "client auth") == ""
    assert refused(kubelet, request("jane"), *KUBELET) == (
        "subject common name does not begin with system:node:"
    )
    assert refused(kubelet, request(organization="dev"), *KUBELET) == (
        "subject organization is not system:nodes"
    )
    names = request("system:node:n1", "system:nodes", "n1")
    assert refused(kubelet, names, *KUBELET) == "DNS subjectAltNames are not allowed"
    assert refused(kubelet, request(), "client auth").startswith("usages did not match [")
    assert refused(serving, names, "digital signature", "server auth") == ""
    assert refused(serving, request(), "server auth") == "DNS or IP subjectAltName is required"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    from wherry.launcher import pki

    pki.Authority(tmp_path)
    return Authority(tmp_path / "ca.crt", tmp_path / "ca.key", days=365)


def test_a_certificate_is_what_was_asked_for_and_no_authority(authority: Authority) -> None:
    asked = request("jane", "dev", "a.example")
    now = datetime.now(UTC).replace(microsecond=0)
    pem = authority.sign(asked, ["client auth", "digital signature"], 3600, now)
    made = x509.load_pem_x509_certificate(pem)
    issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    made.verify_directly_issued_by(issuer)
    assert made.subject == asked.subject
    assert made.not_valid_after_utc == now + timedelta(hours=1)
    found = made.extensions
    assert not found.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = found.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and not usage.key_cert_sign
    purposes = found.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [purpose.dotted_string for purpose in purposes] == ["1.3.6.1.5.5.7.3.2"]
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example"]
    year = x509.load_pem_x509_certificate(authority.sign(asked, ["any"], 10**9, now))
    assert year.not_valid_after_utc == now + timedelta(days=365)


def csr(*conditions: dict[str, Any], **status: Any) -> dict[str, Any]:
    made = NOW.isoformat().replace("+00:00", "Z")
    return {
        "metadata": {"name": "r", "creationTimestamp": made},
        "spec": {},
        "status": {"conditions": list(conditions), **status},
    }


def test_a_request_leaves_when_it_has_had_its_time() -> None:
    assert leaves_at(csr()) == NOW + timedelta(hours=24)
    later = {"lastUpdateTime": "2026-03-01T13:00:00Z", "status": "True"}
    assert leaves_at(csr({"type": "Denied", **later})) == NOW + timedelta(hours=2)
    assert leaves_at(csr({"type": "Approved", **later})) == NOW + timedelta(hours=24)
    issued = csr({"type": "Approved", **later}, certificate=base64.b64encode(b"x").decode())
    assert leaves_at(issued) == NOW + timedelta(hours=2)


def test_a_certificate_takes_its_request_along_when_it_ends(authority: Authority) -> None:
    pem = authority.sign(request(), KUBELET, 600, datetime.now(UTC))
    ends = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    approved = {"type": "Approved", "status": "True", "lastUpdateTime": "2099-01-01T00:00:00Z"}
    assert leaves_at(csr(approved, certificate=base64.b64encode(pem).decode())) == ends


# --- tokens in Secrets --------------------------------------------------------------------------


def secret(**data: str) -> dict[str, Any]:
    annotations = {"kubernetes.io/service-account.name": "robot"}
    return {
        "metadata": {"name": "s", "namespace": "ns", "annotations": annotations},
        "type": "kubernetes.io/service-account-token",
        "data": data,
    }


ACCOUNT = {"metadata": {"name": "robot", "namespace": "ns", "uid": "u1"}}


def test_a_secret_is_filled_once() -> None:
    made = filled(secret(), ACCOUNT, "CA", lambda claims: f"token of {claims['sub']}")
    assert made is not None
    assert {key: base64.b64decode(value) for key, value in made["data"].items()} == {
        "ca.crt": b"CA",
        "namespace": b"ns",
        "token": b"token of system:serviceaccount:ns:robot",
    }
    assert made["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == "u1"
    assert filled(made, ACCOUNT, "CA", lambda claims: "another") is None
    again = filled(made, ACCOUNT, "CB", lambda claims: "another")
    assert again is not None and again["data"]["token"] == made["data"]["token"]


def test_a_token_goes_with_its_account() -> None:
    assert is_orphan(secret(), None) and not is_orphan(secret(), ACCOUNT)
    held = secret()
    held["metadata"]["annotations"]["kubernetes.io/service-account.uid"] = "u0"
    assert is_orphan(held, ACCOUNT)


def asking(
    signer: str, user: str, groups: list[str], asked: x509.CertificateSigningRequest, purpose: str
) -> dict[str, Any]:
    pem = asked.public_bytes(serialization.Encoding.PEM)
    spec = {
        "signerName": signer,
        "username": user,
        "groups": groups,
        "usages": ["digital signature", purpose],
        "request": base64.b64encode(pem).decode(),
    }
    return {"metadata": {"name": "csr-1"}, "spec": spec}


NODE = {
    "metadata": {"name": "n1"},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
}


def test_the_certificate_of_a_kubelets_server_is_for_what_its_node_is_called_alone() -> None:
    def judged(user: str, groups: list[str], *dns: str, node: Any = NODE) -> list[str]:
        asked = asking(
            requests.KUBELET_SERVING,
            user,
            groups,
            request("system:node:n1", "system:nodes", *dns),
            "server auth",
        )
        assert requests.serving_node(asked) == ("n1" if user == "system:node:n1" else None)
        return [right for right, _ in requests.recognised(asked, node)]

    nodes = ["system:nodes", "system:authenticated"]
    assert judged("system:node:n1", nodes, "n1") == ["selfnodeserver"]
    assert judged("system:node:n1", nodes, "n1", "kubernetes.default") == []
    assert judged("system:node:n1", nodes, "n1", node=None) == []
    assert judged("jane", ["system:authenticated"], "n1") == []


def test_nodes_may_ask_for_the_proxys_certificate_and_no_other_client() -> None:
    def judged(name: str, organization: str, groups: list[str]) -> list[str]:
        asked = asking(
            requests.CLIENT, "system:node:n1", groups, request(name, organization), "client auth"
        )
        return [right for right, _ in requests.recognised(asked, NODE)]

    assert judged("system:kube-proxy", "", ["system:nodes"]) == ["proxyclient"]
    assert judged("system:kube-proxy", "", ["system:authenticated"]) == []
    assert judged("system:kube-proxy", "system:masters", ["system:nodes"]) == []
    assert judged("system:kube-scheduler", "", ["system:nodes"]) == []
