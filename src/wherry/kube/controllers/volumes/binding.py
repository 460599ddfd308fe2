"""What is to become of a claim, and of a volume: pure functions.

Behaviour and events follow kube-controller-manager's persistentvolume-binder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from wherry.kube.api import meta
from wherry.kube.api.volume_matching import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    NO_PROVISIONER,
    SELECTED_NODE,
    class_of,
    find_volume,
    is_reserved_for,
    misfit,
    waits_for_consumer,
)
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object

Event = tuple[str, str, str]


@dataclass(slots=True)
class ClaimStep:
    """What is to be done for a claim."""

    bind: Object | None = None
    """The volume to bind it to, or to complete the binding with."""
    provision: bool = False
    """Whether its class's provisioner is to make a volume."""
    phase: Literal["", "Pending", "Lost"] = ""
    events: list[Event] = field(default_factory=list)


def decide_claim(
    claim: Object,
    volumes: Iterable[Object],
    chosen: Object | None,
    storage_class: Object | None,
    waiting_pods: Iterable[Object],
) -> ClaimStep:
    """What is to be done for ``claim``.

    Args:
        volumes: all volumes.
        chosen: the volume that the claim names, if there is such a one.
        storage_class: the class that the claim names, if there is such a one.
        waiting_pods: pods that use the claim and have no node yet.
    """
    if BIND_COMPLETED in meta.annotations(claim):
        return _bound(claim, chosen)
    name = claim["spec"].get("volumeName")
    if name:
        return _asked_for(claim, chosen)
    delayed = waits_for_consumer(storage_class)
    node_chosen = SELECTED_NODE in meta.annotations(claim)
    found = find_volume(claim, volumes, delayed=delayed)
    if found is not None:
        return ClaimStep(bind=found)
    step = ClaimStep(phase="Pending")
    if delayed and not node_chosen:
        step.events.append((NORMAL, *_waiting(waiting_pods)))
    elif storage_class is not None and storage_class["provisioner"] != NO_PROVISIONER:
        step.provision = True
    elif class_of(claim):
        if storage_class is None:
            text = f'storageclass.storage.k8s.io "{class_of(claim)}" not found'
            step.events.append((WARNING, "ProvisioningFailed", text))
    else:
        text = "no persistent volumes available for this claim and no storage class is set"
        step.events.append((NORMAL, "FailedBinding", text))
    return step


def _waiting(pods: Iterable[Object]) -> tuple[str, str]:
    names = sorted(meta.name(pod) for pod in pods)
    if len(names) == 1:
        return "WaitForPodScheduled", f"waiting for pod {names[0]} to be scheduled"
    return "WaitForFirstConsumer", "waiting for first consumer to be created before binding"


def _asked_for(claim: Object, volume: Object | None) -> ClaimStep:
    """The user wants a certain volume."""
    if volume is None:
        return ClaimStep(phase="Pending")
    if volume["spec"].get("claimRef") is None:
        why = misfit(volume, claim)
        if why:
            text = f'Cannot bind to requested volume "{meta.name(volume)}": {why}'
            return ClaimStep(phase="Pending", events=[(WARNING, "VolumeMismatch", text)])
        return ClaimStep(bind=volume)
    if is_reserved_for(volume, claim):
        return ClaimStep(bind=volume)
    text = f'volume "{meta.name(volume)}" already bound to a different claim.'
    return ClaimStep(phase="Pending", events=[(WARNING, "FailedBinding", text)])


def _bound(claim: Object, volume: Object | None) -> ClaimStep:
    """The claim was bound before: it has its volume, or has lost it."""
    text = reason = ""
    if not claim["spec"].get("volumeName"):
        reason, text = "ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on "
    elif volume is None:
        reason, text = "ClaimLost", "Bound claim has lost its PersistentVolume. Data on "
    elif volume["spec"].get("claimRef") is not None and not is_reserved_for(volume, claim):
        reason = "ClaimMisbound"
        text = (
            "Two claims are bound to the same volume, this one is bound incorrectly. The other is "
            f"{volume['spec']['claimRef'].get('namespace')}/"
            f"{volume['spec']['claimRef'].get('name')}"
        )
    else:
        return ClaimStep(bind=volume)
    if reason == "ClaimLost":
        text += "the volume is lost!"
    events = []
    if (claim.get("status") or {}).get("phase") != "Lost":
        events.append((WARNING, reason, text))
    return ClaimStep(phase="Lost", events=events)


@dataclass(frozen=True, slots=True)
class VolumeStep:
    """What is to be done for a volume."""

    phase: Literal["Available", "Bound", "Released"]
    unbind: bool = False
    """Whether its reservation, which the binder made, is to be taken back."""
    reclaim: bool = False
    claim: str = ""
    """The key of a claim to look at, empty for none."""


def decide_volume(volume: Object, claim: Object | None) -> VolumeStep:
    """What is to be done for ``volume``.

    Args:
        claim: the claim of the name in its ``claimRef``, as it is on the server.
    """
    wanted = volume["spec"].get("claimRef")
    if wanted is None:
        return VolumeStep("Available")
    key = f"{wanted.get('namespace')}/{wanted.get('name')}"
    if not wanted.get("uid"):
        return VolumeStep("Available", claim=key)
    if claim is not None and meta.uid(claim) != wanted["uid"]:
        claim = None
    if claim is None:
        return VolumeStep("Released", reclaim=True)
    named = claim["spec"].get("volumeName")
    if not named:
        return VolumeStep(_phase(volume), claim=key)
    if named == meta.name(volume):
        return VolumeStep("Bound", claim=key)
    if BOUND_BY_CONTROLLER in meta.annotations(volume):
        return VolumeStep("Available", unbind=True, claim=key)
    provisioned = "pv.kubernetes.io/provisioned-by" in meta.annotations(volume)
    if provisioned and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
        return VolumeStep("Released", reclaim=True)
    return VolumeStep("Available", unbind=True, claim=key)


def _phase(volume: Object) -> Literal["Available", "Bound"]:
    return "Bound" if (volume.get("status") or {}).get("phase") == "Bound" else "Available"
