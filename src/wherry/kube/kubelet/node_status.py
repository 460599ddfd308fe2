"""What a node says of itself: its Node object, the status of it, its Lease. No I/O.

Follows pkg/kubelet/nodestatus/setters.go; ``node`` says it.
https://kubernetes.io/docs/reference/node/node-status/
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from wherry.engine.cri.types import Image, RuntimeHandler
from wherry.kube.api import amounts, quantity
from wherry.kube.kubelet.config import Settings
from wherry.kube.kubelet.eviction.thresholds import MEMORY, NODEFS
from wherry.kube.kubelet.machine import Machine
from wherry.kube.kubelet.parts import KubeletConfig

Object = dict[str, Any]

LEASE_NAMESPACE = "kube-node-lease"


def capacity(machine: Machine, settings: Settings) -> dict[str, str]:
    """Everything the machine has, and how many pods it may have."""
    pods = settings.max_pods
    if settings.pods_per_core:
        pods = min(pods, settings.pods_per_core * machine.cpus)
    result = {
        "cpu": str(machine.cpus),
        "ephemeral-storage": f"{machine.disk // 1024}Ki",
        "memory": f"{machine.memory // 1024}Ki",
        "pods": str(pods),
    }
    for size, amount in machine.huge_pages.items():
        result[f"hugepages-{size}"] = f"{amount // (1 << 20)}Mi" if amount else "0"
    return dict(sorted(result.items()))


def allocatable(machine: Machine, settings: Settings) -> dict[str, str]:
    """What pods may be given: not what is reserved, nor what is kept free by hard thresholds; huge
    pages are no ordinary memory."""
    result = capacity(machine, settings)
    free = {t.signal: t.amount for t in settings.thresholds if not t.soft}
    left = amounts.read(result)
    left["memory"] = quantity.from_int(
        machine.memory - sum(machine.huge_pages.values()), "BinarySI"
    )
    left["ephemeral-storage"] = quantity.from_int(machine.disk)
    for reserved in (settings.system_reserved, settings.kube_reserved):
        for name, amount in amounts.read(reserved).items():
            if name in left:
                left[name] = max(quantity.ZERO, left[name] - amount)
    for name, signal, whole in (
        ("memory", MEMORY, machine.memory),
        ("ephemeral-storage", NODEFS, machine.disk),
    ):
        if signal in free:
            kept = quantity.from_int(free[signal].of(whole))
            left[name] = max(quantity.ZERO, left[name] - kept)
    result.update({name: str(amount) for name, amount in left.items()})
    result["memory"] = f"{left['memory'].to_int() // 1024}Ki"
    return result


def extended(status: Mapping[str, Any]) -> dict[str, str]:
    """The resources that somebody else has given the node's capacity, as users do with
    ``kubectl patch --subresource=status``
    (https://kubernetes.io/docs/tasks/administer-cluster/extended-resource-node/)."""
    return {name: amount for name, amount in (status.get("capacity") or {}).items() if "/" in name}


def node_object(config: KubeletConfig, machine: Machine) -> Object:
    """The Node to register, without its status."""
    labels = {
        "kubernetes.io/arch": machine.architecture,
        "kubernetes.io/hostname": config.node_name,
        "kubernetes.io/os": "linux",
        **config.labels,
    }
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": config.node_name, "labels": labels},
        "spec": {"taints": taints} if (taints := list(config.settings.taints)) else {},
    }


def addresses(config: KubeletConfig) -> list[Object]:
    """Where the node is found."""
    return [
        *({"type": "InternalIP", "address": address} for address in config.node_ips),
        {"type": "Hostname", "address": config.node_name},
    ]


def conditions(
    pressure: Collection[str], not_ready: str, old: Sequence[Object], now: str
) -> list[Object]:
    """The four conditions; ``not_ready`` says why the node is not Ready (empty: it is)."""
    short = set(pressure)
    made = [
        _pressure_condition("MemoryPressure", short, "Memory", "memory available"),
        _pressure_condition("DiskPressure", short, "Disk", "disk pressure"),
        _pressure_condition("PIDPressure", short, "PID", "PID available"),
        {
            "type": "Ready",
            "status": "False" if not_ready else "True",
            "reason": "KubeletNotReady" if not_ready else "KubeletReady",
            "message": not_ready or "kubelet is posting ready status",
        },
    ]
    before = {c["type"]: c for c in old}
    for condition in made:
        former = before.get(condition["type"])
        same = former is not None and former.get("status") == condition["status"]
        condition["lastHeartbeatTime"] = now
        condition["lastTransitionTime"] = (
            former.get("lastTransitionTime") or now if same and former is not None else now
        )
    return made


