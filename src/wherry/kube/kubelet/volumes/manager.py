"""A pod's volumes: made before its containers, kept current while it runs, removed after it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from wherry.engine.cri.types import Device, Mount
from wherry.kube.api import meta
from wherry.kube.kubelet.environment import ConfigError, Lookup, PodFacts, expand
from wherry.kube.kubelet.volumes import (
    atomic,
    empty_dir,
    mounts,
    nfs,
    ownership,
    persistent,
    sources,
)
from wherry.kube.kubelet.volumes.host_path import check_host_path
from wherry.kube.kubelet.volumes.place import Place
from wherry.kube.kubelet.volumes.subpath import SubPathError, mount_subpath

Object = dict[str, Any]
Result = TypeVar("Result")

_DIRECTORIES = {
    "emptyDir": "kubernetes.io~empty-dir",
    "configMap": "kubernetes.io~configmap",
    "secret": "kubernetes.io~secret",
    "downwardAPI": "kubernetes.io~downward-api",
    "projected": "kubernetes.io~projected",
    "nfs": "kubernetes.io~nfs",
}
_FILES = ("configMap", "secret", "downwardAPI", "projected")
_CLAIMS = ("persistentVolumeClaim", "ephemeral")
_VARIABLE = re.compile(r"\$\(([-._A-Za-z][-._A-Za-z0-9]*)\)")
_PROPAGATION = {"None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the volumes of a pod are made from, as far as others must be asked for it.

    ``persistent`` and ``images``: PersistentVolumes and ids of images by the volume's name in the
    pod. What could not be had is missing there, and is told by who asked.
    """

    facts: PodFacts
    lookup: Lookup
    tokens: sources.Tokens
    persistent: Mapping[str, Object] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The places of the volumes that are there, by name, and what is wrong with others.

    A volume may be in both: it is there, but could not be brought up to date.
    """

    places: dict[str, Place]
    faults: list[str]

    def complete(self, pod: Object) -> bool:
        """Whether all volumes of the pod are there."""
        return all(v["name"] in self.places for v in pod["spec"].get("volumes") or ())


class Volumes:
    """The volumes of all pods, below ``root/pods/<uid>/volumes``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._owned: set[tuple[str, str]] = set()  # (pod, volume) whose files have their group
        self._alone: dict[str, str] = {}  # the pod that has a volume for itself, by its name

    def pod_directory(self, uid: str) -> Path:
        """All that the kubelet keeps for a pod."""
        return self._root / "pods" / uid

    def known_pods(self) -> list[str]:
        """The uids for which there is a directory, from this life of the kubelet or a former."""
        directory = self._root / "pods"
        return [entry.name for entry in directory.iterdir()] if directory.is_dir() else []

    def needs_refresh(self, pod: Object) -> bool:
        """Whether the pod has volumes whose content may change while it runs."""
        return any(v.get(kind) for v in pod["spec"].get("volumes") or () for kind in _FILES)

    async def prepare(self, pod: Object, inputs: Inputs) -> Prepared:
        """Make the pod's volumes, or bring them up to date.

        When it is given up half way, nothing of it goes on.
        """
        directory = self.pod_directory(meta.uid(pod))
        result = Prepared({}, [])

        def make() -> None:
            directory.mkdir(parents=True, exist_ok=True, mode=0o750)
            for volume in pod["spec"].get("volumes") or ():
                if _server(volume, inputs) is None:
                    self._attempt(pod, volume, inputs, result)

        await _in_thread(make)
        for volume in pod["spec"].get("volumes") or ():
            if source := _server(volume, inputs):
                await self._mount_nfs(pod, volume, source, inputs, result)
        return result

    async def remove(self, uid: str) -> None:
        """Unmount and delete all that is kept for a pod.

        Raises:
            OSError: something resists; nothing behind a mount was touched.
        """
        await asyncio.to_thread(mounts.remove_tree, self.pod_directory(uid))
        self._owned = {key for key in self._owned if key[0] != uid}
        self._alone = {name: user for name, user in self._alone.items() if user != uid}

    # in containers

    def container_mounts(
        self,
        pod: Object,
        container: Object,
        places: Mapping[str, Place],
        environment: Mapping[str, str],
    ) -> list[Mount]:
        """The volume mounts of ``container`` (blocking where there are sub paths).

        Raises:
            ConfigError: one names no volume, or a sub path that cannot be had.
        """
        result = []
        for index, wanted in enumerate(container.get("volumeMounts") or ()):
            place = _place(container, wanted["name"], places, "mount into")
            if place.device:
                raise ConfigError(f"volume {_quote(wanted['name'])} is a block device")
            sub_path = wanted.get("subPath") or ""
            if wanted.get("subPathExpr"):
                sub_path = _expanded(wanted["subPathExpr"], environment)
            _check_sub_path(sub_path)
            path = place.path
            if sub_path and not place.image:
                path = self._sub_path(pod, container, wanted["name"], path, sub_path, index)
            destination = wanted["mountPath"]
            readonly = bool(wanted.get("readOnly")) or place.readonly
            recursive = wanted.get("recursiveReadOnly") or "Disabled"
            result.append(
                Mount(
                    container_path=destination if destination[0] == "/" else f"/{destination}",
                    host_path=path,
                    readonly=readonly,
                    propagation=_PROPAGATION[wanted.get("mountPropagation") or "None"],
                    recursive_readonly=readonly and recursive != "Disabled",
                    image=place.image,
                    image_sub_path=sub_path if place.image else "",
                )
            )
        return result

    def _sub_path(
        self, pod: Object, container: Object, name: str, place: Path, sub_path: str, index: int
    ) -> Path:
        directory = self.pod_directory(meta.uid(pod)) / "volume-subpaths"
        target = Path(directory, name, container["name"], str(index))
        try:
            mount_subpath(place, sub_path, target)
        except (SubPathError, OSError) as error:
            raise ConfigError(
                f"failed to prepare subPath for volumeMount {_quote(name)} of container "
                f"{_quote(container['name'])}: {error}"
            ) from error
        return target

    # one volume

    def _attempt(self, pod: Object, volume: Object, inputs: Inputs, result: Prepared) -> None:
        """Make one volume; what is wrong is told in ``result``."""
        name = volume["name"]
        if volume.get("image") is not None:
            if name in inputs.images:
                result.places[name] = Place(Path(), readonly=True, image=inputs.images[name])
            return
        if _is_claim(volume) and name not in inputs.persistent:
            return
        former = self._former(pod, volume)
        try:
            result.places[name] = self._make(pod, volume, inputs)
        except (ConfigError, atomic.InvalidPath, OSError) as error:
            result.faults.append(_fault(volume, inputs, error))
            if former is not None:
                result.places[name] = former

    def _former(self, pod: Object, volume: Object) -> Place | None:
        """Where its files were written before; they stay when new ones cannot be had."""
        kind = next((kind for kind in _FILES if volume.get(kind) is not None), None)
        if kind is None:
            return None
        place = self._own_place(pod, kind, volume["name"])
        there = (place / atomic.DATA).is_symlink()
        return Place(place, readonly=True) if there else None

    def _own_place(self, pod: Object, kind: str, name: str) -> Path:
        return Path(self.pod_directory(meta.uid(pod)), "volumes", _DIRECTORIES[kind], name)

    def _make(self, pod: Object, volume: Object, inputs: Inputs) -> Place:
        name = volume["name"]
        if volume.get("hostPath"):
            return Place(check_host_path(volume["hostPath"]))
        if name in inputs.persistent:
            return self._persistent(pod, volume, inputs.persistent[name])
        if volume.get("emptyDir") is not None:
            place = self._own_place(pod, "emptyDir", name)
            empty_dir.prepare(pod, volume["emptyDir"], place)
            return Place(place)
        files = sources.payload(pod, volume, inputs.facts, inputs.lookup, inputs.tokens)
        if files is None:
            raise ConfigError(persistent.no_driver(volume))
        kind = next(kind for kind in _FILES if volume.get(kind) is not None)
        place = self._own_place(pod, kind, name)
        place.mkdir(parents=True, exist_ok=True, mode=0o750)
        if kind in ("secret", "projected") and not mounts.is_mounted(place):
            mounts.mount_tmpfs(place)  # what is secret never reaches the disk
        place.chmod(0o755)
        atomic.write(place, files)
        return Place(place, readonly=True)

    def _persistent(self, pod: Object, volume: Object, found: Object) -> Place:
        readonly = bool((volume.get("persistentVolumeClaim") or {}).get("readOnly"))
        uid = meta.uid(pod)
        alone = persistent.ONE_POD in (found["spec"].get("accessModes") or ())
        if alone and self._alone.setdefault(meta.name(found), uid) != uid:
            raise ConfigError(persistent.IN_USE)
        place = persistent.directory(found, readonly=readonly)
        security = pod["spec"].get("securityContext") or {}
        group = security.get("fsGroup")
        key = (uid, volume["name"])
        if group is None or readonly or key in self._owned:
            return place
        if persistent.takes_group(found):
            policy = security.get("fsGroupChangePolicy") or "Always"
            ownership.give(place.path, group, policy=policy)
            self._owned.add(key)
        return place

    async def _mount_nfs(
        self, pod: Object, volume: Object, source: Object, inputs: Inputs, result: Prepared
    ) -> None:
        found = inputs.persistent.get(volume["name"])
        claimed = volume.get("persistentVolumeClaim") or {}
        readonly = bool(source.get("readOnly") or claimed.get("readOnly"))
        options = (found or {"spec": {}})["spec"].get("mountOptions") or ()
        name = volume["name"] if found is None else meta.name(found)
        target = self._own_place(pod, "nfs", name)
        try:
            await nfs.mount(source, target, options, readonly=readonly)
        except (ConfigError, OSError) as error:
            result.faults.append(_fault(volume, inputs, error))
        else:
            result.places[volume["name"]] = Place(target, readonly)


