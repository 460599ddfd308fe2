"""``wherry join``: this machine becomes a node of a cluster that it knows nothing of but a token.

First it learns whom to trust: ``cluster-info`` is read from whoever answers, and believed when the
token has signed it and the authority in it is the pinned one. Then it asks to be let in: with the
token for a certificate as the node, as the node for all else. What it is told lies in the data
directory from then on; the token is not kept.

https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-join/
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wherry.host.files import write_atomic
from wherry.host.pidfile import AlreadyRunning, PidFile
from wherry.kube.api import bootstrap, meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import CONFIG_MAPS, NODES
from wherry.kube.client.client import MERGE_PATCH, Client
from wherry.kube.client.https import HTTPSTransport, from_kubeconfig
from wherry.kube.client.transport import Object
from wherry.launcher import credentials, instance, node, proxy_mode, supervise, tokens
from wherry.launcher.credentials import NotSigned
from wherry.launcher.instance import Cluster, Instance
from wherry.launcher.supervise import StartFailed

DEFAULT_PORT = 6443


class JoinFailed(Exception):
    """This machine is no node of the cluster; the text says why."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What is known of the cluster before it is asked anything.

    ``pins`` are hashes of its authority; without any, whoever has the token is believed.
    """

    host: str
    port: int
    token: str
    pins: Sequence[str] = ()


_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[a-zA-Z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?"
    r"|(?P<bare>[0-9a-fA-F:.]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)"
)


def introduction(endpoint: str, token: str, pins: Sequence[str], *, unpinned: bool) -> Introduction:
    """What was said on the command line.

    Raises:
        JoinFailed: it is wrong.
    """
    try:
        bootstrap.split(token)
    except bootstrap.BadToken as error:
        raise JoinFailed(str(error)) from None
    host, port = _endpoint(endpoint)
    if not pins and not unpinned:
        raise JoinFailed(
            "--discovery-token-ca-cert-hash is missing: with a token alone the cluster could be "
            "anybody's; --discovery-token-unsafe-skip-ca-verification believes it nevertheless"
        )
    for pin in pins:
        kind, _, value = pin.partition(":")
        if kind != "sha256" or len(value) != 64:
            raise JoinFailed(f'invalid hash "{pin}": want sha256: and 64 hexadecimal digits')
    return Introduction(host, port, token, tuple(pin.lower() for pin in pins))


def _endpoint(text: str) -> tuple[str, int]:
    """HOST[:PORT], [IPv6]:PORT, or a URL of that; raises JoinFailed."""
    rest = text.removeprefix("https://").removesuffix("/")
    found = _HOST_AND_PORT.fullmatch(rest)
    if found is not None and _is_ipv6(found["six"] or found["bare"] or "::"):
        host = found["six"] or found["bare"] or found["name"]
        port = int(found["port"] or DEFAULT_PORT)
        if 0 < port < 1 << 16:
            return host, port
    raise JoinFailed(f"{text}: want HOST:PORT of the API server")


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def join(
    data_dir: Path,
    known: Introduction,
    *,
    node_name: str | None = None,
    node_ip: str | None = None,
    chosen: Mapping[str, str] | None = None,
) -> tuple[Instance, supervise.Begun]:
    """Make ``data_dir`` a node of the cluster and start it; returns it and how it started.

    ``chosen`` are further fields of the instance, such as ``kubelet_config``; empty ones stay.

    Raises:
        JoinFailed, InstanceError: it is none.
        StartFailed: it is one, but does not run.
    """
    present = instance.find(data_dir)
    if present is not None:
        if not present.joined:
            raise JoinFailed(
                f"{data_dir} is an instance with a cluster of its own; give another directory"
            )
        if any(state.pid is not None for state in supervise.states(present)):
            raise JoinFailed(
                f"{data_dir} runs as a node of {present.joined} already; `wherry down` stops it"
            )
    try:
        return asyncio.run(_join(data_dir, known, present, node_name, node_ip, chosen or {}))
    except NotSigned as error:
        raise JoinFailed(str(error)) from error
    except StatusError as error:
        raise JoinFailed(f"the cluster does not let this machine in: {error}") from error
    except ConnectionError as error:
        raise JoinFailed(f"the API server cannot be reached: {error}") from error


async def _join(
    data_dir: Path,
    known: Introduction,
    present: Instance | None,
    node_name: str | None,
    node_ip: str | None,
    chosen: Mapping[str, str],
) -> tuple[Instance, supervise.Begun]:
    server, authority = await _discover(known)
    if present is not None and present.joined != server:
        raise JoinFailed(
            f"{data_dir} is a node of {present.joined}; `wherry down --purge` ends that"
        )
    transport = HTTPSTransport(
        server, context=ssl.create_default_context(cadata=authority), token=known.token
    )
    try:
        client = Client(transport)
        cluster = await _cluster(client, server)
        if present is not None and not _is_of(present, cluster):
            raise JoinFailed(
                f"{data_dir} is a node of a cluster with other ranges, which was at {server} "
                "before; `wherry down --purge` ends that"
            )
        _check_proxy_mode(chosen.get("proxy_mode", ""), present, cluster)
        name = node_name or (present.node_name if present else socket.gethostname().lower())
        is_new = await _is_new(client, name, present)
        one = instance.open_or_create(
            data_dir,
            node_name=name,
            node_ip=node_ip or _address_towards(known),
            joined=cluster,
        )
        lock = _locked(one)
        try:
            fields: dict[str, Any] = {key: value for key, value in chosen.items() if value}
            if node_ip:
                fields[instance.address_field(one, node_ip)] = node_ip
            one = replace(one, node_name=name, pod_network=cluster.pod_network, **fields)
            instance.save(one)
            write_atomic(one.pki / "ca.crt", authority.encode(), mode=0o644)
            own = await credentials.get_client(one, client, authority.encode())
            await _as_node(one, authority.encode(), own, is_new)
        except BaseException:
            if present is None:
                instance.forget(one)
            raise
        else:
            return one, await supervise.start(one)
        finally:
            lock.release()
    finally:
        await transport.close()


def _locked(one: Instance) -> PidFile:
    try:
        return PidFile(one.run_dir / "up.pid")
    except AlreadyRunning as error:
        raise JoinFailed(f"another `wherry` works on {one.data_dir} (pid {error.pid})") from None


async def _as_node(one: Instance, authority: bytes, own: bytes, is_new: bool) -> None:
    """With the certificate of the node: be known to the cluster, and ask for what is missing."""
    transport = from_kubeconfig(one.kubeconfig)
    try:
        client = Client(transport)
        await _register(client, one, is_new)
        await credentials.get_others(one, client, authority, own)
    finally:
        await transport.close()


async def _register(client: Client, one: Instance, is_new: bool) -> None:
    """The Node with its addresses, for which its server's certificate is signed.

    Raises:
        JoinFailed: it was to be new, and another machine has just joined under its name.
    """
    body = node.registration(one)
    try:
        await client.create(NODES, body)
    except StatusError as error:
        if error.reason != "AlreadyExists":
            raise
        if is_new:
            raise JoinFailed(_NAMESAKE.format(one.node_name, "")) from None
        await client.patch(
            NODES,
            one.node_name,
            {"status": {"addresses": body["status"]["addresses"]}},
            content_type=MERGE_PATCH,
            subresource="status",
        )


_JOINING_SECONDS = 60.0
_NAMESAKE = (
    'a Node with name "{}"{} already exists in the cluster. You must delete the existing Node or '
    "change the name of this new joining Node (--node-name)"
)


async def _is_new(client: Client, name: str, present: Instance | None) -> bool:
    """Whether the cluster has no node of that name.

    Raises:
        JoinFailed: another machine is that node: one that runs or is just joining, and is not the
            one that this machine has been all the time.
    """
    try:
        found = await client.get(NODES, name)
    except StatusError as error:
        if error.code == 404:
            return True
        raise
    status = found.get("status") or {}
    if present is not None and present.node_name == name:
        known = {address["address"] for address in status.get("addresses") or ()}
        if present.node_ip in known:
            return False
    ready = [c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"]
    if ready == ["True"]:
        raise JoinFailed(_NAMESAKE.format(name, ' and status "Ready"'))
    if ready == ["False"] or (not ready and _is_young(found)):
        raise JoinFailed(_NAMESAKE.format(name, ""))
    return False


def _is_young(node: Object) -> bool:
    """Whether it was made so lately that its kubelet may still be about to start."""
    made = meta.parse_time(node["metadata"]["creationTimestamp"])
    return (datetime.now(UTC) - made).total_seconds() < _JOINING_SECONDS


def _check_proxy_mode(chosen: str, present: Instance | None, cluster: Cluster) -> None:
    kept = cluster.proxy_mode if present is None else proxy_mode.of(present)
    try:
        proxy_mode.check(chosen or kept)
    except ValueError as error:
        whose = "" if chosen or present else ", as the cluster has it; --proxy-mode says another"
        raise JoinFailed(f"{error}{whose}") from None


def _is_of(present: Instance, cluster: Cluster) -> bool:
    """Whether that cluster is still the one that the instance has joined."""
    kept = (present.pod_range, present.services, present.cluster_domain)
    return kept == (cluster.pod_range, cluster.services, cluster.domain)


async def _cluster(client: Client, server: str) -> Cluster:
    try:
        found = await client.get(CONFIG_MAPS, tokens.CONFIG_NAME, tokens.CONFIG_NAMESPACE)
    except StatusError as error:
        if error.code == 401:
            raise JoinFailed(
                "the API server does not accept the token: it may have expired, or is not for "
                "authentication; `wherry token create` makes another"
            ) from None
        raise
    data = found["data"]
    return Cluster(
        server,
        data[tokens.POD_RANGE],
        data[tokens.SERVICE_RANGE],
        data[tokens.DOMAIN],
        data[tokens.POD_NETWORK],
        proxy_mode.of_new_node(data.get(tokens.PROXY_MODE, "")),
    )


def _address_towards(known: Introduction) -> str:
    """The address of this machine by which it reaches the API server."""
    try:
        found = socket.getaddrinfo(known.host, known.port, type=socket.SOCK_DGRAM)
        family, kind, _, _, there = found[0]
        with socket.socket(family, kind) as probe:
            probe.connect(there)
            address: str = probe.getsockname()[0]
    except OSError as error:
        raise JoinFailed(f"{known.host} cannot be reached: {error.strerror or error}") from None
    if ipaddress.ip_address(address).is_loopback:
        raise JoinFailed(
            f"{known.host} is reached by {address}, at which the cluster cannot reach this node: "
            "give --node-ip"
        )
    return address


# ---- whom to trust


async def _discover(known: Introduction) -> tuple[str, str]:
    """The URL of the API server and its authority (PEM), both beyond doubt.

    Raises:
        JoinFailed: somebody is not who he should be.
    """
    told = verified(await _info(known, None), known)
    # Once more, this time from the one whose certificate that authority has signed.
    again = verified(await _info(known, told[1]), known)
    if again != told:
        raise JoinFailed("the cluster-info changed while it was read; try again")
    return told


async def _info(known: Introduction, authority: str | None) -> dict[str, str]:
    host = f"[{known.host}]" if ":" in known.host else known.host
    address = f"https://{host}:{known.port}"
    context = ssl.create_default_context(cadata=authority) if authority else None
    transport = HTTPSTransport(address, context=context, insecure=authority is None)
    try:
        found = await Client(transport).get(
            CONFIG_MAPS, bootstrap.INFO_NAME, bootstrap.INFO_NAMESPACE
        )
    except StatusError as error:
        if error.code in (401, 403, 404):
            raise JoinFailed(
                f"{address} tells nobody how to join ({error.message}); `wherry token create` "
                "there lets nodes in"
            ) from None
        raise
    except ConnectionError as error:
        if authority is None:
            raise
        raise JoinFailed(f"{address} is not the API server that cluster-info names: {error}") from (
            error
        )
    finally:
        await transport.close()
    return dict(found.get("data") or {})


def verified(info: dict[str, str], known: Introduction) -> tuple[str, str]:
    """The URL and the authority that ``info`` tells, if the token and a pin vouch for them.

    Raises:
        JoinFailed: they do not.
    """
    identity, kept = bootstrap.split(known.token)
    content = info.get(bootstrap.INFO_KUBECONFIG, "")
    signature = info.get(bootstrap.SIGNATURE_PREFIX + identity)
    if not signature:
        raise JoinFailed(
            "could not find a JWS signature in the cluster-info ConfigMap for token ID "
            f'"{identity}": there is no such token, or it has expired; `wherry token create` makes '
            "another"
        )
    if not bootstrap.verified(signature, content, identity, kept):
        raise JoinFailed(
            "failed to verify JWS signature of received cluster info object, can't trust this API "
            "Server: the token is not the cluster's"
        )
    try:
        cluster: Object = json.loads(content)["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        found = tokens.authority_pin(authority.encode())
        server = str(cluster["server"])
    except (ValueError, LookupError, TypeError) as error:
        raise JoinFailed(f"the cluster-info makes no sense: {error}") from error
    if known.pins and found not in known.pins:
        raise JoinFailed(
            "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys "
            f'"{found}" are pinned'
        )
    return server, authority


__all__ = ["JoinFailed", "StartFailed", "introduction", "join", "verified"]
