"""A fake API server with real controllers on it, and kubelets that exist in name only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from fake_api import FakeAPI
from rights import AsAccount

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import DEPLOYMENTS, NODES, PODS, REPLICA_SETS, Resource
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer
from wherry.kube.client.transport import Object
from wherry.kube.controllers import Options, run_controllers


class Cluster:
    """``async with Cluster(...)``: runs ``controllers``; with ``kubelet``, pods become ready."""

    def __init__(self, *controllers: str, kubelet: bool = True, **options: Any) -> None:
        self.api = FakeAPI()
        self.client = Client(self.api)
        self.options = Options(enabled=controllers or ("*",), **options)
        self.kubelet = kubelet
        self.hold: Callable[[Object], bool] = lambda pod: False
        """Pods for which this is true do not become ready."""
        self.refused: list[str] = []
        """What controllers asked for without having the right to."""
        self._tasks: list[asyncio.Task[Any]] = []
        self._pods = Informer(self.client, PODS)

    async def __aenter__(self) -> Cluster:
        if self.kubelet:
            self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
            self._pods.add_handlers(on_add=self._notice, on_update=lambda _, pod: self._notice(pod))
            self._tasks.append(asyncio.ensure_future(self._live()))
        self._pods.start()
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
        await self._pods.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.api.assert_untouched()
        assert not self.refused

    def start(self) -> None:
        self._running = asyncio.ensure_future(
            run_controllers(
                self.client,
                self.options,
                identity=lambda account: AsAccount(self.api, account, self.refused),
            )
        )

    async def stop(self) -> None:
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running

    async def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until the condition holds; its value."""
        end = asyncio.get_running_loop().time() + seconds
        while not (value := condition()):
            assert asyncio.get_running_loop().time() < end, self.describe()
            await asyncio.sleep(0.001)
        return value

    async def settle(self, quiet: float = 0.05) -> None:
        """Wait until nothing has changed for a while, in which everybody has had many turns.

        (A process that stood still has let time pass and nobody act.)
        """
        revision, turns = -1, 0
        while turns * 0.001 < quiet:
            turns = turns + 1 if revision == self.api.revision else 0
            revision = self.api.revision
            await asyncio.sleep(0.001)

    def describe(self) -> str:
        lines = ["it did not come to pass; there are:"]
        for (resource, namespace, name), object in self.api.objects.items():
            lines.append(f"{resource.plural} {namespace}/{name}: {object.get('status')}")
        return "\n".join(lines)

    def pods(self, namespace: str = "default") -> list[Object]:
        return [p for p in self.api.find(PODS, namespace) if not meta.is_deleting(p)]

    def refresh_pods(self) -> None:
        """Look again at pods that were held back."""
        for pod in self.api.find(PODS):
            self._notice(pod)

    # -- kubelets in name only

    def _notice(self, pod: Object) -> None:
        self._queue.put_nowait((meta.namespace(pod), meta.name(pod)))

    async def _live(self) -> None:
        while True:
            namespace, name = await self._queue.get()
            pod = self.api.get(PODS, name, namespace)
            if pod is None or (finished(pod) and not meta.is_deleting(pod)):
                continue
            with contextlib.suppress(StatusError):
                if meta.is_deleting(pod):
                    await self.client.delete(PODS, name, namespace, grace=0)
                elif not ready(pod) and not self.hold(pod):
                    # Of the state it looked at only: a pod that failed meanwhile stays failed.
                    version = meta.resource_version(pod)
                    patch = {"metadata": {"resourceVersion": version}, "status": READY()}
                    await self.client.patch(PODS, name, patch, namespace, subresource="status")


def READY(**more: Any) -> Object:
    since = meta.now()
    return {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}],
        **more,
    }


def finished(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def deployment(name: str = "web", replicas: int = 3, image: str = "hello:1", **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
            },
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            "template": template(name, image),
            **spec,
        },
    }


def template(app: str = "web", image: str = "hello:1") -> Object:
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "hello", "image": image}]},
    }


def replica_set(name: str = "web", replicas: int = 3, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name),
            **spec,
        },
    }


async def change(cluster: Cluster, resource: Resource, name: str, **spec: Any) -> Object:
    """Merge ``spec`` into the object's spec, as kubectl patch does."""
    return await cluster.client.patch(resource, name, {"spec": spec}, "default")


__all__ = ["DEPLOYMENTS", "NODES", "PODS", "READY", "REPLICA_SETS", "Cluster"]
