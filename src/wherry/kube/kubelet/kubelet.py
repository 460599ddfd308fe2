"""The kubelet as a whole: its duties put together, started in order, stopped without a trace.

What it must not do is as important: a kubelet that stops, is killed or starts anew changes nothing
of what runs. It takes up what it finds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from wherry.engine.cri.types import ContainerRuntime
from wherry.host.tasks import run_until
from wherry.kube.api import meta
from wherry.kube.api.resources import NODES, PODS, SERVICES
from wherry.kube.api.schema import newest_version
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer
from wherry.kube.client.recorder import EventRecorder
from wherry.kube.kubelet import machine, messages
from wherry.kube.kubelet.access import Access
from wherry.kube.kubelet.awaited import Awaited
from wherry.kube.kubelet.hooks import Asker
from wherry.kube.kubelet.housekeeping import Housekeeping
from wherry.kube.kubelet.images import ImagePuller
from wherry.kube.kubelet.log_files import LogFiles
from wherry.kube.kubelet.manifests import mirrors
from wherry.kube.kubelet.metrics import MeasuredTransport, Metrics, measured
from wherry.kube.kubelet.network import PodNetwork
from wherry.kube.kubelet.node import NodeAgent
from wherry.kube.kubelet.node_status import allocatable
from wherry.kube.kubelet.objects import ObjectCache
from wherry.kube.kubelet.pages import Pages
from wherry.kube.kubelet.parts import KubeletConfig, NoWalls, Parts, Walls, Withdrawn, at_once
from wherry.kube.kubelet.probes import Probes
from wherry.kube.kubelet.pulled import PulledImages
from wherry.kube.kubelet.runtime_classes import RuntimeClasses
from wherry.kube.kubelet.server import Server
from wherry.kube.kubelet.static_pods import StaticPods
from wherry.kube.kubelet.status_manager import StatusManager
from wherry.kube.kubelet.tokens import Tokens
from wherry.kube.kubelet.user_namespaces import UserNamespaces
from wherry.kube.kubelet.view import RuntimeView
from wherry.kube.kubelet.volumes.claims import Claims
from wherry.kube.kubelet.volumes.manager import Volumes
from wherry.kube.kubelet.volumes.manager import teardown as remove_volumes
from wherry.kube.kubelet.volumes.place import Place
from wherry.kube.kubelet.worker import PodWorker

__all__ = ["Kubelet", "KubeletConfig"]

log = logging.getLogger(__name__)

USER_RANGES = 1024

Object = dict[str, Any]


class Kubelet:
    """The agent of one node.

    Args:
        config: who and where it is.
        client: its way to the API, with the rights of ``system:node:<name>``.
        runtime: its way to containers.
        on_ready: called once, when the node has been told Ready for the first time, or with the
            reason when that is up to others: plugins of the pods' network that are still to come,
            or the API, which has not been reached in ``patience`` seconds.
        walls: who must know the addresses of pods before these start.
        withdrawn: returns when Services lead nobody of this node to a pod that is deleted.
    """

    def __init__(
        self,
        config: KubeletConfig,
        client: Client,
        runtime: ContainerRuntime,
        *,
        on_ready: Callable[[str], None] = lambda why_not: None,
        walls: Walls | None = None,
        withdrawn: Withdrawn = at_once,
        patience: float | None = None,
    ) -> None:
        self._config = config
        self._patience = patience
        metrics = Metrics(config.node_name)
        runtime = measured(runtime, metrics)
        client = Client(MeasuredTransport(client.transport, metrics), manager=client.manager)
        self._runtime = runtime
        self._on_ready = on_ready
        config.root_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        facts = machine.read_machine(config.root_dir)
        self._workers: dict[str, PodWorker] = {}
        self._followed = asyncio.Event()  # pods of the API have been taken up
        self._recorder = EventRecorder(client, "kubelet", config.node_name)
        self._pods = Informer(client, PODS, field_selector=f"spec.nodeName={config.node_name}")
        self._services = Informer(client, SERVICES)
        self._nodes = Informer(client, NODES, field_selector=f"metadata.name={config.node_name}")
        volumes = Volumes(config.root_dir)
        awaited = Awaited(self._objects_changed)
        self._view = RuntimeView(
            runtime,
            on_change=self._wake,
            read_message=lambda status: messages.last_words(status, volumes),
            on_images=awaited.images_changed,
        )
        asker = Asker(runtime)
        self._network = PodNetwork(
            runtime,
            tell=lambda fault: self._node.set_ready(fault),
            wake=self._objects_changed,
            wake_all=self._wake_all,
        )
        self._node = NodeAgent(
            config,
            client,
            runtime,
            self._recorder,
            facts,
            kubelet_version=f"v{newest_version()}",
            on_pod_cidr=self._network.use,
            pressure=lambda: self._house.pressure,
        )
        room = allocatable(facts, config.settings)
        self._house = Housekeeping(
            *(config, runtime, self._view, self._workers, facts),
            lambda: self._node,
            room,
            metrics,
        )
        self._parts = Parts(
            config=config,
            runtime=runtime,
            view=self._view,
            volumes=volumes,
            logs=LogFiles(
                config.pod_logs,
                config.container_logs,
                max_files=config.settings.container_log_max_files,
            ),
            objects=ObjectCache(client, on_change=self._objects_changed),
            tokens=Tokens(client),
            claims=Claims(client),
            images=ImagePuller(
                runtime,
                PulledImages(
                    config.root_dir / "pulled-images.json",
                    config.settings.image_proof,
                    config.settings.images_without_proof,
                ),
            ),
            asker=asker,
            probes=Probes(asker, on_change=self._wake, tell=self._tell_of, metrics=metrics),
            statuses=StatusManager(client),
            recorder=self._recorder,
            services=self._services.list,
            services_synced=self._services.wait_synced,
            allocatable=room,
            memory_capacity=facts.memory,
            process_limit=self._house.process_limit,
            runtime_classes=RuntimeClasses(client),
            active_pods=self._house.active_pods,
            metrics=metrics,
            walls=walls or NoWalls(),
            users=UserNamespaces(
                config.first_user,
                USER_RANGES,
                directory=volumes.pod_directory,
                known=volumes.known_pods,
            ),
            awaited=awaited,
            network=self._network,
            withdrawn=withdrawn,
        )
        self._static = StaticPods(
            config.static_pods or config.root_dir / "manifests",
            config.node_name,
            client,
            node=lambda: self._nodes.get("", config.node_name) or self._node.node or None,
            synced=self._pods.wait_synced,
            on_add=self._take,
            on_remove=self._leave,
            on_mirror=self._mirrored,
        )
        self._server = Server(
            config,
            runtime,
            self._view,
            self,
            pages=Pages(config, runtime, self._view, self, metrics).routes,
            access=Access(client, config.node_name),
            metrics=metrics,
        )

    async def run(self) -> None:
        """Be the node's kubelet until cancelled. What runs then goes on running.

        Raises:
            OSError: the port is taken.
        """
        await self._server.start()
        size = self._config.settings.container_log_max_size
        await self._runtime.rotate_logs(size, self._parts.logs.rotate)
        self._recorder.start()
        try:
            self._node.tell("Starting", "Starting kubelet.")
            self._services.start()
            self._house.look()
            await run_until(
                asyncio.Event(),
                self._view.follow(),
                self._keep_node(),
                self._house.run(),
                self._keep_pods(),
                self._until_ready(),
            )
        finally:
            await self._close()

    @staticmethod
    def teardown(root_dir: Path, pod_logs: Path, container_logs: Path) -> None:
        """Unmount and delete what kubelets keep below ``root_dir``, and the logs of its pods.

        It blocks; no kubelet may run.
        """
        logs = LogFiles(pod_logs, container_logs, max_files=1)
        for uid in Volumes(root_dir).known_pods():
            logs.remove_pod(uid, None)
        remove_volumes(root_dir)

    async def _close(self) -> None:
        self._network.close()
        await asyncio.gather(*(worker.stop() for worker in list(self._workers.values())))
        await self._parts.statuses.close()
        await self._parts.objects.close()
        self._parts.awaited.close()
        for informer in (self._pods, self._services, self._nodes):
            await informer.stop()
        await self._recorder.stop()
        await self._server.stop()

    # the node

    async def _keep_node(self) -> None:
        """Make it known as soon as the API answers, and tell of it from then on."""
        await self._node.register()
        self._nodes.add_handlers(
            on_add=self._node.observe, on_update=lambda _old, new: self._node.observe(new)
        )
        self._nodes.start()
        await run_until(asyncio.Event(), self._node.keep_status(), self._node.keep_lease())

    async def _until_ready(self) -> None:
        """Tell once how the node begins."""
        ways = [asyncio.create_task(self._begun())]
        if self._patience is not None:
            ways.append(asyncio.create_task(self._node.unheard(self._patience)))
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            self._on_ready(done.pop().result())
        finally:
            for way in ways:
                way.cancel()
        await asyncio.Event().wait()  # until cancelled

    async def _begun(self) -> str:
        """Wait until the node has its pods and is Ready, or waits for others: then why."""
        await self._followed.wait()
        ready = asyncio.create_task(self._node.told_ready.wait())
        others = asyncio.create_task(self._network.awaits_plugins.wait())
        try:
            await asyncio.wait((ready, others), return_when=asyncio.FIRST_COMPLETED)
            return "" if ready.done() else await self._network.fault()
        finally:
            ready.cancel()
            others.cancel()

    # pods

    async def _keep_pods(self) -> None:
        """Those of files run without the API, as it may be one of them."""
        await self._view.loaded.wait()
        await self._network.recall()
        await self._static.load()
        await run_until(asyncio.Event(), self._static.run(), self._follow_pods())

    async def _follow_pods(self) -> None:
        # What a pod may want of its node is known by then.
        await self._node.registered.wait()
        self._pods.add_handlers(
            on_add=self._pod_added, on_update=self._pod_updated, on_delete=self._pod_deleted
        )
        self._pods.start()
        await self._pods.wait_synced()
        self._end_orphans()
        self._followed.set()
        await asyncio.Event().wait()  # until cancelled

    def _end_orphans(self) -> None:
        """What is left of pods that the API no longer has is ended and cleared away."""
        left = {*self._view.uids(), *self._parts.volumes.known_pods()}
        for uid in left - set(self._workers) - {""}:
            log.info("pod %s is no longer in the API: ending it", uid)
            self._worker(uid).leave()

    def _worker(self, uid: str) -> PodWorker:
        worker = self._workers.get(uid)
        if worker is None:
            worker = self._workers[uid] = PodWorker(uid, self._parts, self._forget)
        return worker

    def _forget(self, uid: str) -> None:
        self._workers.pop(uid, None)
        self._static.gone(uid)
        self._house.pods_changed()
        for worker in self._workers.values():
            if worker.resize_is_deferred:
                worker.wake()

    def _pod_added(self, pod: Object) -> None:
        if mirrors(pod):
            self._static.observe(pod)
        else:
            self._take(pod)

    def _take(self, pod: Object) -> None:
        if meta.uid(pod) in self._workers:
            self._worker(meta.uid(pod)).update(pod)
            return
        verdict = self._house.admit(pod)
        worker = self._worker(meta.uid(pod))
        worker.wait_for(self._house.make_room(verdict))
        worker.update(pod)
        if verdict.refusal is not None:
            worker.tell("Warning", verdict.refusal.reason, verdict.refusal.message)
            worker.fail(verdict.refusal.reason, verdict.refusal.message, refused=True)
        self._house.pods_changed()

    def _pod_updated(self, old: Object, new: Object) -> None:
        if meta.uid(old) != meta.uid(new):
            self._pod_deleted(old)
        self._pod_added(new)

    def _pod_deleted(self, pod: Object) -> None:
        if mirrors(pod):
            self._static.forget(pod)
        else:
            self._leave(meta.uid(pod), unknown=True)

    def _leave(self, uid: str, *, unknown: bool = False) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.leave(unknown=unknown)

    def _mirrored(self, uid: str, mirror: Object) -> None:
        self._parts.statuses.mirrored(uid, mirror)
        self._wake(uid)

    def _wake(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.wake()

    def _wake_all(self) -> None:
        for worker in self._workers.values():
            worker.wake()

    def _objects_changed(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.objects_changed()

    def _tell_of(
        self, pod: Object, container: Object, type_: str, reason: str, message: str
    ) -> None:
        self._parts.tell_of(pod, container, type_, reason, message)

    async def shut_down(self) -> None:
        """The machine goes down: end the pods as the configuration says."""
        await self._house.shut_down()

    # for the server

    def list_pods(self) -> Iterable[Object]:
        """All pods of this node, with their newest statuses."""
        own = [pod for pod in self._pods.list() if not mirrors(pod)]
        return [self._newest(pod) for pod in (*own, *self._static.list())]

    def find_pod(self, namespace: str, name: str) -> Object | None:
        """One of them."""
        pod = self._static.find(namespace, name) or self._pods.get(namespace, name)
        return None if pod is None else self._newest(pod)

    def _newest(self, pod: Object) -> Object:
        newest = self._parts.statuses.newest(pod)
        # A static pod's status is its mirror's, but what runs bears its own name.
        return {**pod, "status": newest.get("status")} if mirrors(newest) else newest

    def places(self, uid: str) -> Mapping[str, Place]:
        """Where the volumes of one of them are."""
        worker = self._workers.get(uid)
        return {} if worker is None else worker.places
