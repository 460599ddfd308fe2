"""The three files that tell a container who and where it is: hosts, hostname, resolv.conf.

They are rewritten at every start, in place: a running container has them mounted, and would not see
a new file under the old name. While it runs, ``hosts`` follows its networks line by line, and
``resolv.conf`` is left alone once somebody has changed it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from wherry.engine.container import hosts_file, resolv_conf
from wherry.engine.container.container import Container, Endpoint
from wherry.engine.container.hosts_file import Record
from wherry.host.resolv_conf import host_file, parse

_DIGEST = "resolv.conf.hash"


def write(
    container: Container,
    *,
    gateways: Sequence[str] = (),
    linked: Sequence[Record] = (),
    name_server: str = "",
    root: Path = Path("/"),
) -> None:
    """Write the three files of ``container``, whose addresses are known by now.

    ``gateways`` are the host's addresses, ``linked`` the lines that its links bring;
    ``name_server`` is our own where the container has one.
    """
    _write(container, "hosts", _hosts(container, gateways, linked, root))
    _write(container, "hostname", f"{container.config['Hostname']}\n")
    _write_resolv_conf(container, name_server, root)


def _write(container: Container, name: str, text: str) -> None:
    path = container.file(name)
    path.write_text(text)
    path.chmod(0o644)


# ---- hosts


def _hosts(
    container: Container, gateways: Sequence[str], linked: Sequence[Record], root: Path
) -> str:
    wanted = container.host_config["ExtraHosts"] or ()
    if container.network_mode == "host" and not wanted:
        try:
            return (root / "etc/hosts").read_text(errors="surrogateescape")
        except FileNotFoundError:
            return ""
    records = [*hosts_file.added_hosts(wanted, gateways), *linked]
    for endpoint in container.endpoints.values():
        records += own_records(container, endpoint)
    return hosts_file.build(records)


def own_records(container: Container, endpoint: Endpoint) -> list[Record]:
    """The lines for the container's own addresses on one network."""
    config = container.config
    names = hosts_file.own_names(config["Hostname"], config["Domainname"])
    return [Record(address, names) for address in endpoint.addresses if names]


def follow(container: Container, name_server: str, root: Path = Path("/")) -> None:
    """The places of the running ``container`` have changed; so do its own lines, and no other.

    With ``name_server`` it has one of ours, maybe only since now.
    """
    records = [r for e in container.endpoints.values() for r in own_records(container, e)]
    config = container.config
    names = hosts_file.own_names(config["Hostname"], config["Domainname"])
    _change_hosts(container, lambda text: hosts_file.replaced(text, names, records))
    if name_server and _resolv_conf_is_ours(container):
        _write_resolv_conf(container, name_server, root)


def linked_moved(container: Container, alias: str, addresses: Sequence[str]) -> None:
    """What the running ``container`` calls ``alias`` has these addresses now."""
    for address in addresses:
        _change_hosts(container, functools.partial(hosts_file.moved, name=alias, address=address))


def linked_gone(container: Container, alias: str) -> None:
    """The running ``container`` has no link ``alias`` any more."""
    _change_hosts(container, lambda text: hosts_file.without(text, alias))


def _change_hosts(container: Container, change: Callable[[str], str]) -> None:
    path = container.file("hosts")
    try:
        text = path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return
    changed = change(text)
    if changed != text:
        path.write_text(changed, errors="surrogateescape")


# ---- resolv.conf


def _write_resolv_conf(container: Container, name_server: str, root: Path) -> None:
    host = container.host_config
    shares_host = container.network_mode == "host"
    direct = not shares_host and not name_server
    text = host_file(root, direct=direct)
    if shares_host and not resolv_conf.has_choices(host):
        _write(container, "resolv.conf", text)
        return
    wanted = resolv_conf.with_choices(parse(text), host)
    if name_server:
        wanted = resolv_conf.served(wanted, name_server)
    elif not shares_host:
        wanted = resolv_conf.reachable(wanted, ipv6=_has_ipv6(container))
    _write(container, "resolv.conf", str(wanted))
    (container.home / _DIGEST).write_text(_digest(container))


def _resolv_conf_is_ours(container: Container) -> bool:
    try:
        return (container.home / _DIGEST).read_text() == _digest(container)
    except FileNotFoundError:
        return False


def _digest(container: Container) -> str:
    return hashlib.sha256(container.file("resolv.conf").read_bytes()).hexdigest()


def _has_ipv6(container: Container) -> bool:
    return any(endpoint.address6 for endpoint in container.endpoints.values())
