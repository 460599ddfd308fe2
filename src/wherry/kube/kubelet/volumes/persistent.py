"""What a PersistentVolume, or a source of its kind in a pod, is on this node.

Directories and devices of the node, and NFS. Everything else needs a driver that is not here.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any, Final

from wherry.kube.api import meta
from wherry.kube.api.volume_matching import PROVISIONED_BY
from wherry.kube.kubelet.environment import ConfigError
from wherry.kube.kubelet.volumes.host_path import check_host_path
from wherry.kube.kubelet.volumes.place import Place

Object = dict[str, Any]

PROVISIONER: Final = "wherry.io/local-path"
ONE_POD: Final = "ReadWriteOncePod"
IN_USE: Final = "volume uses the ReadWriteOncePod access mode and is already in use by another pod"


def directory(persistent: Object, *, readonly: bool) -> Place:
    """The place of a volume on this node (blocking). NFS is not among them.

    Raises:
        ConfigError: it is not here, or nobody here can make it.
        OSError: it cannot be made.
    """
    spec = persistent["spec"]
    block = spec.get("volumeMode") == "Block"
    if spec.get("local"):
        return _local(Path(spec["local"]["path"]), readonly=readonly, block=block)
    if spec.get("hostPath") and not block:
        path = Path(spec["hostPath"]["path"])
        if is_ours(persistent) and not path.exists():
            # Whoever the pod runs as: it is the only one that gets it.
            path.mkdir(parents=True, mode=0o755, exist_ok=True)
            path.chmod(0o777)
        return Place(check_host_path(spec["hostPath"]), readonly)
    raise ConfigError(no_driver(spec))


def is_ours(persistent: Object) -> bool:
    """Whether our provisioner made it, so that the directory is nobody else's."""
    return meta.annotations(persistent).get(PROVISIONED_BY) == PROVISIONER


def takes_group(persistent: Object) -> bool:
    """Whether a pod's ``fsGroup`` concerns it; what users have elsewhere stays as it is."""
    spec = persistent["spec"]
    if spec.get("volumeMode") == "Block":
        return False
    return bool(spec.get("local")) or (bool(spec.get("hostPath")) and is_ours(persistent))


def _local(path: Path, *, readonly: bool, block: bool) -> Place:
    if not path.exists():
        raise ConfigError(f'path "{path}" does not exist')
    mode = path.stat().st_mode
    if block:
        if not stat.S_ISBLK(mode):
            raise ConfigError(f'path "{path}" is not a block device')
        return Place(path.resolve(), readonly, device=True)
    if not stat.S_ISDIR(mode):
        raise ConfigError(
            f'path "{path}" is not a directory; a device must be mounted on the node first'
        )
    return Place(path, readonly)


def no_driver(source: Object) -> str:
    """Why a volume of this source cannot be had here."""
    if source.get("csi"):
        driver = source["csi"].get("driver", "")
        return (
            "kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name "
            f"{driver} not found in the list of registered CSI drivers"
        )
    if source.get("flexVolume"):
        return f"no volume plugin matched: {source['flexVolume'].get('driver', '')}"
    return "no volume plugin matched"
