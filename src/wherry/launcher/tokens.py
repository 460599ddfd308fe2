"""``wherry token``: who may become a node, and what a new node must know.

The first token opens the door: what lets a machine with a token in (roles, bindings, the public
``cluster-info``) is made with it, as kubeadm makes it. Before, nothing of it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from wherry.kube.api import bootstrap, meta
from wherry.kube.api.bootstrap import BadToken
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    Resource,
)
from wherry.kube.client.client import APPLY_PATCH, Client
from wherry.kube.client.https import KubeconfigError, from_kubeconfig
from wherry.kube.client.transport import Object
from wherry.launcher import proxy_mode
from wherry.launcher.instance import Instance

CONFIG_NAME, CONFIG_NAMESPACE = "wherry-config", "kube-system"
POD_RANGE, SERVICE_RANGE, DOMAIN = "podSubnet", "serviceSubnet", "dnsDomain"
POD_NETWORK = "podNetwork"
PROXY_MODE = "proxyMode"
_RBAC = "rbac.authorization.k8s.io"
_CSR = "certificates.k8s.io"
_NODES = "system:nodes"
_T = TypeVar("_T")


class TokenFailed(Exception):
    """The token was not made, shown or deleted; the text says why."""


def create(
    instance: Instance,
    token: str = "",
    *,
    seconds: float = 86400.0,
    usages: Sequence[str] = bootstrap.USAGES,
    groups: Sequence[str] = (bootstrap.GROUP,),
    description: str = "",
) -> str:
    """Make a token, one of chance where none is given; good for ``seconds``, for ever with 0.

    Raises:
        TokenFailed: it is not made.
    """
    expires = datetime.now(UTC) + timedelta(seconds=seconds) if seconds else None
    token = token or bootstrap.new_token()
    if ipaddress.ip_address(instance.node_ip).is_loopback:
        raise TokenFailed(
            f"the API server is known as {instance.node_ip}, which no other machine reaches: "
            "`wherry down`, then `wherry up --advertise-address ADDRESS`"
        )
    try:
        body = bootstrap.secret(
            token, expires=expires, usages=usages, groups=groups, description=description
        )
    except BadToken as error:
        raise TokenFailed(str(error)) from None

    async def make(client: Client) -> None:
        await asyncio.gather(*(_apply(client, r, o) for r, o in access(instance)))
        await _open(client, instance)
        try:
            await client.create(SECRETS, body)
        except StatusError as error:
            if error.reason == "AlreadyExists":
                identity = bootstrap.split(token)[0]
                raise TokenFailed(f'a token with id "{identity}" already exists') from None
            raise
        if "signing" in usages:
            await _signed(client, bootstrap.split(token)[0], min(seconds or 10.0, 10.0))

    _run(instance, make)
    return token


def join_command(instance: Instance, token: str) -> str:
    """What to run on the machine that is to become a node."""
    host = instance.advertised_url.removeprefix("https://")
    pin = authority_pin((instance.pki / "ca.crt").read_bytes())
    return f"wherry join {host} --token {token} --discovery-token-ca-cert-hash {pin}"


def authority_pin(pem: bytes) -> str:
    """How an authority's certificate is pinned. Raises ValueError."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    key = x509.load_pem_x509_certificate(pem).public_key()
    return bootstrap.pin(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def listed(instance: Instance) -> tuple[list[tuple[str, ...]], list[str]]:
    """The tokens that there are: token, time left, end, usages, description, groups; and what is
    said of Secrets that claim to be tokens and are none.

    Raises:
        TokenFailed: the server does not tell.
    """

    async def find(client: Client) -> list[Object]:
        found = await client.list(
            SECRETS,
            bootstrap.NAMESPACE,
            field_selector=f"type={bootstrap.TYPE}",
        )
        return list(found["items"])

    now = datetime.now(UTC)
    rows, faults = [], []
    for secret in _run(instance, find):
        try:
            rows.append(row(secret, now))
        except BadToken as error:
            faults.append(f"secret {meta.name(secret)}: {error}")
    return rows, faults


def row(secret: Object, now: datetime) -> tuple[str, ...]:
    """What `listed` shows of one token. Raises BadToken where it is none."""
    identity, kept = (bootstrap.field(secret, name) for name in ("token-id", "token-secret"))
    bootstrap.split(f"{identity}.{kept}")
    if meta.name(secret) != bootstrap.PREFIX + identity:
        raise BadToken(f'bootstrap token name is not of the form "{bootstrap.PREFIX}{identity}"')
    ends = bootstrap.expiry(secret)
    usages = [u for u in reversed(bootstrap.USAGES) if _has(secret, u)]
    return (
        f"{identity}.{kept}",
        "<forever>" if ends is None else _left(ends - now),
        "<never>" if ends is None else ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
        ",".join(usages) or "<none>",
        bootstrap.field(secret, "description") or "<none>",
        bootstrap.field(secret, "auth-extra-groups") or "<none>",
    )


def _has(secret: Object, usage: str) -> bool:
    return bootstrap.field(secret, f"usage-bootstrap-{usage}") == "true"


def _left(left: timedelta) -> str:
    """In one unit (k8s.io/apimachinery/pkg/util/duration, ShortHumanDuration)."""
    seconds = int(left.total_seconds())
    if seconds < -1:
        return "<invalid>"
    units = (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("m", 60))
    whole = next((f"{seconds // size}{unit}" for unit, size in units if seconds >= size), "")
    return whole or f"{max(seconds, 0)}s"


def delete(instance: Instance, text: str) -> str:
    """Delete the token that ``text`` or its beginning, the id, names; returns the id.

    Raises:
        TokenFailed: there is none.
    """
    try:
        identity = bootstrap.token_id(text)
    except BadToken as error:
        raise TokenFailed(str(error)) from None

    async def remove(client: Client) -> None:
        name = bootstrap.PREFIX + identity
        try:
            await client.delete(SECRETS, name, bootstrap.NAMESPACE)
        except StatusError as error:
            if error.code == 404:
                raise TokenFailed(f'there is no bootstrap token "{identity}"') from None
            raise

    _run(instance, remove)
    return identity


def _run(instance: Instance, work: Callable[[Client], Coroutine[Any, Any, _T]]) -> _T:
    async def connected() -> _T:
        transport = from_kubeconfig(instance.kubeconfig)
        try:
            return await work(Client(transport, manager="wherry"))
        finally:
            await transport.close()

    if instance.joined:
        raise TokenFailed(f"tokens are made where the cluster's server is: {instance.joined}")
    try:
        return asyncio.run(connected())
    except (StatusError, KubeconfigError) as error:
        raise TokenFailed(str(error)) from error
    except ConnectionError as error:
        raise TokenFailed(f"the server does not answer; `wherry up` starts it ({error})") from error


# ---- what lets nodes in


async def _apply(client: Client, resource: Resource, o: Object) -> None:
    await client.patch(
        resource,
        meta.name(o),
        o,
        o["metadata"].get("namespace"),
        content_type=APPLY_PATCH,
        force=True,
    )


async def _open(client: Client, instance: Instance) -> None:
    """Publish ``cluster-info``; the signatures in it are its controller's."""
    authority = (instance.pki / "ca.crt").read_text()
    info = bootstrap.cluster_info(instance.advertised_url, authority)
    await _apply(client, CONFIG_MAPS, info)


async def _signed(client: Client, identity: str, patience: float) -> None:
    """Return when the token has signed ``cluster-info``, or when nobody has seen to that for
    ``patience`` seconds."""
    watch = client.watch(
        CONFIG_MAPS,
        bootstrap.INFO_NAMESPACE,
        field_selector=f"metadata.name={bootstrap.INFO_NAME}",
    )
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            async for _, info in watch:
                if bootstrap.SIGNATURE_PREFIX + identity in (info.get("data") or {}):
                    return


def access(instance: Instance) -> list[tuple[Resource, Object]]:
    """What must be there for nodes to join, as kubeadm has it; the names beginning with
    ``wherry`` are ours: nodes also run the proxy, and their servers' certificates are signed."""
    bootstrappers = (bootstrap.GROUP,)
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_NAME, "namespace": CONFIG_NAMESPACE},
        "data": {
            POD_RANGE: instance.cluster_range,
            SERVICE_RANGE: instance.service_range,
            DOMAIN: instance.cluster_domain,
            POD_NETWORK: instance.pod_network,
            PROXY_MODE: proxy_mode.of(instance),
        },
    }
    approving = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client"]
    account = {"kind": "ServiceAccount", "name": "certificate-controller"}
    return [
        _bind("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", bootstrappers),
        _bind(
            "kubeadm:node-autoapprove-bootstrap",
            f"system:{_CSR}:certificatesigningrequests:nodeclient",
            bootstrappers,
        ),
        _bind(
            "kubeadm:node-autoapprove-certificate-rotation",
            f"system:{_CSR}:certificatesigningrequests:selfnodeclient",
            (_NODES,),
        ),
        _role("kubeadm:get-nodes", [_rule("", ["nodes"], ["get"])]),
        _bind("kubeadm:get-nodes", "kubeadm:get-nodes", bootstrappers),
        _role(
            "kubeadm:bootstrap-signer-clusterinfo",
            [_rule("", ["configmaps"], ["get"], [bootstrap.INFO_NAME])],
            bootstrap.INFO_NAMESPACE,
        ),
        _bind(
            "kubeadm:bootstrap-signer-clusterinfo",
            "kubeadm:bootstrap-signer-clusterinfo",
            namespace=bootstrap.INFO_NAMESPACE,
            subjects=[{"apiGroup": _RBAC, "kind": "User", "name": "system:anonymous"}],
        ),
        (CONFIG_MAPS, config),
        _role(
            "wherry:node-config",
            [_rule("", ["configmaps"], ["get"], [CONFIG_NAME])],
            CONFIG_NAMESPACE,
        ),
        _bind(
            "wherry:node-config",
            "wherry:node-config",
            (*bootstrappers, _NODES),
            namespace=CONFIG_NAMESPACE,
        ),
        _role(
            "wherry:node-certificates",
            [
                _rule(
                    _CSR,
                    [
                        "certificatesigningrequests/selfnodeserver",
                        "certificatesigningrequests/proxyclient",
                    ],
                    ["create"],
                )
            ],
        ),
        _bind("wherry:node-certificates", "wherry:node-certificates", (_NODES,)),
        _role(
            "wherry:node-certificate-approver",
            [_rule(_CSR, ["signers"], ["approve"], approving)],
        ),
        _bind(
            "wherry:node-certificate-approver",
            "wherry:node-certificate-approver",
            subjects=[{**account, "namespace": "kube-system"}],
        ),
    ]


def _rule(
    group: str, resources: list[str], verbs: list[str], names: list[str] | None = None
) -> Object:
    rule: Object = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return {**rule, "resourceNames": names} if names else rule


def _role(name: str, rules: list[Object], namespace: str = "") -> tuple[Resource, Object]:
    kind = "Role" if namespace else "ClusterRole"
    body = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "rules": rules,
    }
    return (ROLES if namespace else CLUSTER_ROLES), body


def _bind(
    name: str,
    role: str,
    groups: Sequence[str] = (),
    *,
    namespace: str = "",
    subjects: Sequence[Object] = (),
) -> tuple[Resource, Object]:
    kind = "Role" if namespace else "ClusterRole"
    body = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": role},
        "subjects": [
            *({"apiGroup": _RBAC, "kind": "Group", "name": group} for group in groups),
            *subjects,
        ],
    }
    return (ROLE_BINDINGS if namespace else CLUSTER_ROLE_BINDINGS), body
