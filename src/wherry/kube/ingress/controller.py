"""The loop: what concerns an Ingress changes, a configuration is built, tested, and put in force.

An Ingress that nginx refuses is left out, and told so; all others are served.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    ENDPOINT_SLICES,
    INGRESS_CLASSES,
    INGRESSES,
    SECRETS,
    SERVICES,
)
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.client.recorder import NORMAL, WARNING, EventRecorder
from wherry.kube.ingress import certificates
from wherry.kube.ingress.addresses import Addresses
from wherry.kube.ingress.build import CONTROLLER, World, build, by_age, is_ours, without
from wherry.kube.ingress.model import Configuration
from wherry.kube.ingress.nginx import Nginx, NginxError
from wherry.kube.ingress.render import Settings, render

log = logging.getLogger(__name__)

Object = dict[str, Any]

_BETWEEN_RELOADS = 0.1  # seconds: a burst of changes is one reload
_SERVICE_NAME = "kubernetes.io/service-name"
_DEFAULT_CERTIFICATE = "default.pem"


class IngressController:
    """Serves the Ingresses of a cluster.

    Args:
        client: to write statuses and events.
        informers: those of the process; whoever gives them starts and stops them.
        nginx: the process to drive.
        settings: of the configuration.
        class_name: of the IngressClass that is ours, and of the old annotation.
        addresses: where clients reach us; written into the Ingresses' status.
        own_class: make the IngressClass, the default one, where there is none of ours.
        default_certificate: the Secret (``namespace/name``) for hosts that have none.
    """

    def __init__(
        self,
        client: Client,
        informers: SharedInformers,
        nginx: Nginx,
        settings: Settings,
        *,
        class_name: str = "nginx",
        addresses: Addresses,
        own_class: bool = True,
        default_certificate: str = "",
    ) -> None:
        self._client = client
        self._nginx = nginx
        self._settings = settings
        self._class_name = class_name
        self._addresses = addresses
        self._own_class = own_class
        self._default_certificate = default_certificate
        self._watched: int | None = None
        self._recorder = EventRecorder(client, "nginx-ingress-controller")
        self._changed = asyncio.Event()
        self._text = ""
        self._told: dict[str, list[str]] = {}
        self._synced: set[str] = set()
        self.ingresses = informers.informer(INGRESSES)
        self.classes = informers.informer(INGRESS_CLASSES)
        self.services = informers.informer(SERVICES)
        self.secrets = informers.informer(SECRETS)
        self.slices = informers.informer(ENDPOINT_SLICES)
        self.slices.add_indexer("service", lambda slice_: (_service_of(slice_),))
        self._informers = (
            self.ingresses,
            self.classes,
            self.services,
            self.secrets,
            self.slices,
        )
        for informer in self._informers:
            informer.add_handlers(
                on_add=self._touch,
                on_update=lambda _old, new: self._touch(new),
                on_delete=self._touch,
            )

    def _touch(self, _: Object) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled; nginx goes on then.

        Raises:
            NginxError: nginx does not start, as when somebody else has a port.
        """
        self._nginx.prepare()
        self._recorder.start()
        try:
            await asyncio.gather(*(informer.wait_synced() for informer in self._informers))
            await self._addresses.follow(self._touch)
            if self._own_class:
                await self._ensure_class()
            self._changed.set()
            backoff = Backoff(0.5, 30)
            while True:
                await self._changed.wait()
                self._changed.clear()
                try:
                    await self._reconcile()
                except (StatusError, ConnectionError, NginxError) as error:
                    if isinstance(error, NginxError) and not self._text:
                        raise
                    delay = backoff.next()
                    log.warning("trying again in %.1f s: %s", delay, error)
                    self._changed.set()
                    await asyncio.sleep(delay)
                else:
                    backoff.reset()
                    await asyncio.sleep(_BETWEEN_RELOADS)
        finally:
            self._forget_nginx()
            await self._addresses.stop()
            await self._recorder.stop()

    async def _ensure_class(self) -> None:
        """Without any class of ours make one, the default."""
        if any((c.get("spec") or {}).get("controller") == CONTROLLER for c in self.classes.list()):
            return
        default = {"ingressclass.kubernetes.io/is-default-class": "true"}
        body = {
            "apiVersion": INGRESS_CLASSES.api_version,
            "kind": INGRESS_CLASSES.kind,
            "metadata": {"name": self._class_name, "annotations": default},
            "spec": {"controller": CONTROLLER},
        }
        try:
            await self._client.create(INGRESS_CLASSES, body)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise

    def _world(self) -> World:
        classes = self.classes.list()
        return World(
            [i for i in self.ingresses.list() if is_ours(i, classes, self._class_name)],
            self.services.get,
            lambda namespace, name: self.slices.by_index("service", f"{namespace}/{name}"),
            self.secrets.get,
            self._default_certificate,
        )

    async def _reconcile(self) -> None:
        world = self._world()
        configuration, text = await self._acceptable(world)
        if text != self._text or self._nginx.pid is None:
            await self._nginx.apply(text)
            self._text = text
            kept = {**configuration.files, _DEFAULT_CERTIFICATE: b""}
            await asyncio.to_thread(self._nginx.drop_files, kept)
            self._nginx.retire()
        self._watch_nginx()
        self._tell(world, configuration)
        for ingress in world.ingresses:
            await self._report(ingress)

    async def _acceptable(self, world: World) -> tuple[Configuration, str]:
        """A configuration that nginx takes; Ingresses that it refuses are left out."""
        configuration = build(world)
        text = await self._written(configuration)
        if text == self._text:
            return configuration, text
        refused: dict[str, str] = {}
        rest = world
        while await self._nginx.test(text):
            culprit, said = await self._culprit(rest)
            refused[culprit] = said
            rest = without(world, refused)
            configuration = build(rest)
            text = await self._written(configuration)
        for key, said in refused.items():
            configuration.complain(key, f"nginx refuses it: {said}")
        return configuration, text

    async def _culprit(self, world: World) -> tuple[str, str]:
        """The oldest Ingress that nginx does not take beside those before it, and what it says.

        Raises:
            NginxError: it takes no configuration at all.
        """
        ordered = by_age(world.ingresses)

        async def judge(count: int) -> str:
            part = build(replace(world, ingresses=ordered[:count]))
            return await self._nginx.test(await self._written(part))

        if said := await judge(0):
            raise NginxError(said)
        taken, refused = 0, len(ordered)
        said = ""
        while refused - taken > 1 or not said:
            middle = max(taken + 1, (taken + refused) // 2)
            found = await judge(middle)
            if found:
                refused, said = middle, found
            elif middle == refused:
                raise NginxError("nginx has changed its mind")
            else:
                taken = middle
        return meta.key(ordered[refused - 1]), said

    async def _written(self, configuration: Configuration) -> str:
        """The text of a configuration whose files are there."""
        files = dict(configuration.files)
        if not self._nginx.has_file(_DEFAULT_CERTIFICATE):
            files[_DEFAULT_CERTIFICATE] = await asyncio.to_thread(certificates.default)
        await asyncio.to_thread(self._nginx.keep_files, files)
        return render(configuration, self._settings)

    # -- telling

    def _tell(self, world: World, configuration: Configuration) -> None:
        """Events: what is wrong with an Ingress, once; that it is served."""
        present = {meta.key(ingress): ingress for ingress in world.ingresses}
        self._told = {key: told for key, told in self._told.items() if key in present}
        self._synced &= present.keys()
        for key, ingress in present.items():
            problems = configuration.problems.get(key, [])
            for problem in problems:
                if problem not in self._told.get(key, ()):
                    self._recorder.event(INGRESSES, ingress, WARNING, "Rejected", problem)
            self._told[key] = problems
            if key not in self._synced:
                self._synced.add(key)
                self._recorder.event(INGRESSES, ingress, NORMAL, "Sync", "Scheduled for sync")

    async def _report(self, ingress: Object) -> None:
        status = {"loadBalancer": {"ingress": self._addresses.current()}}
        if (ingress.get("status") or {}) == status or not status["loadBalancer"]["ingress"]:
            return
        try:
            await self._client.update_status(INGRESSES, {**ingress, "status": status})
        except StatusError as error:
            if error.code not in (404, 409):
                raise

    # -- the process

    def _watch_nginx(self) -> None:
        """Have an nginx that ends started again at once."""
        pid = self._nginx.pid
        if pid is None or self._watched is not None:
            return
        try:
            self._watched = os.pidfd_open(pid)
        except ProcessLookupError:
            self._changed.set()
            return
        asyncio.get_running_loop().add_reader(self._watched, self._nginx_ended)

    def _nginx_ended(self) -> None:
        log.warning("nginx has ended: starting it again")
        self._forget_nginx()
        self._changed.set()

    def _forget_nginx(self) -> None:
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None


def _service_of(slice_: Object) -> str:
    return f"{meta.namespace(slice_)}/{meta.labels(slice_).get(_SERVICE_NAME, '')}"