async def _in_thread(work: Callable[[], Result]) -> Result:
    """``work`` in a thread; who gives up waiting still waits for its end, so that what is removed
    afterwards is not made again."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


def devices(container: Object, places: Mapping[str, Place]) -> list[Device]:
    """The block devices that ``container`` gets of the pod's volumes.

    Raises:
        ConfigError: one names no volume, or one that is no device.
    """
    result = []
    for wanted in container.get("volumeDevices") or ():
        place = _place(container, wanted["name"], places, "map into")
        if not place.device:
            raise ConfigError(f"volume {_quote(wanted['name'])} is not a block device")
        permissions = "r" if place.readonly else "mrw"
        result.append(Device(place.path, wanted["devicePath"], permissions))
    return result


def _place(container: Object, name: str, places: Mapping[str, Place], what: str) -> Place:
    place = places.get(name)
    if place is None:
        raise ConfigError(
            f"cannot find volume {_quote(name)} to {what} container {_quote(container['name'])}"
        )
    return place


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    """A ``subPathExpr``; a variable that is not there is an error, not a directory called so.

    Raises:
        ConfigError: see above.
    """
    missing = [
        name for name in _VARIABLE.findall(text.replace("$$", "")) if name not in environment
    ]
    if missing:
        raise ConfigError(f"missing value for {_quote(missing[0])}")
    return expand(text, environment)


def _check_sub_path(path: str) -> None:
    """What variables have made of a path is judged here; the API sees those without."""
    if path.startswith("/"):
        raise ConfigError(f"error SubPath `{path}` must not be an absolute path")
    if ".." in path.split("/"):
        raise ConfigError(f"unable to provision SubPath `{path}`: must not contain '..'")


def _is_claim(volume: Object) -> bool:
    return any(volume.get(kind) is not None for kind in _CLAIMS)


def _server(volume: Object, inputs: Inputs) -> Object | None:
    """The NFS server that the volume lies on, if it does."""
    found = inputs.persistent.get(volume["name"])
    source: Object | None = (volume if found is None else found["spec"]).get("nfs")
    return source


def _fault(volume: Object, inputs: Inputs, error: Exception) -> str:
    found = inputs.persistent.get(volume["name"])
    name = volume["name"] if found is None else meta.name(found)
    return f"MountVolume.SetUp failed for volume {_quote(name)} : {error}"


def wanted_tokens(pod: Object) -> list[Object]:
    """The ``serviceAccountToken`` sources among the pod's volumes."""
    return [
        source["serviceAccountToken"]
        for volume in pod["spec"].get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
        if source.get("serviceAccountToken")
    ]


def _quote(text: str) -> str:
    return f'"{text}"'


def teardown(root: Path) -> None:
    """Unmount and delete all that kubelets keep below ``root`` (blocking; none may run)."""
    mounts.remove_tree(root / "pods")
