"""The Docker Engine API on TCP: who may come in is decided by an authority of its own.

Whoever may speak to a container engine is root on its machine. The cluster's authority signs for
users who are less than that, so it has no say here.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from wherry.engine.api.listeners import TLSAddress
from wherry.host.files import make_private, write_atomic
from wherry.launcher.instance import Instance, InstanceError

DEFAULT_PORT = 2376  # IANA: docker-s
OFF = "off"


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the keys of an instance's TCP address lie. ``client`` is a DOCKER_CERT_PATH."""

    directory: Path
    client: Path


def normalise(text: str) -> str:
    """``[tcp://]HOST[:PORT]`` as it is kept with an instance; empty for ``off``.

    Raises:
        InstanceError: it is no address.
    """
    if text in ("", OFF):
        return ""
    match = re.fullmatch(r"(?:tcp://)?(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]*)(?::(\d{1,5}))?/?", text)
    port = int(match[2] or DEFAULT_PORT) if match else 0
    if match is None or not match[1] or not 0 < port < 65536:
        raise InstanceError(f"--docker-tcp: {text!r} is not HOST:PORT, such as 127.0.0.1:2376")
    return f"{match[1]}:{port}"


def split(address: str) -> tuple[str, int]:
    """Host and port of what ``normalise`` returned."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def keys(instance: Instance) -> Keys:
    """The places, whether there is something in them or not."""
    return Keys(instance.pki / "docker", instance.data_dir / "docker-client")


def address(instance: Instance) -> TLSAddress | None:
    """What the engine of ``instance`` serves besides its socket; None where it is off."""
    if not instance.docker_tcp:
        return None
    host, port = split(instance.docker_tcp)
    directory = keys(instance).directory
    return TLSAddress(
        host, port, directory / "ca.crt", directory / "server.crt", directory / "server.key"
    )


def client_host(instance: Instance) -> str:
    """DOCKER_HOST for clients on this machine.

    Raises:
        InstanceError: the instance serves no TCP.
    """
    if not instance.docker_tcp:
        raise InstanceError(
            "the Docker API is not served on TCP; `wherry up --docker-tcp HOST:PORT` turns it on"
        )
    host, port = split(instance.docker_tcp)
    if host == "0.0.0.0":
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def ensure(instance: Instance) -> None:
    """Make the keys that the address needs and that are not there, or are for other names."""
    if not instance.docker_tcp:
        return
    from wherry.launcher.pki import Authority, names_of

    places = keys(instance)
    make_private(places.directory)
    authority = Authority(places.directory, "docker")
    names = {"localhost", instance.node_name}
    addresses = {"127.0.0.1", "::1", *instance.node_ips}
    host, _ = split(instance.docker_tcp)
    try:
        addresses.add(str(ipaddress.ip_address(host)))
    except ValueError:
        names.add(host)
    server = places.directory / "server.crt"
    if not server.exists() or not names | addresses <= names_of(server.read_bytes()):
        authority.issue_server("server", "docker", names=sorted(names), addresses=sorted(addresses))
    if not (places.client / "cert.pem").exists():
        make_private(places.client)
        certificate, key = authority.client("docker-client", "")
        write_atomic(places.client / "ca.pem", authority.certificate_pem)
        write_atomic(places.client / "key.pem", key)
        write_atomic(places.client / "cert.pem", certificate)
