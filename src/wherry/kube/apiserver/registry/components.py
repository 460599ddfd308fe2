"""componentstatuses: made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from wherry.kube.api.errors import not_found
from wherry.kube.api.kinds.component_status import component
from wherry.kube.api.meta import parse_time
from wherry.kube.api.resources import COMPONENT_STATUSES, LEASES
from wherry.kube.apiserver.answers import Answer, Collection, Single
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import answer
from wherry.kube.apiserver.options import parse_selection
from wherry.kube.apiserver.request import APIRequest

if TYPE_CHECKING:
    from wherry.kube.apiserver.registry.backend import Backend

Fault = Callable[[], str]


class Components:
    """The parts of the control plane, as far as this server knows of them.

    A component is well if it runs in this process, or (``leases``) if somebody holds its lease.
    """

    def __init__(self, cache: Cache, store: Fault) -> None:
        self._cache = cache
        self._running: set[str] = set()
        self.faults: Mapping[str, Fault] = {
            "controller-manager": lambda: self._fault("controller-manager", 10257),
            "scheduler": lambda: self._fault("scheduler", 10259),
            "etcd-0": store,
        }

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """While that component runs in this process."""
        self._running.add(name)
        try:
            yield
        finally:
            self._running.discard(name)

    def _fault(self, name: str, port: int) -> str:
        if name in self._running or self._leads(f"kube-{name}"):
            return ""
        return (
            f'Get "https://127.0.0.1:{port}/healthz": dial tcp 127.0.0.1:{port}: '
            "connect: connection refused"
        )

    def _leads(self, lease: str) -> bool:
        found = self._cache.of(LEASES).get("kube-system", lease)
        spec = (found.object.get("spec") or {}) if found else {}
        if not spec.get("holderIdentity") or not spec.get("renewTime"):
            return False
        lasts = timedelta(seconds=spec.get("leaseDurationSeconds") or 15)
        return parse_time(spec["renewTime"]) + lasts > datetime.now(UTC)


async def show(backend: Backend, request: APIRequest) -> Answer:
    """One component, or all of them."""
    kind = backend.records(COMPONENT_STATUSES).kind
    info = request.info
    faults = backend.components.faults if backend.components else {}
    if info.verb == "get":
        if info.name not in faults:
            raise not_found("componentstatuses", info.name)
        return Single(answer(component(info.name, faults[info.name]())), kind)
    selection = parse_selection(request.query, kind)
    made = (component(name, fault()) for name, fault in sorted(faults.items()))
    found = [answer(o) for o in made if selection.everything or selection.matches(kind, o)]
    return Collection(kind, found, backend.cache.revision)
