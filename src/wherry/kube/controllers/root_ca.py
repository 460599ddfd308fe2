"""Root CA publisher: every namespace has the authority that vouches for the API server.

Pods find it, with their token, under ``/var/run/secrets/kubernetes.io/serviceaccount/ca.crt``.
"""

from __future__ import annotations

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import CONFIG_MAPS, NAMESPACES
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, namespace_is_leaving

NAME = "kube-root-ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal "
    "endpoints such as the internal service IP or kubernetes.default.svc. "
    "No other usage is guaranteed across distributions of Kubernetes clusters."
)


def wanted(namespace: Object, present: Object | None, root_ca: str) -> Object | None:
    """The ConfigMap to write in ``namespace``, or None where it is right."""
    if meta.is_deleting(namespace):
        return None
    metadata: Object = {"name": NAME, "namespace": meta.name(namespace)}
    annotations: dict[str, str] = {}
    if present is not None:
        if present.get("data") == {"ca.crt": root_ca}:
            return None
        metadata = present["metadata"]
        annotations = meta.annotations(present)
    annotations = {**annotations, "kubernetes.io/description": _DESCRIPTION}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**metadata, "annotations": annotations},
        "data": {"ca.crt": root_ca},
    }


class RootCAController(Controller):
    """Publishes ``Options.root_ca``, and restores it where it was changed. Keys are namespaces."""

    name = "root-ca-certificate-publisher-controller"
    account = "root-ca-cert-publisher"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.namespaces = self.watch(NAMESPACES)
        self.config_maps = self.watch(CONFIG_MAPS)
        if not self.options.root_ca:
            return
        self.namespaces.add_handlers(on_add=self.enqueue)
        self.config_maps.add_handlers(
            on_update=lambda _, config_map: self._changed(config_map), on_delete=self._changed
        )

    def _changed(self, config_map: Object) -> None:
        if meta.name(config_map) == NAME:
            self.queue.add(meta.namespace(config_map))

    async def sync(self, key: str) -> None:
        namespace = self.namespaces.get(None, key)
        if namespace is None:
            return
        present = self.config_maps.get(key, NAME)
        body = wanted(namespace, present, self.options.root_ca)
        if body is None:
            return
        write = self.client.create if present is None else self.client.update
        try:
            await self.seen(CONFIG_MAPS, await write(CONFIG_MAPS, body))
        except StatusError as error:
            if error.reason != "AlreadyExists" and not namespace_is_leaving(error):
                raise
