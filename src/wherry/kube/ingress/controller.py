"""The loop: what concerns an Ingress changes, a configuration is built, tested, and put in force.

An Ingress that nginx refuses is left out, and told so; all others are served.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from wherry.host.tasks import run_until
from wherry.kube.api import meta
from wherry.kube.api.endpoint_slices import service_key
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    INGRESS_CLASSES,
    INGRESSES,
    SECRETS,
    SERVICES,
)
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer, SharedInformers
from wherry.kube.client.recorder import NORMAL, WARNING, EventRecorder
from wherry.kube.ingress import certificates, statuses
from wherry.kube.ingress.addresses import Addresses
from wherry.kube.ingress.build import build
from wherry.kube.ingress.flags import Options
from wherry.kube.ingress.leadership import Leadership
from wherry.kube.ingress.model import Configuration
from wherry.kube.ingress.nginx import Nginx, NginxError
from wherry.kube.ingress.render import render
from wherry.kube.ingress.settings import Settings
from wherry.kube.ingress.world import CONTROLLER, World, by_age, is_ours, without

log = logging.getLogger(__name__)

Object = dict[str, Any]

_BETWEEN_RELOADS = 0.1  # seconds: a burst of changes is one reload
_DEFAULT_CERTIFICATE = "default.pem"


class IngressController:
    """Serves the Ingresses of a cluster.

    Args:
        client: to write statuses and events.
        informers: those of the process; whoever gives them starts and stops them.
        nginx: the process to drive.
        settings: of the configuration.
        addresses: where clients reach us; written into the Ingresses' status.
        leadership: whether it is we who write that; without one it is.
        own_class: make the IngressClass, the default one, where there is none of ours.
        options: the controller's own.
    """

    def __init__(
        self,
        client: Client,
        informers: SharedInformers,
        nginx: Nginx,
        settings: Settings,
        *,
        addresses: Addresses,
        leadership: Leadership | None = None,
        own_class: bool = True,
        options: Options | None = None,
    ) -> None:
        self._client = client
        self._nginx = nginx
        self._settings = settings
        self._addresses = addresses
        self._leadership = leadership or Leadership()
        self._own_class = own_class
        self._options = options or Options()
        self._watched: int | None = None
        self._recorder = EventRecorder(client, "nginx-ingress-controller")
        self._changed = asyncio.Event()
        self._text = ""
        self._told: dict[str, list[str]] = {}
        self._told_of_config: list[str] = []
        self._synced: set[str] = set()
        self._refused: set[str] = set()
        self.ingresses = informers.informer(INGRESSES)
        self.classes = informers.informer(INGRESS_CLASSES)
        self.services = informers.informer(SERVICES)
        self.secrets = informers.informer(SECRETS)
        self.slices = informers.informer(ENDPOINT_SLICES)
        self.slices.add_indexer("service", lambda slice_: (service_key(slice_),))
        namespace, _, name = self._options.configmap.partition("/")
        # (Without a name it finds nothing.)
        self.config = Informer(
            client,
            CONFIG_MAPS,
            namespace=namespace or None,
            field_selector=f"metadata.name={name}",
        )
        self._informers = (
            self.ingresses,
            self.classes,
            self.services,
            self.secrets,
            self.slices,
            self.config,
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
        leading = self._leadership.run(self._changed.set)
        await run_until(asyncio.Event(), self._serve(), leading)

    async def _serve(self) -> None:
        self._nginx.prepare()
        self._settings = replace(self._settings, version=await self._nginx.version())
        self._recorder.start()
        self.config.start()
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
            await self.config.stop()
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
            "metadata": {"name": self._options.ingress_class, "annotations": default},
            "spec": {"controller": CONTROLLER},
        }
        try:
            await self._client.create(INGRESS_CLASSES, body)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise

    def ours(self) -> list[Object]:
        """The Ingresses that we serve."""
        classes, named = self.classes.list(), self._options.ingress_class
        return [i for i in self.ingresses.list() if is_ours(i, classes, named)]

    def _world(self) -> World:
        config = next(iter(self.config.list()), {})
        return World(
            self.ours(),
            self.services.get,
            lambda namespace, name: self.slices.by_index("service", f"{namespace}/{name}"),
            self.secrets.get,
            self._options.default_ssl_certificate,
            self._options.default_backend_service,
            config.get("data") or {},
        )

    async def _reconcile(self) -> None:
        world = self._world()
        configuration, text = await self._acceptable(world)
        if text != self._text:
            self._warn(configuration)
        if text != self._text or self._nginx.pid is None:
            await self._nginx.apply(text)
            self._text = text
            kept = {**configuration.files, _DEFAULT_CERTIFICATE: b""}
            await asyncio.to_thread(self._nginx.drop_files, kept)
            self._nginx.retire()
        self._watch_nginx()
        self._tell(world, configuration)
        await self._report(world.ingresses)

    def _warn(self, configuration: Configuration) -> None:
        """Of what is given to the controller itself."""
        options = self._options
        if options.default_ssl_certificate and not configuration.certificate:
            log.warning("secret %s has no usable certificate", options.default_ssl_certificate)
        if options.default_backend_service and configuration.default_backend is None:
            log.warning("service %s is no default backend", options.default_backend_service)

    async def _acceptable(self, world: World) -> tuple[Configuration, str]:
        """A configuration that nginx takes; Ingresses that it refuses are left out."""
        configuration = build(world)
        text = await self._written(configuration)
        if text == self._text:
            return configuration, text
        said = await self._nginx.test(text)
        unusable = ""
        if said and world.settings:
            unusable = await self._judge(replace(world, ingresses=[]))
            if unusable:  # what is the same for all would have all refused
                world = replace(world, settings={})
                configuration = build(world)
                text = await self._written(configuration)
                said = await self._nginx.test(text)
        refused = await self._still_refused(world, said)
        while said:
            rest = without(world, refused)
            configuration = build(rest)
            text = await self._written(configuration)
            if said := await self._nginx.test(text):
                culprit, reason = await self._culprit(rest)
                refused[culprit] = reason
        for key, reason in refused.items():
            configuration.complain(key, f"nginx refuses it: {reason}")
        if unusable:
            configuration.unusable.append(f"nginx refuses it: {unusable}")
        self._refused = set(refused)
        return configuration, text

    async def _judge(self, world: World) -> str:
        """What nginx has against a world; empty where it has nothing."""
        return await self._nginx.test(await self._written(build(world)))

    async def _still_refused(self, world: World, said: str) -> dict[str, str]:
        """The one that was left out before, where all goes well without it: no need to search."""
        if not said or len(self._refused) != 1:
            return {}
        if await self._judge(without(world, self._refused)):
            return {}
        return dict.fromkeys(self._refused, said)

    async def _culprit(self, world: World) -> tuple[str, str]:
        """The oldest Ingress that nginx does not take beside those before it, and what it says.

        Raises:
            NginxError: it takes no configuration at all.
        """
        ordered = by_age(world.ingresses)

        async def judge(count: int) -> str:
            return await self._judge(replace(world, ingresses=ordered[:count]))

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

    async def _report(self, ingresses: Iterable[Object]) -> None:
        """Write into the statuses where we are reached, for as long as that is ours to do."""
        addresses = self._addresses.current()
        if addresses is None or not self._options.update_status:
            return
        for ingress in ingresses:
            if self._leadership.held:
                await statuses.report(self._client, ingress, addresses)

    def _tell(self, world: World, configuration: Configuration) -> None:
        """Events: what is wrong with an Ingress, or with the settings of all, once; that an
        Ingress is served."""
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
        for config in self.config.list():
            for problem in configuration.unusable:
                if problem not in self._told_of_config:
                    self._recorder.event(CONFIG_MAPS, config, WARNING, "Rejected", problem)
        self._told_of_config = configuration.unusable

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
