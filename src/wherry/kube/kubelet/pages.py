"""What the kubelet's port tells in plain answers: health, settings, pods, figures, files of logs.

``Pages.routes`` is the table. Paths and formats as in pkg/kubelet/server/server.go.
"""

from __future__ import annotations

import asyncio
import functools
import html
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from aiohttp import web

from wherry.engine.cri.types import ContainerRuntime, ContainerState
from wherry.host.metrics import Labels
from wherry.kube.api import meta
from wherry.kube.kubelet import cadvisor, machine, pods, stats
from wherry.kube.kubelet.config import duration
from wherry.kube.kubelet.disks import Disks, PodDisk, Space
from wherry.kube.kubelet.metrics import Metrics
from wherry.kube.kubelet.parts import KubeletConfig
from wherry.kube.kubelet.summary import NodeFacts, Rates, summary
from wherry.kube.kubelet.view import RuntimeView
from wherry.kube.kubelet.volumes.claims import claim_name
from wherry.kube.kubelet.volumes.place import Place

Object = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_TEXT = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


class Pods(Protocol):
    """The pods of this node."""

    def list_pods(self) -> Iterable[Object]:
        """All of them, with their statuses."""

    def places(self, uid: str) -> Mapping[str, Place]:
        """Where the volumes of one of them are, as far as they are there."""


class Pages:
    """The answers of one node."""

    def __init__(
        self,
        config: KubeletConfig,
        runtime: ContainerRuntime,
        view: RuntimeView,
        source: Pods,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._runtime = runtime
        self._view = view
        self._source = source
        self._metrics = metrics
        self._rates = Rates()
        self._started = meta.now()
        self._disks = Disks(
            runtime,
            config.root_dir,
            config.pod_logs,
            duration(str(config.settings.document["volumeStatsAggPeriod"])),
        )
        self._claims: dict[Labels, Space] = {}
        self._tell_claims()
        metrics.told_by(
            "kubelet_running_pods",
            "Number of pods that have a running pod sandbox",
            (),
            lambda: [((), len(view.ready_sandboxes()))],
        )
        metrics.told_by(
            "kubelet_running_containers",
            "Number of containers currently running",
            ("container_state",),
            self._container_states,
        )
        metrics.told_by(
            "kubelet_desired_pods",
            "The number of pods the kubelet is being instructed to run. static is true if the pod "
            "is not from the apiserver.",
            ("static",),
            self._desired,
        )
        metrics.told_by(
            "volume_manager_total_volumes",
            "Number of volumes in Volume Manager",
            ("plugin_name", "state"),
            self._volumes,
        )

    @property
    def routes(self) -> tuple[tuple[str, Handler], ...]:
        """What is answered to GET, by path."""
        found: tuple[tuple[str, Handler], ...] = (
            ("/healthz", self._healthz),
            *((f"/healthz/{check}", self._healthz) for check in ("ping", "log", "syncloop")),
            ("/configz", self._configz),
            ("/pods", self._pods),
            ("/pods/", self._pods),
            ("/metrics", self._own_metrics),
            ("/metrics/probes", self._probe_metrics),
            ("/metrics/resource", self._resource_metrics),
            ("/metrics/cadvisor", self._cadvisor),
            ("/stats/summary", self._summary),
            ("/stats/", self._summary),
        )
        running: tuple[tuple[str, Handler], ...] = (
            ("/runningpods/", self._running_pods),
            ("/runningpods", self._running_pods),
            ("/logs/{path:.*}", self._logs),
            ("/logs", self._logs),
        )
        return (*found, *running)

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _configz(self, _request: web.Request) -> web.Response:
        return web.json_response({"kubeletconfig": dict(self._config.settings.document)})

    # pods

    async def _pods(self, _request: web.Request) -> web.Response:
        return _pod_list(self._source.list_pods())

    async def _running_pods(self, _request: web.Request) -> web.Response:
        running = {
            c.labels.get(pods.POD_UID)
            for c in self._view.containers()
            if c.state is ContainerState.RUNNING
        }
        return _pod_list(p for p in self._source.list_pods() if meta.uid(p) in running)

    # figures

    def _container_states(self) -> Iterable[tuple[Labels, float]]:
        counts: dict[str, int] = {}
        for container in self._view.containers():
            state = container.state.name.lower()
            counts[state] = counts.get(state, 0) + 1
        return [((state,), count) for state, count in counts.items()]

    def _desired(self) -> Iterable[tuple[Labels, float]]:
        every = list(self._source.list_pods())
        static = sum(pods.is_static(p) for p in every)
        return [(("",), len(every) - static), (("true",), static)]

    def _volumes(self) -> Iterable[tuple[Labels, float]]:
        counts: dict[Labels, float] = {}
        for pod in self._source.list_pods():
            there = self._source.places(meta.uid(pod))
            for volume in pod["spec"].get("volumes") or ():
                plugin = f"kubernetes.io/{next((k for k in volume if k != 'name'), '')}"
                for state in ("desired_state_of_world", "actual_state_of_world"):
                    if state.startswith("desired") or volume["name"] in there:
                        counts[(plugin, state)] = counts.get((plugin, state), 0) + 1
        return counts.items()

    def _tell_claims(self) -> None:
        for name, text in (
            ("capacity", "Capacity in bytes of the volume"),
            ("available", "Number of available bytes in the volume"),
            ("used", "Number of used bytes in the volume"),
            ("inodes", "Maximum number of inodes in the volume"),
            ("inodes_free", "Number of free inodes in the volume"),
            ("inodes_used", "Number of used inodes in the volume"),
        ):
            unit = "" if name.startswith("inodes") else "_bytes"
            self._metrics.told_by(
                f"kubelet_volume_stats_{name}{unit}",
                text,
                ("namespace", "persistentvolumeclaim"),
                functools.partial(self._of_claims, name),
            )

    def _of_claims(self, name: str) -> Iterable[tuple[Labels, float]]:
        return [(claim, getattr(space, name)) for claim, space in self._claims.items()]

    async def _own_metrics(self, _request: web.Request) -> web.Response:
        claims: dict[Labels, Space] = {}
        for pod in self._source.list_pods():
            named = {v["name"]: claim_name(pod, v) for v in pod["spec"].get("volumes") or ()}
            if any(named.values()) and not pods.is_finished(pod):
                disk = await self._disk_of(pod)
                claims |= {
                    (meta.namespace(pod), claim): disk.volumes[name]
                    for name, claim in named.items()
                    if claim and name in disk.volumes
                }
        self._claims = claims
        return web.Response(body=self._metrics.page(), headers=_TEXT)

    async def _probe_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.probes_page(), headers=_TEXT)

    async def _resource_metrics(self, _request: web.Request) -> web.Response:
        text = stats.resource_metrics(await self._runtime.container_stats(), time.time())
        return web.Response(text=text, content_type="text/plain")

    async def _cadvisor(self, _request: web.Request) -> web.Response:
        containers = await self._runtime.container_stats()
        sandboxes = await self._runtime.pod_sandbox_stats()
        text = cadvisor.metrics(containers, sandboxes, time.time())
        return web.Response(text=text, content_type="text/plain")

    async def _disk_of(self, pod: Object) -> PodDisk:
        uid = meta.uid(pod)
        return await self._disks.of(pod, self._view.pod(uid), self._source.places(uid))

    async def _summary(self, request: web.Request) -> web.Response:
        flag = request.query.get("only_cpu_and_memory", "")
        brief = flag.lower() in ("1", "t", "true")
        containers = await self._runtime.container_stats()
        sandboxes = await self._runtime.pod_sandbox_stats()
        running = [p for p in self._source.list_pods() if not pods.is_finished(p)]
        disks = {} if brief else {meta.uid(p): await self._disk_of(p) for p in running}
        self._disks.forget({meta.uid(p) for p in running})
        use, swap_free = machine.node_use()
        most, processes = machine.process_room()
        node = NodeFacts(
            name=self._config.node_name,
            started=meta.format_time(machine.boot_time()),
            use=use,
            swap_free=swap_free,
            own=machine.own_use(),
            own_started=self._started,
            disk=self._disks.whole(),
            images=sum(image.size for image in await self._runtime.list_images()),
            interfaces=machine.interfaces(),
            most_processes=most,
            processes=processes,
        )
        told = summary(
            *(node, running, containers, sandboxes, disks, self._rates),
            time=meta.now(),
            clock=time.monotonic(),
        )
        return web.json_response(_brief(told) if brief else told)

    # files of logs

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        """A file below the node's directory of logs, or what a directory there holds.

        Links are followed as long as they lead to something that is there, too.
        """
        if not self._config.settings.system_logs:
            return web.Response(status=405, text="logs endpoint is disabled.\n")
        root = self._config.pod_logs.parent.resolve()
        wanted = request.match_info.get("path", "")
        try:
            found = await asyncio.to_thread(_confined, root, wanted)
        except (OSError, ValueError):
            return web.Response(status=404, text="404 page not found\n")
        if found.is_dir():
            if request.path[-1] != "/":
                return web.Response(status=301, headers={"Location": f"{request.path}/"})
            body = await asyncio.to_thread(_listing, found)
            return web.Response(text=body, content_type="text/html")
        return web.FileResponse(found, headers={"Content-Type": "text/plain; charset=utf-8"})