def _pressure_condition(type_: str, short: set[str], noun: str, what: str) -> Object:
    if noun == "Disk":
        good, bad = "KubeletHasNoDiskPressure", "KubeletHasDiskPressure"
        good_text, bad_text = "kubelet has no disk pressure", "kubelet has disk pressure"
    else:
        good, bad = f"KubeletHasSufficient{noun}", f"KubeletHasInsufficient{noun}"
        good_text, bad_text = f"kubelet has sufficient {what}", f"kubelet has insufficient {what}"
    return {
        "type": type_,
        "status": "True" if type_ in short else "False",
        "reason": bad if type_ in short else good,
        "message": bad_text if type_ in short else good_text,
    }


def node_status(
    config: KubeletConfig,
    machine: Machine,
    *,
    runtime_version: str,
    kubelet_version: str,
    images: Sequence[Image],
    handlers: Sequence[RuntimeHandler] = (),
    conditions: list[Object],
    extended: Mapping[str, str] | None = None,
) -> Object:
    """The Node's status; all that is ``extended`` may be given to pods."""
    more = extended or {}
    listed = sorted(images, key=lambda image: image.size, reverse=True)
    if config.settings.max_images >= 0:
        listed = listed[: config.settings.max_images]
    return {
        "addresses": addresses(config),
        "allocatable": {**allocatable(machine, config.settings), **more},
        "capacity": {**capacity(machine, config.settings), **more},
        "conditions": conditions,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
        "images": [
            {"names": [*image.repo_digests, *image.repo_tags], "sizeBytes": image.size}
            for image in listed
            if image.repo_tags or image.repo_digests
        ],
        "nodeInfo": {
            "architecture": machine.architecture,
            "bootID": machine.boot_id,
            "containerRuntimeVersion": runtime_version,
            "kernelVersion": machine.kernel,
            "kubeProxyVersion": "",
            "kubeletVersion": kubelet_version,
            "machineID": machine.machine_id,
            "operatingSystem": "linux",
            "osImage": machine.os_image,
            "swap": {"capacity": machine.swap},
            "systemUUID": machine.system_uuid or machine.machine_id,
        },
        "features": {"supplementalGroupsPolicy": True},
        "runtimeHandlers": [
            {
                "name": handler.name,
                "features": {
                    "recursiveReadOnlyMounts": handler.recursive_read_only,
                    "userNamespaces": handler.user_namespaces,
                },
            }
            for handler in handlers
        ],
    }


def is_news(old: Object, new: Object) -> bool:
    """Whether ``new`` differs from ``old`` in more than heartbeats."""

    def bare(status: Object) -> Object:
        stripped = [
            {k: v for k, v in c.items() if k != "lastHeartbeatTime"}
            for c in status.get("conditions") or ()
        ]
        return {**status, "conditions": stripped}

    merged = {**old, **new}
    return bare(old) != bare(merged)


def status_patch(old: Object, new: Object) -> Object:
    """What is written to have ``new`` where there is ``old``: the capacity that others have told is
    theirs, and what they have taken back can be allocated no more."""
    given = extended(new)
    gone = {n: None for n in old.get("allocatable") or () if "/" in n and n not in given}
    own = {name: amount for name, amount in new["capacity"].items() if name not in given}
    # Addresses would be merged by their type, of which there may be two.
    places = [{"$patch": "replace"}, *new["addresses"]]
    return {
        **new,
        "addresses": places,
        "capacity": own,
        "allocatable": {**new["allocatable"], **gone},
    }


def is_unknown(status: Object) -> bool:
    """Whether somebody has noted that he does not hear of the node any more."""
    return any(c.get("status") == "Unknown" for c in status.get("conditions") or ())


def lease_object(config: KubeletConfig, node_uid: str, now: str) -> Object:
    """The Lease whose renewal says that the node lives."""
    return {
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {
            "name": config.node_name,
            "namespace": LEASE_NAMESPACE,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": config.node_name, "uid": node_uid}
            ],
        },
        "spec": {
            "holderIdentity": config.node_name,
            "leaseDurationSeconds": config.settings.lease_seconds,
            "renewTime": now,
        },
    }
