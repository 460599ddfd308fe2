"""``--link`` on the default bridge: a container's own names for others, and what they bring.

A link gives the container that has it a line in ``/etc/hosts``, environment variables that tell of
the other's ports, and a second name of the other: ``/web/db``. On user-defined networks links are
names of the embedded name server alone, and are kept with the endpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from wherry.engine.container.container import Container, Link
from wherry.engine.container.hosts_file import Record
from wherry.engine.container.namespaces import network_owner
from wherry.engine.container.store import ContainerStore
from wherry.engine.errors import BadParameter, Conflict, EngineError, NotFound
from wherry.engine.network.network import is_user_defined
from wherry.engine.network.ports import parse_port

DEFAULT_NETWORK = "bridge"
CONFLICT = "can't be used with links. This would result in undefined behavior"
# The variables that every container has, and a link does not pass on.
_OWN_VARIABLES = ("HOME", "PATH")


def parse(text: str) -> tuple[str, str]:
    """The container and its alias in ``name``, ``name:alias``, or as inspect shows a link.

    Raises:
        BadParameter: it is none of these.
    """
    if not text:
        raise BadParameter("empty string specified for links")
    name, colon, alias = text.partition(":")
    if ":" in alias:
        raise BadParameter(f"bad format for links: {text}")
    if colon and name.startswith("/"):
        return name[1:], alias.rpartition("/")[2]
    return name, alias if colon else name


def resolve(texts: Sequence[str], store: ContainerStore) -> list[Link]:
    """The links that a create request asks for; of two with the same alias the first.

    Raises:
        BadParameter: there is no such container, or it shares the host's network.
    """
    found: dict[str, Link] = {}
    for text in texts:
        name, alias = parse(text)
        try:
            child = network_owner(store.get(name), store)
        except NotFound as error:
            raise BadParameter(f"could not get container for {name}: {error.message}") from None
        if child.network_mode == "host":
            raise BadParameter(f"conflicting options: host type networking {CONFLICT}")
        found.setdefault(alias, Link(alias, child.id, child.name))
    return list(found.values())


def of_old(network_mode: str) -> bool:
    """Whether links of a container of this mode are those of the default bridge."""
    return not is_user_defined(network_mode)


# ---- looking


def child_name(link: Link, store: ContainerStore) -> str:
    """What the linked container is called today, or was called when it was removed."""
    child = store.find_by_id(link.id)
    return child.name if child else link.name


def shown(container: Container, store: ContainerStore) -> list[str] | None:
    """``HostConfig.Links`` as inspect shows them."""
    return [
        f"/{child_name(link, store)}:/{container.name}/{link.alias}" for link in container.links
    ] or None


def names_by_child(store: ContainerStore) -> dict[str, list[str]]:
    """The names that links give, by the id of who is linked: ``/web/db``."""
    found: dict[str, list[str]] = {}
    for container in store.all():
        for link in container.links:
            found.setdefault(link.id, []).append(f"/{container.name}/{link.alias}")
    return found


def linking_to(container: Container, store: ContainerStore) -> Iterator[tuple[Container, Link]]:
    """Who has a link to ``container``."""
    for other in store.all():
        for link in other.links:
            if link.id == container.id:
                yield other, link


# ---- starting


def linked(
    container: Container, store: ContainerStore, *, strict: bool = True
) -> list[tuple[Link, Container]]:
    """The containers that ``container`` is linked to.

    Raises:
        EngineError: with ``strict``, one of them does not run, or is not on the default bridge;
            without, it is left out.
    """
    if DEFAULT_NETWORK not in container.endpoints:
        return []
    found = []
    for link in container.links:
        child = store.find_by_id(link.id)
        ready = child is not None and child.state.running and not child.state.restarting
        if child is None or not ready:
            if not strict:
                continue
            raise EngineError(
                f"Cannot link to a non running container: /{child_name(link, store)} "
                f"AS /{container.name}/{link.alias}"
            )
        if DEFAULT_NETWORK not in child.endpoints:
            if not strict:
                continue
            raise EngineError(
                f"Cannot link to /{child.name}, as it does not belong to the default network"
            )
        found.append((link, child))
    return found


def records(children: Sequence[tuple[Link, Container]]) -> list[Record]:
    """The lines of ``/etc/hosts``: by alias, host name and name."""
    lines = []
    for link, child in children:
        names = dict.fromkeys((link.alias, child.config["Hostname"]))
        if link.alias != child.name:
            names[child.name] = None
        lines += [
            Record(address, " ".join(names))
            for address in child.endpoints[DEFAULT_NETWORK].addresses
        ]
    return lines


def environment(container: Container, children: Sequence[tuple[Link, Container]]) -> list[str]:
    """The variables that tell ``container`` of those it is linked to."""
    variables = []
    for link, child in children:
        variables += _variables(
            f"/{container.name}/{link.alias}",
            child.endpoints[DEFAULT_NETWORK].address,
            child.config.get("ExposedPorts") or {},
            child.config["Env"] or [],
        )
    return variables


def _variables(
    name: str, address: str, exposed: Mapping[str, object], environment: Sequence[str]
) -> list[str]:
    prefix = name.rpartition("/")[2].upper().replace("-", "_")
    ports = sorted((parse_port(port) for port in exposed), key=lambda p: (p[0], p[1] != "tcp"))
    variables = {}

    def url(port: tuple[int, str]) -> str:
        return f"{port[1]}://{address}:{port[0]}"

    for first, last in _ranges(ports):
        start = f"{prefix}_PORT_{first[0]}_{first[1].upper()}"
        end = f"{prefix}_PORT_{first[0]}_{last[1].upper()}"
        variables[f"{start}_START"] = url(first)
        variables[f"{start}_ADDR"] = address
        variables[f"{start}_PROTO"] = first[1]
        variables[f"{start}_PORT_START"] = str(first[0])
        variables[f"{end}_END"] = url(last)
        variables[f"{end}_PORT_END"] = str(last[0])
    if ports:
        variables[f"{prefix}_PORT"] = url(ports[0])
    for port in ports:
        one = f"{prefix}_PORT_{port[0]}_{port[1].upper()}"
        variables[one] = url(port)
        variables[f"{one}_ADDR"] = address
        variables[f"{one}_PORT"] = str(port[0])
        variables[f"{one}_PROTO"] = port[1]
    variables[f"{prefix}_NAME"] = name
    for variable in environment:
        key, equals, value = variable.partition("=")
        if equals and key not in _OWN_VARIABLES:
            variables[f"{prefix}_ENV_{key}"] = value
    return [f"{key}={value}" for key, value in variables.items()]


def _ranges(ports: Sequence[tuple[int, str]]) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
    """The first and the last of three or more ports whose numbers follow each other."""
    start = 0
    for end in range(1, len(ports) + 1):
        if end < len(ports) and ports[end][0] <= ports[end - 1][0] + 1:
            continue
        if end - start > 2:
            yield ports[start], ports[end - 1]
        start = end


# ---- removing


def remove(reference: str, store: ContainerStore) -> Container:
    """Take the link called ``web/db`` from its container, which is returned to be saved.

    Raises:
        Conflict: it is a container's own name.
        NotFound: there is no such link.
    """
    parent_name, slash, alias = reference.strip("/").rpartition("/")
    if not slash:
        store.get(reference)
        raise Conflict("Conflict, cannot remove the default link name of the container")
    parent = store.find_by_name(parent_name)
    left = [link for link in parent.links if link.alias != alias] if parent else []
    if parent is None or len(left) == len(parent.links):
        raise NotFound(f"No such container: {reference}")
    parent.links = left
    return parent
