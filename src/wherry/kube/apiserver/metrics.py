"""What the API server counts: ``/metrics``, by upstream's names.

https://kubernetes.io/docs/reference/instrumentation/metrics/
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from types import MappingProxyType

from wherry.host.metrics import Counter, Family, Gauge, Histogram, Labels, render, sample
from wherry.kube.api import discovery
from wherry.kube.api.catalogue import Catalogue
from wherry.kube.apiserver.aggregation.services import Services
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.request import READS, RequestInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PLACE = ("component", "group", "resource", "scope", "subresource", "verb", "version", "dry_run")
_DURATIONS = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15),
    *(20, 30, 45, 60),
)
_METHODS = MappingProxyType(
    {
        "get": "GET",
        "list": "LIST",
        "watch": "WATCH",
        "create": "POST",
        "update": "PUT",
        "patch": "PATCH",
        "delete": "DELETE",
        "deletecollection": "DELETECOLLECTION",
    }
)
_CONNECTING = frozenset(("exec", "attach", "portforward", "proxy"))
_LONG = frozenset(("log", *_CONNECTING))

STORE_DURATION = Histogram(
    "etcd_request_duration_seconds",
    "Store request latency in seconds for each operation and object type.",
    ("operation", "type"),
    _DURATIONS,
)
WATCH_EVENTS = Counter(
    "apiserver_watch_events_total",
    "Number of events sent in watch clients",
    ("group", "kind", "version"),
)
ADMISSION_STEPS = Histogram(
    "apiserver_admission_step_admission_duration_seconds",
    "Admission sub-step latency histogram in seconds, broken out for each operation and API "
    "resource and step type (validate or admit).",
    ("operation", "rejected", "type"),
    (0.005, 0.025, 0.1, 0.5, 1.0, 2.5),
)
AUDIT_EVENTS = Counter(
    "apiserver_audit_event_total",
    "Counter of audit events generated and sent to the audit backend.",
)


def _verb(info: RequestInfo) -> str:
    if not info.is_resource:
        return info.method
    if info.subresource in _CONNECTING:
        return "CONNECT"
    return _METHODS.get(info.verb, info.method)


def _place(info: RequestInfo) -> Labels:
    """The labels of a request's place. What is not served is counted together: clients choose
    those words."""
    if not info.is_resource or info.resource is None:
        return "apiserver", "", "", "", "", _verb(info), "", ""
    scope = "resource" if info.name else "namespace" if info.namespace else "cluster"
    return (
        "apiserver",
        info.group,
        info.plural,
        scope,
        info.subresource,
        _verb(info),
        info.version,
        "",
    )


class _Series:
    """What was counted of one place: looked up once a request."""

    __slots__ = ("codes", "durations")

    def __init__(self, durations: list[float]) -> None:
        self.codes: dict[int, int] = {}
        self.durations = durations


class _Requests(Family):
    kind = "counter"

    def __init__(self, series: dict[Labels, _Series]) -> None:
        super().__init__(
            "apiserver_request_total",
            "Counter of apiserver requests broken out for each verb, dry run value, group, "
            "version, resource, scope, component, and HTTP response code.",
            (*_PLACE, "code"),
            listed=False,
        )
        self._series = series

    def samples(self) -> Iterator[str]:
        for place, series in list(self._series.items()):
            for code, count in list(series.codes.items()):
                labels = zip(self.labels, (*place, str(code)), strict=True)
                yield sample(self.name, labels, count)


class Metrics:
    """The counts of one server."""

    def __init__(self, catalogue: Catalogue, cache: Cache, services: Services) -> None:
        self._catalogue = catalogue
        self._cache = cache
        self._services = services
        self._series: dict[Labels, _Series] = {}
        self.requests = _Requests(self._series)
        self.durations = Histogram(
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds for each verb, dry run value, group, "
            "version, resource, subresource, scope and component.",
            _PLACE,
            _DURATIONS,
            listed=False,
        )
        self.long = Gauge(
            "apiserver_longrunning_requests",
            "Gauge of all active long-running apiserver requests broken out by verb, group, "
            "version, resource, scope and component. Not all requests are tracked this way.",
            _PLACE,
            listed=False,
        )
        self.inflight = {"mutating": 0, "readOnly": 0}
        self._families: tuple[Family, ...] = (
            self.requests,
            self.durations,
            self.long,
            Gauge(
                "apiserver_current_inflight_requests",
                "Maximal number of currently used inflight request limit of this apiserver per "
                "request kind in last second.",
                ("request_kind",),
                lambda: [((kind,), count) for kind, count in self.inflight.items()],
                listed=False,
            ),
            Gauge(
                "apiserver_storage_objects",
                "Number of stored objects at the time of last check split by kind.",
                ("resource",),
                self._objects,
                listed=False,
            ),
            Gauge(
                "apiserver_resource_objects",
                "Number of stored objects at the time of last check split by kind.",
                ("group", "resource"),
                self._resource_objects,
                listed=False,
            ),
            Gauge(
                "aggregator_unavailable_apiservice",
                "Gauge of APIServices which are marked as unavailable broken down by APIService "
                "name.",
                ("name",),
                self._unavailable,
                listed=False,
            ),
            Gauge(
                "kubernetes_build_info",
                "A metric with a constant '1' value labeled by major, minor, git version, git "
                "commit, git tree state, build date, Go version, and compiler from which "
                "Kubernetes was built, and platform on which it is running.",
                _BUILD,
                _build,
                listed=False,
            ),
        )

    def begin(self, info: RequestInfo) -> Callable[[int], None]:
        """A request has come; the returned function is to be called with the code it ended with."""
        place = _place(info)
        series = self._series.get(place)
        if series is None:
            series = self._series[place] = _Series(self.durations.counts(place))
        codes = series.codes
        if place[5] == "WATCH" or info.subresource in _LONG:
            self.long.add(place)

            def ended(code: int) -> None:
                self.long.add(place, -1)
                codes[code] = codes.get(code, 0) + 1

            return ended
        kind = "readOnly" if info.verb in READS or not info.is_resource else "mutating"
        self.inflight[kind] += 1
        started = time.perf_counter()
        counts = series.durations

        def answered(code: int) -> None:
            self.inflight[kind] -= 1
            codes[code] = codes.get(code, 0) + 1
            seconds = time.perf_counter() - started
            counts[bisect_left(_DURATIONS, seconds)] += 1
            counts[-1] += seconds

        return answered

    def render(self) -> bytes:
        """Everything, as text."""
        return render(self._families)

    def _objects(self) -> Iterable[tuple[Labels, float]]:
        for resource in self._catalogue.served.resources:
            if resource.stored_as is None:
                name = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
                yield (name,), self._cache.of(resource).count

    def _resource_objects(self) -> Iterable[tuple[Labels, float]]:
        for resource in self._catalogue.served.resources:
            if resource.stored_as is None:
                yield (resource.group, resource.plural), self._cache.of(resource).count

    def _unavailable(self) -> Iterable[tuple[Labels, float]]:
        for name, remote in self._services.by_name.items():
            yield (name,), float(not remote.available)


_BUILD = (
    *("build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version"),
    *("major", "minor", "platform"),
)


def _build() -> Iterable[tuple[Labels, float]]:
    told = discovery.version()
    keys = (
        *("buildDate", "compiler", "gitCommit", "gitTreeState", "gitVersion", "goVersion"),
        *("major", "minor", "platform"),
    )
    yield tuple(told[key] for key in keys), 1
