"""Static pods: what the files of a directory describe runs, and the API shows it by mirrors.

https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/. The directory is read anew
whenever something in it has changed (inotify). A file that changed is another pod: the former one
ends first. Who deletes a mirror gets another; who removes the file ends the pod.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from wherry.host.inotify import Directory
from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PODS
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.client import Client
from wherry.kube.kubelet.manifests import ManifestFault, mirror_of, mirrors, static_pod

log = logging.getLogger(__name__)

Object = dict[str, Any]
Key = tuple[str, str]  # namespace, name


class StaticPods:
    """The pods of one directory.

    ``on_add`` is called with each that is to run, ``on_remove`` with the uid of each that is to
    end, ``on_mirror`` with a static pod's uid and what stands for it in the API. They run without
    the API; ``synced`` returns when the pods that it has are known.
    """

    def __init__(
        self,
        directory: Path,
        node_name: str,
        client: Client,
        *,
        node: Callable[[], Object | None],
        synced: Callable[[], Awaitable[None]],
        on_add: Callable[[Object], None],
        on_remove: Callable[[str], None],
        on_mirror: Callable[[str, Object], None],
    ) -> None:
        self._directory = directory
        self._node_name = node_name
        self._client = client
        self._node = node
        self._synced = synced
        self._on_add = on_add
        self._on_remove = on_remove
        self._on_mirror = on_mirror
        self._wanted: dict[Key, Object] = {}
        self._running: dict[Key, Object] = {}
        self._mirrors: dict[Key, Object] = {}
        self._due = asyncio.Event()
        self._refused: dict[str, str] = {}

    def find(self, namespace: str, name: str) -> Object | None:
        """The static pod of that name which runs."""
        return self._running.get((namespace, name))

    def list(self) -> list[Object]:
        """The static pods that run."""
        return list(self._running.values())

    async def load(self) -> None:
        """Read the directory, and have begin and end what follows from it."""
        self._wanted = await asyncio.to_thread(self._read)
        for key, pod in list(self._running.items()):
            if meta.uid(self._wanted.get(key, {"metadata": {}})) != meta.uid(pod):
                self._on_remove(meta.uid(pod))
        self._begin()
        self._due.set()

    def _read(self) -> dict[Key, Object]:
        found: dict[Key, Object] = {}
        self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        for path in sorted(self._directory.iterdir()):
            if path.name.startswith(".") or not path.is_file():
                continue
            try:
                pod = static_pod(path.read_bytes(), str(path), self._node_name)
            except (ManifestFault, OSError) as error:
                if self._refused.get(path.name) != str(error):
                    log.error("static pod %s is not run: %s", path, error)
                self._refused[path.name] = str(error)
                continue
            self._refused.pop(path.name, None)
            found.setdefault((meta.namespace(pod), meta.name(pod)), pod)
        return found

    def _begin(self) -> None:
        for key, pod in self._wanted.items():
            if key not in self._running:
                self._running[key] = pod
                self._on_add(pod)

    def gone(self, uid: str) -> None:
        """Nothing is left of a pod that was to end: the next one of its name may begin."""
        for key, pod in list(self._running.items()):
            if meta.uid(pod) == uid:
                del self._running[key]
        self._begin()
        self._due.set()

    def observe(self, pod: Object) -> None:
        """A mirror in the API as it is now."""
        self._mirrors[meta.namespace(pod), meta.name(pod)] = pod
        self._due.set()

    def forget(self, pod: Object) -> None:
        """A mirror is no longer in the API."""
        key = (meta.namespace(pod), meta.name(pod))
        if meta.uid(self._mirrors.get(key, {"metadata": {}})) == meta.uid(pod):
            del self._mirrors[key]
        static = self._running.get(key)
        if static is not None:
            self._on_mirror(meta.uid(static), static)
        self._due.set()

    async def run(self) -> None:
        """Follow the directory until cancelled."""
        never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        keeping = asyncio.create_task(self._keep_mirrors(), name="mirror pods")
        try:
            with Directory(self._directory, content=True) as changes:
                while True:
                    await self.load()
                    await changes.changed_or(never)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _keep_mirrors(self) -> None:
        await self._synced()
        backoff = Backoff(0.1, 10)
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                for key in {*self._running, *self._mirrors}:
                    await self._mirror(key)
                backoff.reset()
            except (StatusError, ConnectionError, TimeoutError) as error:
                log.warning("mirrors of static pods: %s", error)
                await asyncio.sleep(backoff.next())
                self._due.set()

    async def _mirror(self, key: Key) -> None:
        """Have exactly the right mirror of one name."""
        static, mirror = self._running.get(key), self._mirrors.get(key)
        namespace, name = key
        if mirror is not None:
            fits = static is not None and mirrors(mirror) == meta.uid(static)
            if static is not None and fits and not meta.is_deleting(mirror):
                self._on_mirror(meta.uid(static), mirror)
                return
            try:
                await self._client.delete(PODS, name, namespace, uid=meta.uid(mirror), grace=0)
            except StatusError as error:
                if error.code not in (404, 409):
                    raise
            self._mirrors.pop(key, None)
        if static is not None:
            try:
                made = await self._client.create(PODS, mirror_of(static, self._node()))
            except StatusError as error:
                if error.code != 409:
                    raise
                return  # its watch event is on the way
            self._mirrors[key] = made
            self._on_mirror(meta.uid(static), made)
