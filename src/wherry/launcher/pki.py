"""The cluster's keys: one authority, and a certificate for everyone who must prove who they are.

Names and organisations follow kubeadm (https://kubernetes.io/docs/setup/best-practices/certificates/),
so that what RBAC says of them holds.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wherry.host.files import make_private, write_atomic
from wherry.launcher import ranges
from wherry.launcher.instance import Instance

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA_DAYS = 3650
CERTIFICATE_DAYS = 3650
Pair = tuple[bytes, bytes]  # a certificate and its key, PEM
FRONT_PROXY_CLIENT = "front-proxy-client"
API_KUBELET_CLIENT = "kube-apiserver-kubelet-client"


def ensure(instance: Instance) -> None:
    """Make whatever key or kubeconfig the instance does not have yet.

    The administrator's kubeconfig is written last: where it stands, all of them do.
    """
    _ensure_later_keys(instance)
    _ensure_servers(instance)
    if instance.kubeconfig.exists():
        return
    authority = Authority(instance.pki)
    authority.issue_client("apiserver-kubelet-client", API_KUBELET_CLIENT, "system:masters")
    clients = (
        (instance.data_dir / "kubelet.conf", f"system:node:{instance.node_name}", "system:nodes"),
        (instance.data_dir / "proxy.conf", "system:kube-proxy", ""),
        (instance.kubeconfig, "kubernetes-admin", "system:masters"),
    )
    for path, user, organization in clients:
        certificate, key = authority.client(user, organization)
        write_kubeconfig(path, instance, authority.certificate_pem, user, certificate, key)


def _ensure_servers(instance: Instance) -> None:
    """Certificates of the API server and the kubelet, where there are none (any more)."""
    service_ips = ranges.address(instance.service_ranges, 1)
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{instance.cluster_domain}",
        "localhost",
        instance.node_name,
    ]
    addresses = {"127.0.0.1", "::1", *instance.node_ips, *service_ips}
    for name in instance.api_names:
        try:
            addresses.add(str(ipaddress.ip_address(name)))
        except ValueError:
            names.append(name)
    authority: Authority | None = None
    for stem, common_name, organization, hosts, at in (
        ("apiserver", "kube-apiserver", "", names, addresses),
        (
            "kubelet",
            f"system:node:{instance.node_name}",
            "system:nodes",
            [instance.node_name, "localhost"],
            {"127.0.0.1", *instance.node_ips},
        ),
    ):
        if (instance.pki / f"{stem}.crt").exists():
            continue
        authority = authority or Authority(instance.pki)
        authority.issue_server(
            stem, common_name, organization=organization, names=hosts, addresses=sorted(at)
        )


def forget_servers(instance: Instance) -> None:
    """The names that servers have will be others: ``ensure`` makes their certificates anew."""
    for stem in ("apiserver", "kubelet"):
        (instance.pki / f"{stem}.crt").unlink(missing_ok=True)


def _ensure_later_keys(instance: Instance) -> None:
    """What instances of before did not have: the key of ServiceAccounts' tokens, the authority
    of the proxy that speaks to aggregated API servers in its users' names, and the certificate of
    the metrics server, which is such a one."""
    tokens = instance.pki / "sa.key"
    if not tokens.exists():
        from cryptography.hazmat.primitives.asymmetric import ec

        write_atomic(tokens, key_pem(ec.generate_private_key(ec.SECP256R1())))
    proxy = front_proxy(instance)
    if not (proxy / "client.crt").exists():
        make_private(proxy)
        Authority(proxy, "front-proxy-ca").issue_client("client", FRONT_PROXY_CLIENT, "")
    if not (instance.pki / "metrics-server.crt").exists():
        make_private(instance.pki)
        Authority(instance.pki).issue_server(
            "metrics-server",
            "metrics-server",
            names=["metrics-server.kube-system.svc"],
            addresses=["127.0.0.1"],
        )


def front_proxy(instance: Instance) -> Path:
    """Where that authority lies (``ca.crt``), and the proxy's own certificate (``client.crt``,
    ``client.key``)."""
    return instance.pki / "front-proxy"


class Authority:
    """A certificate authority, kept in ``directory``; made, as ``name``, where there is none."""

    def __init__(self, directory: Path, name: str = "kubernetes") -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        self.directory = directory
        certificate, key = directory / "ca.crt", directory / "ca.key"
        if not certificate.exists():
            made, made_key = _certificate(name, ca=True, days=CA_DAYS)
            write_atomic(key, key_pem(made_key))
            write_atomic(certificate, _certificate_pem(made), mode=0o644)
        self.certificate_pem = certificate.read_bytes()
        self.certificate = x509.load_pem_x509_certificate(self.certificate_pem)
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        self.key: EllipticCurvePrivateKey = loaded  # type: ignore[assignment]

    def issue_server(
        self,
        stem: str,
        common_name: str,
        *,
        names: Sequence[str],
        addresses: Sequence[str],
        organization: str = "",
    ) -> None:
        """Write ``<stem>.crt`` and ``<stem>.key`` for a server with these names."""
        certificate, key = _certificate(
            common_name,
            organization=organization,
            names=names,
            addresses=addresses,
            server=True,
            issuer=self,
        )
        self._write(stem, certificate, key)

    def issue_client(self, stem: str, common_name: str, organization: str) -> None:
        """Write ``<stem>.crt`` and ``<stem>.key`` for a client."""
        self._write(stem, *_certificate(common_name, organization=organization, issuer=self))

    def client(self, common_name: str, organization: str) -> Pair:
        """A certificate for a client, and its key, as PEM."""
        certificate, key = _certificate(common_name, organization=organization, issuer=self)
        return _certificate_pem(certificate), key_pem(key)

    def _write(
        self, stem: str, certificate: x509.Certificate, key: EllipticCurvePrivateKey
    ) -> None:
        write_atomic(self.directory / f"{stem}.key", key_pem(key))
        write_atomic(self.directory / f"{stem}.crt", _certificate_pem(certificate), mode=0o644)


def _certificate(
    common_name: str,
    *,
    organization: str = "",
    names: Sequence[str] = (),
    addresses: Sequence[str] = (),
    server: bool = False,
    ca: bool = False,
    days: int = CERTIFICATE_DAYS,
    issuer: Authority | None = None,
) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    """A new key and the certificate for it, signed by ``issuer`` or by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    subject = x509.Name(attributes)
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([purpose]), critical=False
        ).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    if names or addresses:
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer.key if issuer else key, hashes.SHA256()), key


def names_of(certificate_pem: bytes) -> set[str]:
    """The host names and addresses that a certificate is for."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(certificate_pem)
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    names = set(found.get_values_for_type(x509.DNSName))
    return names | {str(address) for address in found.get_values_for_type(x509.IPAddress)}


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: EllipticCurvePrivateKey) -> bytes:
    """The key in PEM (PKCS #8, not encrypted)."""
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write_kubeconfig(
    path: Path, instance: Instance, authority: bytes, user: str, certificate: bytes, key: bytes
) -> None:
    """A kubeconfig with everything inside (JSON, which is YAML too)."""

    def encode(data: bytes) -> str:
        return base64.b64encode(data).decode()

    cluster = "wherry" if instance.name == "default" else f"wherry-{instance.name}"
    context = f"{user}@{cluster}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {
                    "server": instance.api_url,
                    "certificate-authority-data": encode(authority),
                },
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": encode(certificate),
                    "client-key-data": encode(key),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
    }
    write_atomic(path, json.dumps(config, indent=2).encode() + b"\n")
