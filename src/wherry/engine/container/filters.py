"""Which containers ``docker ps -f`` and ``docker container prune --filter`` mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wherry.engine.container.container import Container
from wherry.engine.container.healthcheck import NONE
from wherry.engine.container.healthcheck import STATUSES as HEALTH_STATUSES
from wherry.engine.container.units import parse_duration, parse_since
from wherry.engine.errors import BadParameter
from wherry.engine.filters import Filters
from wherry.engine.network.ports import parse_port

LIST_KEYS = frozenset(
    (
        *("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation"),
        *("label", "label!", "name", "network", "publish", "since", "status", "volume"),
    )
)
PRUNE_KEYS = frozenset(("label", "label!", "until"))
_STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


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

    ``find`` resolves the containers of ``before`` and ``since``, ``image_ids`` the images of
    ``ancestor`` (an image and what was made from it).

    Raises:
        BadParameter: a filter has no such key or value.
        NotFound: ``before`` or ``since`` name no container.
    """
    filters.check(LIST_KEYS)
    for status in filters.get("status"):
        if status not in _STATUSES:
            raise BadParameter(f"invalid filter 'status={status}'")
    for status in filters.get("health"):
        if status not in HEALTH_STATUSES:
            raise BadParameter(f"invalid filter 'health={status}'")
    for code in filters.get("exited"):
        if not code.lstrip("-").isdigit():
            raise BadParameter(f"invalid filter 'exited={code}'")
    everything = all_ or limit > 0 or "status" in filters or "exited" in filters
    before = [find(reference).created_at for reference in filters.get("before")]
    since = [find(reference).created_at for reference in filters.get("since")]
    ancestors: set[str] | None = None
    if "ancestor" in filters:
        ancestors = set().union(*(image_ids(reference) for reference in filters.get("ancestor")))
    chosen: list[Container] = []
    for container in containers:
        if not (everything or container.state.running):
            continue
        if any(container.created_at >= moment for moment in before):
            continue
        if any(container.created_at <= moment for moment in since):
            continue
        if ancestors is not None and container.image_id not in ancestors:
            continue
        if not _matches(container, filters):
            continue
        chosen.append(container)
        if limit > 0 and len(chosen) == limit:
            break
    return chosen


def _matches(container: Container, filters: Filters) -> bool:
    state = container.state
    return (
        filters.fuzzy("id", container.id)
        and filters.pattern("name", container.display_name, container.name)
        and filters.labels(container.labels)
        and filters.not_labels(container.labels)
        and filters.exact("status", state.status)
        and ("exited" not in filters or _exited(container, filters))
        and filters.exact("health", state.health.status if state.health else NONE)
        and filters.exact("is-task", "false")
        and _on_network(container, filters)
        and _has_volume(container, filters)
        and _has_port(container, filters.get("publish"), published=True)
        and _has_port(container, filters.get("expose"), published=False)
    )


def _exited(container: Container, filters: Filters) -> bool:
    state = container.state
    ended = bool(state.started_at) and not state.running
    return ended and filters.exact("exited", str(state.exit_code))


def _on_network(container: Container, filters: Filters) -> bool:
    if "network" not in filters:
        return True
    known = [*container.endpoints, *(e.network_id for e in container.endpoints.values())]
    return filters.exact("network", *known, container.network_mode)


def _has_volume(container: Container, filters: Filters) -> bool:
    if "volume" not in filters:
        return True
    known = [value for m in container.mounts for value in (m.name, m.source, m.destination)]
    return filters.exact("volume", *filter(None, known))


def _has_port(container: Container, wanted: Sequence[str], *, published: bool) -> bool:
    if not wanted:
        return True
    if published:
        present = {(port.container_port, port.protocol) for port in container.ports}
        present |= {(port.host_port, port.protocol) for port in container.ports}
    else:
        present = {parse_port(text) for text in container.config.get("ExposedPorts") or {}}
    for text in wanted:
        numbers, _, protocol = text.partition("/")
        first, _, last = numbers.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise BadParameter(f"invalid filter '{'publish' if published else 'expose'}={text}'")
        wanted_range = range(int(first), int(last or first) + 1)
        if any(number in wanted_range and kind == (protocol or "tcp") for number, kind in present):
            return True
    return False


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
        BadParameter: the filter is no moment.
    """
    until = 0
    for text in filters.get("until"):
        duration = parse_duration(text)
        until = parse_since(text, "until") if duration is None else int((now - duration) * 1e9)
    return until
