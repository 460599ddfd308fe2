"""What the kubelet counts: ``/metrics`` and ``/metrics/probes``, by upstream's names.

https://kubernetes.io/docs/reference/instrumentation/metrics/. What upstream measures of things that
are not here (relists of the runtime, a watch of cgroups) is not told.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final, cast
from urllib.parse import urlsplit

from wherry.engine.cri.types import ContainerRuntime, CRIError
from wherry.host.metrics import Counter, Family, Gauge, Histogram, Labels, lines_of, render
from wherry.kube.api.errors import StatusError
from wherry.kube.client.transport import Object, Query, Transport

Read = Callable[[], Iterable[tuple[Labels, float]]]

_DEFAULT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STARTS = (
    *(0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600),
    *(900, 1200, 1800, 2700, 3600),
)
_RUNTIME = tuple(0.005 * 2.5**power for power in range(14))
_PROBED = ("container", "namespace", "pod")

# Calls of the runtime that are measured, by upstream's words for them.
_OPERATIONS: Final = {
    "version": "version",
    "update_runtime_config": "update_runtime_config",
    "run_pod_sandbox": "run_podsandbox",
    "stop_pod_sandbox": "stop_podsandbox",
    "remove_pod_sandbox": "remove_podsandbox",
    "pod_sandbox_status": "podsandbox_status",
    "list_pod_sandboxes": "list_podsandbox",
    "create_container": "create_container",
    "start_container": "start_container",
    "stop_container": "stop_container",
    "remove_container": "remove_container",
    "container_status": "container_status",
    "list_containers": "list_containers",
    "update_container_resources": "update_container",
    "exec_sync": "exec_sync",
    "exec": "exec",
    "attach": "attach",
    "port_forward": "portforward",
    "image_status": "image_status",
    "list_images": "list_images",
    "pull_image": "pull_image",
    "remove_image": "remove_image",
    "container_stats": "list_container_stats",
    "pod_sandbox_stats": "list_pod_sandbox_stats",
}
_GROUPS: Final = {"update_group": "update", "remove_groups": "destroy"}


class Metrics:
    """The counts of one kubelet."""

    def __init__(self, node_name: str) -> None:
        self._families: list[Family] = []
        self.pod_start = self._histogram(
            "kubelet_pod_start_duration_seconds",
            "Duration in seconds from kubelet seeing a pod for the first time to the pod starting "
            "to run",
            (),
            _STARTS,
        )
        self.worker = self._histogram(
            "kubelet_pod_worker_duration_seconds",
            "Duration in seconds to sync a single pod. Broken down by operation type: create, "
            "update, or sync",
            ("operation_type",),
            _DEFAULT,
        )
        self.operations = self._counter(
            "kubelet_runtime_operations_total",
            "Cumulative number of runtime operations by operation type.",
            ("operation_type",),
        )
        self.operation_errors = self._counter(
            "kubelet_runtime_operations_errors_total",
            "Cumulative number of runtime operation errors by operation type.",
            ("operation_type",),
        )
        self.operation_durations = self._histogram(
            "kubelet_runtime_operations_duration_seconds",
            "Duration in seconds of runtime operations. Broken down by operation type.",
            ("operation_type",),
            _RUNTIME,
        )
        self.groups = self._histogram(
            "kubelet_cgroup_manager_duration_seconds",
            "Duration in seconds for cgroup manager operations. Broken down by method.",
            ("operation_type",),
            _DEFAULT,
        )
        self.started_pods = self._counter(
            "kubelet_started_pods_total", "Cumulative number of pods started"
        )
        self.started_containers = self._counter(
            "kubelet_started_containers_total",
            "Cumulative number of containers started",
            ("container_type",),
        )
        self.container_errors = self._counter(
            "kubelet_started_containers_errors_total",
            "Cumulative number of errors when starting containers",
            ("code", "container_type"),
        )
        self.evictions = self._counter(
            "kubelet_evictions",
            "Cumulative number of pod evictions by eviction signal",
            ("eviction_signal",),
        )
        self.preemptions = self._counter(
            "kubelet_preemptions",
            "Cumulative number of pod preemptions by preemption resource",
            ("preemption_signal",),
        )
        self.requests = self._counter(
            "kubelet_http_requests_total",
            "Number of the http requests received since the server started",
            ("long_running", "method", "path", "server_type"),
        )
        self.request_durations = self._histogram(
            "kubelet_http_requests_duration_seconds",
            "Duration in seconds to serve http requests",
            ("long_running", "method", "path", "server_type"),
            _DEFAULT,
        )
        self.api_requests = self._counter(
            "rest_client_requests_total",
            "Number of HTTP requests, partitioned by status code, method, and host.",
            ("code", "host", "method"),
        )
        self.api_durations = self._histogram(
            "rest_client_request_duration_seconds",
            "Request latency in seconds. Broken down by verb, and host.",
            ("host", "verb"),
            (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60),
        )
        self.told_by(
            "kubelet_node_name",
            "The node's name. The count is always 1.",
            ("node",),
            lambda: [((node_name,), 1)],
        )
        self.probes = Counter(
            "prober_probe_total",
            "Cumulative number of a liveness, readiness or startup probe for a container by "
            "result.",
            (*_PROBED, "pod_uid", "probe_type", "result"),
            listed=False,
        )
        self.probe_durations = Histogram(
            "prober_probe_duration_seconds",
            "Duration in seconds for a probe response.",
            (*_PROBED, "probe_type"),
            (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            listed=False,
        )

    def _counter(self, name: str, help: str, labels: Labels = ()) -> Counter:
        made = Counter(name, help, labels, listed=False)
        self._families.append(made)
        return made

    def _histogram(
        self, name: str, help: str, labels: Labels, buckets: tuple[float, ...]
    ) -> Histogram:
        made = Histogram(name, help, labels, buckets, listed=False)
        self._families.append(made)
        return made

    def told_by(self, name: str, help: str, labels: Labels, read: Read) -> None:
        """A gauge whose values are asked for when they are wanted."""
        self._families.append(Gauge(name, help, labels, read, listed=False))

    def probed(self, labels: Labels, uid: str, kind: str, result: str, seconds: float) -> None:
        """A probe has been answered; ``labels`` are container, namespace and pod."""
        self.probes.add((*labels, uid, kind.capitalize(), result))
        self.probe_durations.observe((*labels, kind.capitalize()), seconds)

    def pod_gone(self, uid: str) -> None:
        """What was counted of a pod's probes is forgotten with it."""
        gone = {labels[:3] for labels in self.probes.values if labels[3] == uid}
        if gone:
            self.probes.forget(lambda labels: labels[3] == uid)
            self.probe_durations.forget(lambda labels: labels[:3] in gone)

    def page(self) -> bytes:
        """``/metrics``: the process, too."""
        return render(self._families)

    def probes_page(self) -> bytes:
        """``/metrics/probes``."""
        return lines_of((self.probe_durations, self.probes))


