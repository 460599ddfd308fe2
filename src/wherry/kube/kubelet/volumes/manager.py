"""A pod's volumes: made before its containers, kept current while it runs, removed after it."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wherry.engine.cri.types import Mount
from wherry.kube.api import meta, quantity
from wherry.kube.kubelet.environment import ConfigError, Lookup, PodFacts, expand
from wherry.kube.kubelet.volumes import atomic, mounts, sources
from wherry.kube.kubelet.volumes.subpath import SubPathError, mount_subpath

Object = dict[str, Any]

_PLUGIN_DIRECTORIES = {
    "emptyDir": "kubernetes.io~empty-dir",
    "configMap": "kubernetes.io~configmap",
    "secret": "kubernetes.io~secret",
    "downwardAPI": "kubernetes.io~downward-api",
    "projected": "kubernetes.io~projected",
}
_PROPAGATION = {"None": "rprivate", "HostToContainer": "rslave", "Bidirectional": "rshared"}


class VolumeError(Exception):
    """A volume cannot be made (yet); ``str()`` is what the pod's event says."""


class Volumes:
    """The volumes of all pods, below ``root/pods/<uid>/volumes``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def pod_directory(self, uid: str) -> Path:
        """All that the kubelet keeps for a pod."""
        return self._root / "pods" / uid

    def known_pods(self) -> list[str]:
        """The uids for which there is a directory, from this life of the kubelet or a former."""
        directory = self._root / "pods"
        return [entry.name for entry in directory.iterdir()] if directory.is_dir() else []

    async def prepare(
        self, pod: Object, facts: PodFacts, lookup: Lookup, tokens: sources.Tokens
    ) -> dict[str, Path]:
        """Make the pod's volumes, or bring them up to date; their places by name.

        Raises:
            VolumeError: one of them cannot be made.
        """
        return await asyncio.to_thread(self._prepare, pod, facts, lookup, tokens)

    def needs_refresh(self, pod: Object) -> bool:
        """Whether the pod has volumes whose content may change while it runs."""
        kinds = ("configMap", "secret", "downwardAPI", "projected")
        return any(v.get(kind) for v in pod["spec"].get("volumes") or () for kind in kinds)

    async def remove(self, uid: str) -> None:
        """Unmount and delete all that is kept for a pod.

        Raises:
            OSError: something resists; nothing behind a mount was touched.
        """
        await asyncio.to_thread(mounts.remove_tree, self.pod_directory(uid))

    def container_mounts(
        self,
        pod: Object,
        container: Object,
        places: Mapping[str, Path],
        environment: Mapping[str, str],
    ) -> list[Mount]:
        """The volume mounts of ``container`` (blocking where there are sub paths).

        Raises:
            ConfigError: one names no volume, or a sub path that cannot be had.
        """
        result = []
        for index, wanted in enumerate(container.get("volumeMounts") or ()):
            place = places.get(wanted["name"])
            if place is None:
                raise ConfigError(
                    f"cannot find volume {_quote(wanted['name'])} to mount into container "
                    f"{_quote(container['name'])}"
                )
            sub_path = wanted.get("subPath") or ""
            if wanted.get("subPathExpr"):
                sub_path = expand(wanted["subPathExpr"], environment)
            if sub_path:
                place = self._sub_path(pod, container, wanted["name"], place, sub_path, index)
            destination = wanted["mountPath"]
            result.append(
                Mount(
                    container_path=destination if destination[0] == "/" else f"/{destination}",
                    host_path=place,
                    readonly=bool(wanted.get("readOnly")),
                    propagation=_PROPAGATION[wanted.get("mountPropagation") or "None"],
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

    def _prepare(
        self, pod: Object, facts: PodFacts, lookup: Lookup, tokens: sources.Tokens
    ) -> dict[str, Path]:
        directory = self.pod_directory(meta.uid(pod))
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        places = {}
        for volume in pod["spec"].get("volumes") or ():
            try:
                places[volume["name"]] = self._prepare_one(
                    pod, volume, directory, facts, lookup, tokens
                )
            except (ConfigError, atomic.InvalidPath, OSError) as error:
                raise VolumeError(
                    f"MountVolume.SetUp failed for volume {_quote(volume['name'])} : {error}"
                ) from error
        return places

    def _prepare_one(
        self,
        pod: Object,
        volume: Object,
        directory: Path,
        facts: PodFacts,
        lookup: Lookup,
        tokens: sources.Tokens,
    ) -> Path:
        if volume.get("hostPath"):
            return check_host_path(volume["hostPath"])
        kind = next((k for k in _PLUGIN_DIRECTORIES if volume.get(k) is not None), None)
        if kind is None:
            raise ConfigError("no volume plugin matched")
        place = Path(directory, "volumes", _PLUGIN_DIRECTORIES[kind], volume["name"])
        fresh = not place.exists()
        place.mkdir(parents=True, exist_ok=True, mode=0o750)
        if kind == "emptyDir":
            if fresh or _is_unmounted_memory(volume, place):
                _make_empty_dir(pod, volume["emptyDir"], place)
            return place
        files = sources.payload(pod, volume, facts, lookup, tokens)
        assert files is not None
        if kind == "secret" and not mounts.is_mounted(place):
            mounts.mount_tmpfs(place)  # what is secret never reaches the disk
        place.chmod(0o755)
        atomic.write(place, files)
        return place


def _is_unmounted_memory(volume: Object, place: Path) -> bool:
    return volume["emptyDir"].get("medium") == "Memory" and not mounts.is_mounted(place)


def _make_empty_dir(pod: Object, source: Object, place: Path) -> None:
    medium = source.get("medium") or ""
    if medium == "Memory":
        limit = source.get("sizeLimit")
        mounts.mount_tmpfs(place, size=quantity.parse(str(limit)).to_int() if limit else 0)
    elif medium:
        raise ConfigError(f"unknown storage medium {_quote(medium)}")
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    if group is None:
        place.chmod(0o777)
    else:
        os.chown(place, -1, group)
        place.chmod(0o2777)


def check_host_path(source: Object) -> Path:
    """The place of a ``hostPath`` volume, made where its type says so.

    Raises:
        ConfigError: it is not of the type.
    """
    path = Path(source["path"])
    wanted = source.get("type") or ""
    if wanted == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    elif wanted == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    elif not wanted:
        if not path.exists():
            # As dockerd does for a bind mount whose source is not there.
            path.mkdir(parents=True, mode=0o755)
        return path
    kinds: dict[str, tuple[Callable[[int], bool], str]] = {
        "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
        "Directory": (stat.S_ISDIR, "a directory"),
        "FileOrCreate": (stat.S_ISREG, "a file"),
        "File": (stat.S_ISREG, "a file"),
        "Socket": (stat.S_ISSOCK, "a socket file"),
        "CharDevice": (stat.S_ISCHR, "a character device"),
        "BlockDevice": (stat.S_ISBLK, "a block device"),
    }
    check, name = kinds[wanted]
    if not path.exists() or not check(path.stat().st_mode):
        raise ConfigError(f"hostPath type check failed: {path} is not {name}")
    return path


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