def _confined(root: Path, wanted: str) -> Path:
    """What ``wanted`` means below ``root``. Blocks.

    Raises:
        OSError, ValueError: nothing that may be shown.
    """
    found = (root / wanted.lstrip("/")).resolve(strict=True)
    if not found.is_relative_to(root) or not (found.is_dir() or found.is_file()):
        raise ValueError(f"{wanted} is no file of logs")
    return found


def _listing(directory: Path) -> str:
    names = sorted(f"{e.name}/" if e.is_dir() else e.name for e in directory.iterdir())
    lines = [f'<a href="{quote(name)}">{html.escape(name)}</a>\n' for name in names]
    return f"<pre>\n{''.join(lines)}</pre>\n"


def _brief(told: Object) -> Object:
    """The summary with processor and memory alone."""

    def bare(part: Object, *more: str) -> Object:
        kept = ("cpu", "memory", "startTime", *more)
        return {key: value for key, value in part.items() if key in kept}

    node = bare(told["node"], "nodeName")
    node["systemContainers"] = [bare(c, "name") for c in told["node"]["systemContainers"]]
    return {
        "node": node,
        "pods": [
            {**bare(pod, "podRef"), "containers": [bare(c, "name") for c in pod["containers"]]}
            for pod in told["pods"]
        ],
    }


def _pod_list(items: Iterable[Object]) -> web.Response:
    import orjson

    body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(items)}
    return web.Response(body=orjson.dumps(body), content_type="application/json")
