"""Which containers ``docker ps -f`` and ``docker container prune --filter`` mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from wherry.engine.container.container import Container
from wherry.engine.container.units import moment
from wherry.engine.errors import BadParameter, EngineError, NotFound
from wherry.engine.filters import Filters
from wherry.engine.network.ports import parse_port

LIST_KEYS = frozenset(
    (
        *("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation"),
        *("label", "name", "network", "publish", "since", "status", "volume"),
    )
)
PRUNE_KEYS = frozenset(("label", "label!", "until"))
_STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTHS = ("starting", "healthy", "unhealthy", "none")


def select(
    containers: Sequence[Container],
    filters: Filters,
    *,
    all_: bool,
    limit: int,
    find: Callable[[str], Container],
    image_ids: Callable[[str], set[str]],
) -> list[Container]:
    """Those of ``containers`` (newest first) that are wanted, in that order.

    ``find`` resolves ids and names, ``image_ids`` the images of ``ancestor`` (an image and what
    was made from it).

    Raises:
        BadParameter: a filter has no such key or value.
        NotFound: ``before`` or ``since`` name no container.
    """
    _check(filters)
    everything = all_ or limit > 0 or "status" in filters
    before = [_bound(text, find).created_at for text in filters.get("before")]
    since = [_bound(text, find).created_at for text in filters.get("since")]
    ids = _ids(filters, find)
    ancestors: set[str] | None = None
    if "ancestor" in filters:
        ancestors = set().union(*(image_ids(reference) for reference in filters.get("ancestor")))
    published, exposed = _ports(filters, "publish"), _ports(filters, "expose")
    chosen: list[Container] = []
    for container in containers:
        if not (everything or container.state.running):
            continue
        if ids is not None and container.id not in ids:
            continue
        if any(container.created_at >= limit_ for limit_ in before):
            continue
        if any(container.created_at <= limit_ for limit_ in since):
            continue
        if ancestors is not None and container.image_id not in ancestors:
            continue
        if not (
            _matches(container, filters)
            and (not (published or exposed) or _reachable(container, published, exposed))
        ):
            continue
        chosen.append(container)
        if limit > 0 and len(chosen) == limit:
            break
    return chosen


def _check(filters: Filters) -> None:
    filters.check(LIST_KEYS)
    for code in filters.get("exited"):
        if not re.fullmatch(r"[+-]?\d+", code):
            raise BadParameter(f'strconv.Atoi: parsing "{code}": invalid syntax')
    for status in filters.get("status"):
        if status not in _STATUSES:
            raise BadParameter(f"invalid filter 'status={status}'")
    if "is-task" in filters and filters.get("is-task") not in (["true"], ["false"]):
        raise filters.invalid("is-task")
    for health in filters.get("health"):
        if health not in _HEALTHS:
            raise BadParameter(f"unrecognized filter value for health: {health}")


def _bound(reference: str, find: Callable[[str], Container]) -> Container:
    try:
        return find(reference)
    except EngineError:
        raise NotFound(f"no such container {reference}") from None


def _ids(filters: Filters, find: Callable[[str], Container]) -> set[str] | None:
    """The containers that ``id`` means; an ambiguous beginning means none."""
    if "id" not in filters:
        return None
    found = set()
    for text in filters.get("id"):
        try:
            container = find(text)
        except EngineError:
            continue
        if container.id.startswith(text):  # and not found by its name
            found.add(container.id)
    return found


def _matches(container: Container, filters: Filters) -> bool:
    state = container.state
    return (
        filters.pattern("name", container.display_name, container.name)
        and filters.labels(container.labels)
        and filters.exact("status", state.status)
        and ("exited" not in filters or _exited(container, filters))
        and filters.exact("health", state.health.status if state.health else "none")
        and filters.exact("is-task", "false")
        and _on_network(container, filters)
        and _has_volume(container, filters)
    )


def _exited(container: Container, filters: Filters) -> bool:
    state = container.state
    ended = bool(state.started_at) and not state.running
    return ended and state.exit_code in map(int, filters.get("exited"))


def _on_network(container: Container, filters: Filters) -> bool:
    if "network" not in filters:
        return True
    return filters.exact("network", *container.endpoints) or filters.fuzzy(
        "network", *(endpoint.network_id for endpoint in container.endpoints.values())
    )


def _has_volume(container: Container, filters: Filters) -> bool:
    if "volume" not in filters:
        return True
    listed = [mount for mount in container.mounts if mount.listed]
    known = [value for m in listed for value in (m.name or m.source, m.destination)]
    return filters.exact("volume", *filter(None, known))


def _reachable(
    container: Container, published: set[tuple[int, str]], exposed: set[tuple[int, str]]
) -> bool:
    """Whether, running, it has one of the ports: ``published`` are ports of the host, ``exposed``
    its own, published or not."""
    if not container.state.running:
        return False
    own = {parse_port(text) for text in container.config.get("ExposedPorts") or {}}
    own |= {(port.container_port, port.protocol) for port in container.ports}
    outer = {(port.host_port, port.protocol) for port in container.ports}
    return bool(published & outer or exposed & own)


def _ports(filters: Filters, key: str) -> set[tuple[int, str]]:
    """The ports that ``publish`` or ``expose`` names: ``80``, ``80/udp``, ``8000-8100/tcp``."""
    ports: set[tuple[int, str]] = set()
    for text in filters.get(key):
        if ":" in text:
            raise BadParameter(f"filter for '{key}' should not contain ':': {text}")
        numbers, _, protocol = text.partition("/")
        first, _, last = numbers.partition("-")
        complaint = _port_complaint(first) or (last and _port_complaint(last))
        if not complaint and last and int(last) < int(first):
            complaint = f"invalid range specified for port: {numbers}"
        if complaint:
            raise BadParameter(f"error while looking up for {key} {text}: {complaint}")
        span = range(int(first), int(last or first) + 1)
        ports |= {(number, protocol.lower() or "tcp") for number in span}
    return ports


def _port_complaint(text: str) -> str:
    if not text.isascii() or not text.isdigit():
        return f'strconv.ParseUint: parsing "{text}": invalid syntax'
    if int(text) > 65535:
        return f'strconv.ParseUint: parsing "{text}": value out of range'
    return ""


def prunable(containers: Sequence[Container], filters: Filters, now: float) -> list[Container]:
    """Those that do not run and that ``docker container prune`` may remove.

    ``now`` is seconds since the epoch.

    Raises:
        BadParameter: a filter has no such key, or ``until`` no such value.
    """
    filters.check(PRUNE_KEYS)
    until = before(filters, now)
    return [
        container
        for container in containers
        if not container.state.running
        and (not until or container.created_at < until)
        and filters.labels(container.labels)
        and filters.not_labels(container.labels)
    ]


def before(filters: Filters, now: float) -> int:
    """The moment before which something must have been made by filter ``until``; 0 without one.

    ``now`` is seconds since the epoch, the moment nanoseconds.

    Raises:
        BadParameter: the filter is no moment, or more than one.
    """
    values = filters.get("until")
    if len(values) > 1:
        raise BadParameter("more than one until filter specified")
    return moment(values[0], int(now * 1e9)) if values else 0
