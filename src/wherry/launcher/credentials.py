"""What a node of somebody else's cluster shows to prove who it is: asked of the cluster, and anew
before it ends.

Three certificates, each by a CertificateSigningRequest: the kubelet's as a client
(``kubelet.conf``), that of its server, and the proxy's as a client (``proxy.conf``).
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wherry.host.files import write_atomic
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import CERTIFICATE_SIGNING_REQUESTS as REQUESTS
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.client import Client
from wherry.kube.client.https import from_kubeconfig
from wherry.kube.client.transport import Object
from wherry.launcher import pki
from wherry.launcher.instance import Instance

log = logging.getLogger(__name__)

_PATIENCE = 60.0  # seconds until somebody must have signed
_TERM = "renew-at"
_SERVER = "kubelet.pem"
_PART = 0.8  # of its time after which a certificate is renewed


class NotSigned(Exception):
    """Nobody signed in time, or somebody said no; the text says which."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate to ask for."""

    signer: str
    purpose: str  # client auth, server auth
    common_name: str
    organization: str = ""
    names: Sequence[str] = ()
    addresses: Sequence[str] = ()


def client_of(instance: Instance) -> Wanted:
    """The kubelet's, as a client."""
    return Wanted(
        "kubernetes.io/kube-apiserver-client-kubelet",
        "client auth",
        f"system:node:{instance.node_name}",
        "system:nodes",
    )


def server_of(instance: Instance) -> Wanted:
    """That of the kubelet's server."""
    return Wanted(
        "kubernetes.io/kubelet-serving",
        "server auth",
        f"system:node:{instance.node_name}",
        "system:nodes",
        (instance.node_name,),
        instance.node_ips,
    )


PROXY = Wanted("kubernetes.io/kube-apiserver-client", "client auth", "system:kube-proxy")


def request(wanted: Wanted) -> tuple[Object, bytes]:
    """The request to send, and the key that stays here (PEM)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, wanted.common_name)]
    if wanted.organization:
        subject.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, wanted.organization))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in wanted.names]
    names += [x509.IPAddress(ipaddress.ip_address(a)) for a in wanted.addresses]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    body = {
        "apiVersion": REQUESTS.api_version,
        "kind": REQUESTS.kind,
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": base64.b64encode(pem).decode(),
            "signerName": wanted.signer,
            "usages": ["digital signature", wanted.purpose],
        },
    }
    return body, pki.key_pem(key)


async def obtain(client: Client, wanted: Wanted) -> pki.Pair:
    """The certificate that is asked for, and its key.

    Raises:
        NotSigned: it was refused, or nobody decided.
        StatusError, ConnectionError: the API does not take the request.
    """
    body, key = request(wanted)
    made = await client.create(REQUESTS, body)
    name = made["metadata"]["name"]
    try:
        async with asyncio.timeout(_PATIENCE):
            return await _signed(client, name), key
    except TimeoutError:
        raise NotSigned(
            f"certificate signing request {name} ({wanted.signer}) was not approved in "
            f"{_PATIENCE:.0f} s; `kubectl certificate approve {name}` does it"
        ) from None


async def _signed(client: Client, name: str) -> bytes:
    while True:
        async for _, csr in client.watch(REQUESTS, field_selector=f"metadata.name={name}"):
            status = csr.get("status") or {}
            for condition in status.get("conditions") or ():
                if condition["type"] in ("Denied", "Failed"):
                    why = condition.get("message") or condition.get("reason") or ""
                    raise NotSigned(
                        f"certificate signing request {name}: {condition['type']}: {why}"
                    )
            if status.get("certificate"):
                return base64.b64decode(status["certificate"])


async def get_client(instance: Instance, client: Client, authority: bytes) -> bytes:
    """Write ``kubelet.conf``; returns its certificate. Raises as ``obtain``."""
    wanted = client_of(instance)
    certificate, key = await obtain(client, wanted)
    path = instance.data_dir / "kubelet.conf"
    pki.write_kubeconfig(path, instance, authority, wanted.common_name, certificate, key)
    return certificate


async def get_others(instance: Instance, client: Client, authority: bytes, own: bytes) -> None:
    """Write the server's certificate and ``proxy.conf``; ``client`` is the kubelet, ``own`` its
    certificate.

    Raises as ``obtain``.
    """
    (served, served_key), (certificate, key) = await asyncio.gather(
        obtain(client, server_of(instance)), obtain(client, PROXY)
    )
    # Both in one file: a kill in between would leave a certificate for another key.
    write_atomic(server_file(instance), served + served_key)
    path = instance.data_dir / "proxy.conf"
    pki.write_kubeconfig(path, instance, authority, PROXY.common_name, certificate, key)
    _note(instance, (own, served, certificate))


def server_file(instance: Instance) -> Path:
    """The certificate of the kubelet's server, and its key."""
    return instance.pki / _SERVER


@dataclass(frozen=True, slots=True)
class Term:
    """How long the certificates of a node hold: when they are renewed, when it is too late."""

    due: datetime
    ends: datetime


def term(now: datetime, ends: Sequence[datetime]) -> Term:
    """That of certificates which were made just now and end then."""
    first = min(ends)
    return Term(now + (first - now) * _PART, first)


def _note(instance: Instance, certificates: Sequence[bytes]) -> None:
    """Write down how long these hold: the daemon need not read certificates for it."""
    from cryptography import x509

    read = [x509.load_pem_x509_certificate(pem) for pem in certificates]
    noted = term(datetime.now(UTC), [c.not_valid_after_utc for c in read])
    text = f"{noted.due.isoformat()}\n{noted.ends.isoformat()}\n"
    write_atomic(instance.pki / _TERM, text.encode())


def noted(instance: Instance) -> Term:
    """How long the certificates of ``instance`` hold. OSError, ValueError: it is not known."""
    due, ends = (instance.pki / _TERM).read_text().split()
    return Term(datetime.fromisoformat(due), datetime.fromisoformat(ends))


def fault(instance: Instance) -> str:
    """Why a node that has joined cannot start, empty where it can."""
    needed = (
        instance.data_dir / "kubelet.conf",
        instance.data_dir / "proxy.conf",
        instance.pki / "ca.crt",
        server_file(instance),
    )
    try:
        ends = noted(instance).ends
    except (OSError, ValueError):
        ends = None
    if ends is None or not all(path.exists() for path in needed):
        return (
            f"{instance.data_dir} has not joined {instance.joined} to the end: `wherry join` does"
        )
    if ends <= datetime.now(UTC):
        return (
            f"the certificates of this node ended at {ends:%Y-%m-%d %H:%M} UTC, as it did not run "
            "when they were to be renewed: `wherry join` with a new token gets others"
        )
    return ""


async def keep(instance: Instance) -> None:
    """Wait until the certificates are due, renew them, and return.

    Whoever uses them begins anew then: connections know who they are from their beginning.
    """
    backoff = Backoff(10, 3600)
    until = noted(instance).due
    await asyncio.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()))
    while True:
        try:
            await renew(instance)
        except (NotSigned, StatusError, OSError) as error:  # a full disk, too
            log.error("the node's certificates were not renewed: %s", error)
            await asyncio.sleep(backoff.next())
        else:
            return


async def renew(instance: Instance) -> None:
    """Ask for all three anew, as the node that we are. Raises as ``obtain``."""
    authority = Path(instance.pki / "ca.crt").read_bytes()
    transport = from_kubeconfig(instance.data_dir / "kubelet.conf")
    try:
        client = Client(transport)
        own = await get_client(instance, client, authority)
        await get_others(instance, client, authority, own)
    finally:
        await transport.close()