class _Measured:
    """A runtime whose calls are counted and timed."""

    def __init__(self, inner: ContainerRuntime, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name in _OPERATIONS:
            method = self._counted(_OPERATIONS[name], method)
        elif name in _GROUPS:
            method = self._timed(_GROUPS[name], method)
        # Found here from now on, without a detour.
        self.__dict__[name] = method
        return method

    def _counted(
        self, operation: str, method: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        labels, metrics = (operation,), self._metrics

        async def counted(*args: Any, **kwargs: Any) -> Any:
            metrics.operations.add(labels)
            begun = time.perf_counter()
            try:
                return await method(*args, **kwargs)
            except CRIError:
                metrics.operation_errors.add(labels)
                raise
            finally:
                metrics.operation_durations.observe(labels, time.perf_counter() - begun)

        return counted

    def _timed(
        self, operation: str, method: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        async def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return await method(*args, **kwargs)
            finally:
                self._metrics.groups.observe((operation,), time.perf_counter() - begun)

        return timed


def measured(runtime: ContainerRuntime, metrics: Metrics) -> ContainerRuntime:
    """``runtime``, with its calls in ``metrics``."""
    return cast(ContainerRuntime, _Measured(runtime, metrics))


class MeasuredTransport:
    """A way to the API whose requests are counted."""

    def __init__(self, inner: Transport, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics
        self._host = urlsplit(str(getattr(inner, "server", ""))).netloc

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: object = None,
        content_type: str = "application/json",
    ) -> Object:
        """See ``Transport.request``."""
        begun = time.perf_counter()
        code = "200"
        try:
            return await self._inner.request(
                method, path, query=query, body=body, content_type=content_type
            )
        except StatusError as error:
            code = str(error.code)
            raise
        except BaseException:
            code = "<error>"
            raise
        finally:
            self._metrics.api_requests.add((code, self._host, method))
            self._metrics.api_durations.observe((self._host, method), time.perf_counter() - begun)

    def watch(self, path: str, query: Query = ()) -> AsyncIterator[tuple[str, Object]]:
        """See ``Transport.watch``. How it ends is not counted."""
        self._metrics.api_requests.add(("200", self._host, "GET"))
        return self._inner.watch(path, query)

    async def close(self) -> None:
        """See ``Transport.close``."""
        await self._inner.close()
