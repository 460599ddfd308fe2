"""A whole kubelet on a fake API server and a fake runtime."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable
from typing import Any

from fake_api import FakeAPI, _parse
from fake_runtime import FakeRuntime

from wherry.kube.api import meta
from wherry.kube.api.patch import strategic_merge_patch
from wherry.kube.api.resources import EVENTS, NODES, PODS
from wherry.kube.client.client import STRATEGIC_MERGE_PATCH, Client
from wherry.kube.kubelet.kubelet import Kubelet, KubeletConfig

NODE = "one"


class API(FakeAPI):
    """The fake API with real strategic merge patches, and a node controller of one line."""

    pod_cidr = "10.244.0.0/24"  # of new nodes; empty: they have none yet

    async def request(self, method, path, *, query=(), body=None, content_type="application/json"):
        if content_type == STRATEGIC_MERGE_PATCH:
            resource, namespace, name, _subresource = _parse(path)
            current = self.objects.get((resource, namespace, name))
            if current is not None:
                body = copy.deepcopy(strategic_merge_patch(resource, current, body))
                body["metadata"].pop("resourceVersion", None)
                self.requests.append(("PATCH", path))
                method = "PUT"
        if method == "POST" and path == "/api/v1/nodes":
            body = {**body, "spec": {"podCIDR": self.pod_cidr} if self.pod_cidr else {}}
        return await super().request(
            method, path, query=query, body=body, content_type=content_type
        )


class NodeUnderTest:
    """``async with NodeUnderTest(tmp_path) as node``; ``restart`` kills and starts the kubelet."""

    def __init__(self, directory, *, images=("web:1", "web:2")) -> None:
        self.api = API()
        self.runtime = FakeRuntime(images=images)
        self.client = Client(self.api)
        self.config = KubeletConfig(
            node_name=NODE,
            node_ip="192.0.2.9",
            root_dir=directory / "kubelet",
            pod_logs=directory / "pods",
            port=0,
            tls_cert=directory / "none",
            tls_key=directory / "none",
            client_ca=directory / "none",
            allowed_client="api",
        )
        self.options: dict[str, Any] = {}
        self.why_not = ""  # it is Ready, as the kubelet says when it begins
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> NodeUnderTest:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self.api.assert_untouched()

    async def start(self) -> None:
        ready = asyncio.Event()

        def begun(why_not: str) -> None:
            self.why_not = why_not
            ready.set()

        kubelet = Kubelet(self.config, self.client, self.runtime, on_ready=begun, **self.options)

        async def nothing() -> None:
            return

        kubelet._server.start = nothing  # the port and its certificates have tests of their own
        self._task = asyncio.create_task(kubelet.run())
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait((self._task, waiting), return_when=asyncio.FIRST_COMPLETED, timeout=60)
        if self._task.done():
            self._task.result()
        assert ready.is_set()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def run(self, pod: dict[str, Any]) -> dict[str, Any]:
        return await self.client.create(PODS, pod)

    def pod(self, name: str = "web") -> dict[str, Any] | None:
        return self.api.get(PODS, name, "default")

    def node(self) -> dict[str, Any] | None:
        return self.api.get(NODES, NODE)

    def events(self) -> list[tuple[str, str]]:
        return [(e["reason"], e["message"]) for e in self.api.find(EVENTS)]

    async def until(self, what: Callable[[], Any], timeout: float = 60.0) -> Any:
        """Wait until ``what`` holds; looks whenever something may have changed."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            with contextlib.suppress(KeyError, TypeError, IndexError, ValueError):
                if result := what():
                    return result
            if asyncio.get_running_loop().time() > deadline:
                pod = self.pod()
                raise AssertionError(f"not so after {timeout} s; pod: {pod and pod.get('status')}")
            await asyncio.sleep(0.005)

    async def settle(self) -> None:
        """Wait until nothing has been written for a while, in which everybody has had many turns.

        (A process that stood still has let time pass and nobody act.)
        """
        revision, turns = -1, 0
        while turns < 50:
            turns = turns + 1 if revision == self.api.revision else 0
            revision = self.api.revision
            await asyncio.sleep(0.002)

    async def until_ready(self, name: str = "web") -> dict[str, Any]:
        await self.until(lambda: condition(self.pod(name), "Ready") == "True")
        pod = self.pod(name)
        assert pod is not None
        return pod


def make_pod(name: str = "web", **spec: Any) -> dict[str, Any]:
    spec.setdefault("containers", [container()])
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": NODE, "restartPolicy": "Always", **spec},
    }


def container(name: str = "web", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "web:1", **fields}


def condition(pod: dict[str, Any] | None, kind: str) -> str | None:
    conditions = ((pod or {}).get("status") or {}).get("conditions") or ()
    return next((c["status"] for c in conditions if c["type"] == kind), None)


def state(pod: dict[str, Any] | None, name: str = "web") -> dict[str, Any]:
    statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or ()
    return next((s for s in statuses if s["name"] == name), {})


def deleting(pod: dict[str, Any] | None) -> bool:
    return pod is not None and meta.is_deleting(pod)
