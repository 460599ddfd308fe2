"""The three files that tell a container who and where it is: hosts, hostname, resolv.conf."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path

from wherry.engine.container.container import Container

# Docker falls back to these where the host has only name servers of its own.
FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")

_LOCALHOST = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def write(container: Container, gateway: str, etc: Path = Path("/etc")) -> None:
    """Write the three files of ``container``, whose addresses are known by now.

    ``gateway`` is where containers reach the host. They are rewritten in place: a running
    container has them mounted, and would not see a new file under the old name.
    """
    config, host = container.config, container.host_config
    extra = extra_hosts(host["ExtraHosts"] or (), gateway)
    shares_host = container.network_mode == "host"
    if shares_host:
        table = _text(etc / "hosts") + "".join(f"{a}\t{name}\n" for name, a in extra)
    else:
        addresses = [a for e in container.endpoints.values() for a in e.addresses]
        table = hosts(addresses, config["Hostname"], config["Domainname"], extra)
    resolver = resolv_conf(
        _text(etc / "resolv.conf"),
        servers=host["Dns"],
        search=host["DnsSearch"],
        options=host["DnsOptions"],
        keep_loopback=shares_host,
    )
    for name, text in (
        ("hosts", table),
        ("hostname", hostname(config["Hostname"], config["Domainname"])),
        ("resolv.conf", resolver),
    ):
        path = container.file(name)
        path.write_text(text)
        path.chmod(0o644)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def hosts(
    addresses: Sequence[str], hostname: str, domainname: str, extra: Sequence[tuple[str, str]]
) -> str:
    """``/etc/hosts`` of a container with ``addresses``; ``extra`` are pairs of name and address."""
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines = [f"{address}\t{name}\n" for name, address in extra]
    lines += [f"{address}\t{names}\n" for address in addresses if names]
    return _LOCALHOST + "".join(lines)


def extra_hosts(specifications: Sequence[str], gateway: str) -> list[tuple[str, str]]:
    """``--add-host`` values, ``name:address`` or ``name=address``; ``host-gateway`` is the host."""
    pairs = []
    for text in specifications:
        separator = "=" if "=" in text else ":"
        name, _, address = text.partition(separator)
        if address == "host-gateway":
            address = gateway
        if address:
            pairs.append((name, address.strip("[]")))
    return pairs


def hostname(host: str, domainname: str) -> str:
    """``/etc/hostname``."""
    return f"{host}.{domainname}\n" if domainname else f"{host}\n"


def resolv_conf(
    host_file: str,
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    keep_loopback: bool = False,
) -> str:
    """``/etc/resolv.conf``: the host's, with what the user chose in its place.

    A name server on the host's loopback is out of a container's reach and left out, unless the
    container shares the host's network (``keep_loopback``).
    """
    found = _parse(host_file)
    chosen = list(servers) or [
        server for server in found["nameserver"] if keep_loopback or not _is_loopback(server)
    ]
    if not chosen and not keep_loopback:
        chosen = list(FALLBACK_SERVERS)
    searched = list(search) or found["search"]
    if searched == ["."]:
        searched = []
    set_options = list(options) or found["options"]
    lines = [f"nameserver {server}\n" for server in chosen]
    if searched:
        lines.append(f"search {' '.join(searched)}\n")
    if set_options:
        lines.append(f"options {' '.join(set_options)}\n")
    return "".join(lines)


def _parse(text: str) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", ";")):
            continue
        match words[0]:
            case "nameserver":
                found["nameserver"] += words[1:2]
            case "search" | "domain":
                found["search"] = words[1:]
            case "options":
                found["options"] += words[1:]
    return found


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False
