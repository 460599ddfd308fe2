"""Start one container of a pod: image, configuration, creation, start, postStart hook.

Each step that fails leaves a reason by which users know it (``ErrImagePull``,
``CreateContainerConfigError`` …), an event, and a time after which the next try is due.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from wherry.engine.cri.types import (
    ContainerConfig,
    ContainerState,
    CRIError,
    Mount,
    PodSandboxConfig,
)
from wherry.kube.api import meta
from wherry.kube.kubelet import containers, pods, pull_secrets, rounds
from wherry.kube.kubelet.backoff import Backoff, go_duration
from wherry.kube.kubelet.environment import (
    ConfigError,
    PodFacts,
    container_environment,
    service_variables,
)
from wherry.kube.kubelet.hooks import Target
from wherry.kube.kubelet.images import ImageError, Present
from wherry.kube.kubelet.manifests import is_static
from wherry.kube.kubelet.parts import Parts
from wherry.kube.kubelet.view import PodRuntime
from wherry.kube.kubelet.volumes import subpath
from wherry.kube.kubelet.volumes.manager import devices
from wherry.kube.kubelet.volumes.place import Place

log = logging.getLogger(__name__)

Object = dict[str, Any]
Result = TypeVar("Result")
MAX_ENV_FILE = 1 << 20  # bytes
RETRY = 10.0  # seconds until a container that could not be made is tried again


class Guard(Protocol):
    """Waits for something that may take long, unless the pod is to end meanwhile (then it raises).

    The quick steps are never given up half way, so that nothing half made is left behind.
    """

    async def __call__(self, work: Awaitable[Result]) -> Result: ...


class StartFailed(Exception):
    """The container does not run; ``reason`` and ``message`` are its waiting state.

    ``retry_after`` seconds it is tried again; None: when something of the pod changes.
    """

    def __init__(self, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class Starter:
    """Starts the containers of one pod and remembers how that went."""

    def __init__(self, parts: Parts, unless_leaving: Guard) -> None:
        self._parts = parts
        self._unless_leaving = unless_leaving
        self._backoff = Backoff(longest=parts.config.settings.max_restart_backoff)
        self._failed_at: dict[str, float] = {}
        self._told_of: dict[str, float] = {}

    async def start(
        self,
        pod: Object,
        container: Object,
        sandbox_id: str,
        sandbox: PodSandboxConfig,
        places: Mapping[str, Place],
        runtime: PodRuntime,
    ) -> str:
        """Start ``container`` in its sandbox; returns the new container's id.

        Raises:
            StartFailed: it could not be started now.
        """
        self._hold_back(pod, container, runtime)
        present = await self._image(pod, container)
        attempt = _next_attempt(pod, container, runtime)
        try:
            config = await self._configure(pod, container, attempt, present, places, runtime)
        except ConfigError as error:
            self._tell(pod, container, "Warning", "Failed", f"Error: {error}")
            raise StartFailed("CreateContainerConfigError", str(error), RETRY) from error
        try:
            id_ = await self._parts.runtime.create_container(sandbox_id, config, sandbox)
        except CRIError as error:
            reason = error.reason or "CreateContainerError"
            profile = config.security.seccomp_profile
            if profile is not None and not profile.exists():
                self._parts.awaited.path(meta.uid(pod), profile)
            self._note_failure(pod, container, reason)
            self._tell(pod, container, "Warning", "Failed", f"Error: {error.message}")
            raise StartFailed(reason, error.message, RETRY) from error
        self._tell(pod, container, "Normal", "Created", "Container created")
        try:
            await self._parts.runtime.start_container(id_)
        except CRIError as error:
            reason = error.reason or "RunContainerError"
            self._note_failure(pod, container, reason)
            self._tell(pod, container, "Warning", "Failed", f"Error: {error.message}")
            await self._parts.view.refresh_container(id_)
            # The first retry is immediate, as for any container that ended.
            raise StartFailed(reason, error.message, 0.0) from error
        self._tell(pod, container, "Normal", "Started", "Container started")
        self._parts.metrics.started_containers.add((pods.kind_of(pod, container),))
        self._failed_at.pop(container["name"], None)
        await self._parts.view.refresh_container(id_)
        started = self._parts.view.container(id_)
        if started is not None:
            self._parts.logs.link(pod, container["name"], started)
        await self._post_start(pod, container, id_, runtime)
        await self._prune(container, meta.uid(pod))
        return id_

    def _tell(self, pod: Object, container: Object, type_: str, reason: str, text: str) -> None:
        self._parts.tell_of(pod, container, type_, reason, text)

    def _note_failure(self, pod: Object, container: Object, reason: str) -> None:
        self._parts.metrics.container_errors.add((reason, pods.kind_of(pod, container)))
        self._failed_at[container["name"]] = time.time()

    def _hold_back(self, pod: Object, container: Object, runtime: PodRuntime) -> None:
        """Refuse while a container that keeps ending must wait; count this try otherwise."""
        name = container["name"]
        status = runtime.latest(name)
        failed_at = self._failed_at.get(name, 0.0)
        if status is not None and status.state is ContainerState.EXITED:
            failed_at = max(failed_at, status.finished_at / 10**9)
        if not failed_at:
            return
        key = (name, pods.container_hash(container))
        now = time.time()
        remaining = self._backoff.remaining(key, failed_at, now)
        if remaining <= 0:
            self._backoff.next(key, failed_at, now)
            return
        described = pods.describe(pod)
        if self._told_of.get(name) != failed_at:
            self._told_of[name] = failed_at
            text = f"Back-off restarting failed container {name} in pod {described}"
            self._tell(pod, container, "Warning", "BackOff", text)
        delay = go_duration(self._backoff.delay(key))
        raise StartFailed(
            "CrashLoopBackOff",
            f"back-off {delay} restarting failed container={name} pod={described}",
            remaining,
        )

    async def _image(self, pod: Object, container: Object) -> Present:
        def tell(type_: str, reason: str, text: str) -> None:
            self._tell(pod, container, type_, reason, text)

        try:
            known, missing = pull_secrets.of_pod(pod, self._secret(pod))
            return await self._unless_leaving(
                self._parts.images.ensure(pod, container, tell, known, missing)
            )
        except ImageError as error:
            self._parts.awaited.image(meta.uid(pod))
            tell("Warning", "Failed", f"Error: {error.reason}")
            raise StartFailed(error.reason, error.message, error.retry_after) from error

    def _secret(self, pod: Object) -> Callable[[str], Mapping[str, bytes] | None]:
        namespace = meta.namespace(pod)
        return lambda name: self._parts.objects.data("Secret", namespace, name)

    async def _configure(
        self,
        pod: Object,
        container: Object,
        attempt: int,
        present: Present,
        places: Mapping[str, Place],
        runtime: PodRuntime,
    ) -> ContainerConfig:
        parts = self._parts
        namespace = meta.namespace(pod)
        if not is_static(pod):  # which may be what serves the API
            await self._unless_leaving(parts.services_synced())
        links = pod["spec"].get("enableServiceLinks") is not False
        environment = container_environment(
            pod,
            container,
            self.facts(pod, runtime),
            services=service_variables(parts.services(), namespace, links=links),
            lookup=lambda kind, name: parts.objects.data(kind, namespace, name),
            read_file=lambda volume, path: _read_file(places, volume, path),
        )
        mounts = await asyncio.to_thread(
            self._mounts, pod, container, attempt, places, environment, runtime
        )
        return containers.container_config(
            pod,
            container,
            attempt,
            image=present.id,
            environment=environment,
            mounts=mounts,
            image_user=present.user,
            memory_capacity=parts.memory_capacity,
            seccomp_root=parts.config.seccomp_root,
            seccomp_default=parts.config.settings.seccomp_default,
            target=self._target(container, runtime),
            devices=devices(container, places),
            settings=parts.config.settings,
            page_sizes=parts.page_sizes,
            round_=rounds.next_number(pod, runtime),
        )

    def _target(self, container: Object, runtime: PodRuntime) -> str:
        """The id of the container that an ephemeral one looks at, if it names one.

        Raises:
            ConfigError: that one does not run.
        """
        name = container.get("targetContainerName") or ""
        if not name:
            return ""
        target = runtime.latest(name)
        if target is None or target.state is not ContainerState.RUNNING:
            raise ConfigError(f'unable to find target container "{name}"')
        return target.id

    def facts(self, pod: Object, runtime: PodRuntime) -> PodFacts:
        """What the downward API may tell the pod."""
        host_ips = self._parts.config.node_ips
        ips = host_ips if pods.is_host_network(pod) else runtime.ips
        return PodFacts(host_ips, ips, self._parts.allocatable)

    def _mounts(
        self,
        pod: Object,
        container: Object,
        attempt: int,
        places: Mapping[str, Place],
        environment: Mapping[str, str],
        runtime: PodRuntime,
    ) -> list[Mount]:
        """The container's mounts: volumes, ``/etc/hosts``, the file for its last words."""
        parts = self._parts
        result = parts.volumes.container_mounts(pod, container, places, environment)
        taken = {mount.container_path for mount in result}
        directory = parts.volumes.pod_directory(meta.uid(pod))
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        if "/etc/hosts" not in taken:
            hosts = directory / "etc-hosts"
            name, domain = containers.hostname(
                pod, parts.config.node_name, parts.config.cluster_domain
            )
            content = containers.hosts_file(
                pod, runtime.ips, name, domain, Path("/etc/hosts").read_bytes()
            )
            hosts.write_bytes(content)
            hosts.chmod(0o644)
            result.append(Mount("/etc/hosts", hosts))
        message_path = container.get("terminationMessagePath")
        if message_path and message_path not in taken:
            file = containers.message_file(directory, container["name"], attempt)
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            file.touch()
            file.chmod(0o666)
            result.append(Mount(message_path, file))
        return result

    async def _post_start(
        self, pod: Object, container: Object, id_: str, runtime: PodRuntime
    ) -> None:
        handler = (container.get("lifecycle") or {}).get("postStart")
        if not handler:
            return
        ip = (runtime.ips or ("",))[0]
        if pods.is_host_network(pod):
            ip = self._parts.config.node_ip
        target = Target(id_, ip, container.get("ports") or ())
        answer = await self._unless_leaving(self._parts.asker.ask(handler, target, 0))
        if answer.ok:
            return
        text = f"PostStartHook failed: {answer.output}" if answer.output else "PostStartHook failed"
        self._tell(pod, container, "Warning", "FailedPostStartHook", text)
        self._note_failure(pod, container, "PostStartHookError")
        message = "FailedPostStartHook"
        self._tell(pod, container, "Normal", "Killing", message)
        await self._parts.runtime.stop_container(id_, pods.grace_period(pod))
        await self._parts.view.refresh_container(id_)
        raise StartFailed("PostStartHookError", text, 0.0)

    async def _prune(self, container: Object, uid: str) -> None:
        """Of the incarnations that have ended only the last one is kept."""
        for old in self._parts.view.pod(uid).named(container["name"])[2:]:
            if old.state is ContainerState.RUNNING:
                continue
            await self._parts.runtime.remove_container(old.id)
            await self._parts.view.refresh_container(old.id)
            self._parts.logs.remove_container(old)


def _read_file(places: Mapping[str, Place], volume: str, path: str) -> bytes | None:
    place = places.get(volume)
    if place is None or place.image or place.device:
        raise ConfigError(f'cannot find the volume "{volume}" referenced by FileKeyRef')
    try:
        return subpath.read_file(place.path, path, MAX_ENV_FILE)
    except subpath.SubPathError as error:
        raise ConfigError(f"couldn't parse env file: {error}") from error


def _next_attempt(pod: Object, container: Object, runtime: PodRuntime) -> int:
    """The number of the coming incarnation, also where the runtime has forgotten the former."""
    name = container["name"]
    latest = runtime.latest(name)
    if latest is not None:
        return latest.metadata.attempt + 1
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for told in status.get(kind) or ():
            if told["name"] == name and told.get("containerID"):
                return int(told.get("restartCount") or 0) + 1
    return 0
