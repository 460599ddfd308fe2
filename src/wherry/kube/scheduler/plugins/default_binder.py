"""DefaultBinder: tells the API server which node the pod goes to."""

from __future__ import annotations

from wherry.kube.api import meta
from wherry.kube.api.resources import PODS
from wherry.kube.scheduler.framework import Bind, Cycle
from wherry.kube.scheduler.snapshot import PodInfo


class DefaultBinder(Bind):
    name = "DefaultBinder"

    async def bind(self, cycle: Cycle, pod: PodInfo, node: str) -> bool:
        name, namespace = meta.name(pod.object), meta.namespace(pod.object)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod.uid},
            "target": {"kind": "Node", "name": node},
        }
        await self.handle.client.create(PODS, binding, namespace, name=name, subresource="binding")
        return True
