"""VolumeBinding: a node must reach the pod's volumes, and volumes are found for claims that wait
(https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode).

For claims of classes with ``WaitForFirstConsumer`` a node fits where a volume is free or one can be
provisioned. Once the node is chosen, the volumes are reserved for the claims, or the claims are
told the node (``volume.kubernetes.io/selected-node``) for the provisioner; the pod is bound when
they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.quantity import to_milli
from wherry.kube.api.resources import (
    CSI_DRIVERS,
    CSI_STORAGE_CAPACITIES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
)
from wherry.kube.api.selectors import labels_from_object
from wherry.kube.api.volume_matching import (
    BOUND_BY_CONTROLLER,
    NO_PROVISIONER,
    SELECTED_NODE,
    class_of,
    find_volume,
    reaches,
    requested,
    waits_for_consumer,
)
from wherry.kube.client.informer import Objects
from wherry.kube.client.recorder import reference
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.framework import (
    Change,
    Cycle,
    Filter,
    Handle,
    Hint,
    PreBind,
    PreFilter,
    Reserve,
    Verdict,
    always,
    reject,
)
from wherry.kube.scheduler.plugins import pod_claims
from wherry.kube.scheduler.plugins.pod_claims import PodClaims, is_bound
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
_UNREACHABLE = "node(s) had volume node affinity conflict"
_NO_SPACE = "node(s) did not have enough free storage"
_LOST = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"


@dataclass(slots=True)
class _Plan:
    """What is to be done so that the pod's claims are served on one node."""

    bindings: list[tuple[Object, Object]] = field(default_factory=list)
    """Volumes, and the claims that are to have them."""
    provisions: list[Object] = field(default_factory=list)
    """Claims for which volumes are to be made."""


@dataclass(slots=True)
class _State:
    bound: list[Object] = field(default_factory=list)
    waiting: list[Object] = field(default_factory=list)
    plans: dict[str, _Plan] = field(default_factory=dict)


class VolumeBinding(PreFilter, Filter, Reserve, PreBind):
    name = "VolumeBinding"

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        super().__init__(handle, arguments)
        self._timeout = float(arguments.get("bindTimeoutSeconds") or 600)
        self._claims = PodClaims(handle.informers)
        informer = handle.informers.informer
        self._volumes = informer(PERSISTENT_VOLUMES)
        self._volumes.add_indexer("class", lambda volume: (class_of(volume),))
        self._classes = informer(STORAGE_CLASSES)
        self._drivers = informer(CSI_DRIVERS)
        self._capacities = informer(CSI_STORAGE_CAPACITIES)
        self._capacities.add_indexer("class", lambda o: (o.get("storageClassName") or "",))
        for resource, change in (
            (PERSISTENT_VOLUME_CLAIMS, Change.CLAIM),
            (PERSISTENT_VOLUMES, Change.VOLUME),
            (STORAGE_CLASSES, Change.STORAGE_CLASS),
            (CSI_STORAGE_CAPACITIES, Change.STORAGE_CLASS),
        ):
            self._hear(resource, change)
        self._taken: dict[str, str] = {}
        """Volumes that are reserved for claims (uids) whose pods are being bound."""
        self._selected: dict[str, str] = {}
        """Claims (uids) that are about to be told a node."""
        self._changed: dict[str, list[asyncio.Future[None]]] = {}

    def _hear(self, resource: Any, change: Change) -> None:
        def heard(old: Object | None, new: Object | None) -> None:
            if change is Change.CLAIM:
                for future in self._changed.pop(meta.uid(new or old or {}), ()):
                    if not future.done():
                        future.set_result(None)
            self.handle.wake(change, old, new)

        self.handle.informers.informer(resource).add_handlers(
            on_add=lambda new: heard(None, new),
            on_update=heard,
            on_delete=lambda old: heard(old, None),
        )

    def signature(self, pod: PodInfo) -> Hashable | None:
        return pod_claims.signature(pod)

    # -- deciding

    def pre_filter(self, cycle: Cycle, pod: PodInfo) -> Verdict | frozenset[str]:
        if not pod.claims:
            return None
        state = _State()
        immediate = False
        for name, ephemeral in pod.claims:
            claim = self._claims.get(pod.namespace, name)
            why = self._refusal(pod, claim, name, ephemeral)
            if why:
                return reject(why, resolvable=False)
            assert claim is not None
            if is_bound(claim):
                state.bound.append(claim)
            elif claim["spec"].get("volumeName") or not self._waits(claim):
                immediate = True
            else:
                state.waiting.append(claim)
        if immediate:
            return reject("pod has unbound immediate PersistentVolumeClaims", resolvable=False)
        state.waiting.sort(key=requested)
        cycle.data[self.name] = state
        return None

    def _refusal(self, pod: PodInfo, claim: Object | None, name: str, ephemeral: bool) -> str:
        if claim is None:
            if ephemeral:
                return (
                    "waiting for ephemeral volume controller to create the "
                    f'persistentvolumeclaim "{name}"'
                )
            return f'persistentvolumeclaim "{name}" not found'
        if (claim.get("status") or {}).get("phase") == "Lost":
            volume = claim["spec"].get("volumeName") or ""
            return (
                f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
            )
        if meta.is_deleting(claim):
            return f'persistentvolumeclaim "{name}" is being deleted'
        if ephemeral and not meta.is_controlled_by(claim, pod.object):
            return f"PVC {meta.key(claim)} was not created for pod {pod.key} (pod is not owner)"
        return ""

    def _class(self, claim: Object) -> Object | None:
        name = class_of(claim)
        return self._classes.get(None, name) if name else None

    def _waits(self, claim: Object) -> bool:
        return waits_for_consumer(self._class(claim))

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        state: _State | None = cycle.data.get(self.name)
        if state is None or node.object is None:
            return None
        reasons = []
        volumes = [self._claims.volume(claim["spec"]["volumeName"]) for claim in state.bound]
        if any(volume is not None and not reaches(volume, node.object) for volume in volumes):
            reasons.append(_UNREACHABLE)
        plan = self._plan(state.waiting, node)
        if isinstance(plan, str):
            reasons.append(plan)
        else:
            state.plans[node.name] = plan
        if None in volumes:
            reasons.append(_LOST)
        return reject(*reasons, resolvable=False) if reasons else None

    def _plan(self, waiting: Sequence[Object], node: NodeInfo) -> _Plan | str:
        """How the claims can be served on the node, or why not."""
        plan = _Plan()
        taken = set(self._taken)
        for claim in waiting:
            selected = self._selected.get(meta.uid(claim))
            selected = selected or meta.annotations(claim).get(SELECTED_NODE)
            if selected:
                if selected != node.name:
                    return _NO_VOLUME
                plan.provisions.append(claim)
                continue
            volumes = self._volumes.by_index("class", class_of(claim))
            volume = find_volume(claim, volumes, node=node.object, taken=taken)
            if volume is not None:
                taken.add(meta.name(volume))
                plan.bindings.append((volume, claim))
                continue
            why = self._no_provision(claim, node)
            if why:
                return why
            plan.provisions.append(claim)
        return plan

    def _no_provision(self, claim: Object, node: NodeInfo) -> str:
        """Why no volume can be made for the claim on the node; empty where one can."""
        storage_class = self._class(claim)
        provisioner = (storage_class or {}).get("provisioner") or NO_PROVISIONER
        if storage_class is None or provisioner == NO_PROVISIONER:
            return _NO_VOLUME
        allowed = storage_class.get("allowedTopologies")
        if allowed and not any(
            all(
                node.labels.get(e["key"]) in (e.get("values") or ())
                for e in term.get("matchLabelExpressions") or ()
            )
            for term in allowed
        ):
            return _NO_VOLUME
        driver = self._drivers.get(None, provisioner)
        if driver is None or not driver["spec"].get("storageCapacity"):
            return ""
        capacities = self._capacities.by_index("class", meta.name(storage_class))
        return "" if _has_space(capacities, requested(claim), node) else _NO_SPACE

    # -- acting

    def reserve(self, cycle: Cycle, pod: PodInfo, node: str) -> Verdict:
        plan = self._plan_of(cycle, node)
        for volume, claim in plan.bindings:
            if meta.name(volume) in self._taken:
                return reject(f'volume "{meta.name(volume)}" is taken meanwhile')
            self._taken[meta.name(volume)] = meta.uid(claim)
        for claim in plan.provisions:
            self._selected[meta.uid(claim)] = node
        return None

    def unreserve(self, cycle: Cycle, pod: PodInfo, node: str) -> None:
        plan = self._plan_of(cycle, node)
        for volume, claim in plan.bindings:
            if self._taken.get(meta.name(volume)) == meta.uid(claim):
                del self._taken[meta.name(volume)]
        for claim in plan.provisions:
            self._selected.pop(meta.uid(claim), None)

    async def pre_bind(self, cycle: Cycle, pod: PodInfo, node: str) -> Verdict:
        plan = self._plan_of(cycle, node)
        if not plan.bindings and not plan.provisions:
            return None
        for volume, claim in plan.bindings:
            await self._give(volume, claim)
        for claim in plan.provisions:
            if meta.annotations(claim).get(SELECTED_NODE) != node:
                await self._tell(claim, node)
        claims = [claim for _, claim in plan.bindings] + plan.provisions
        try:
            async with asyncio.timeout(self._timeout):
                for claim in claims:
                    why = await self._until_bound(claim, node)
                    if why:
                        return reject(f"binding volumes: {why}")
        except TimeoutError:
            return reject("binding volumes: timed out waiting for the condition")
        finally:
            self.unreserve(cycle, pod, node)
        return None

    async def _give(self, volume: Object, claim: Object) -> None:
        """Reserve the volume for the claim; the binder does the rest."""
        wanted = volume["spec"].get("claimRef")
        metadata = volume["metadata"]
        if wanted is None:
            annotations = {**meta.annotations(volume), BOUND_BY_CONTROLLER: "yes"}
            metadata = {**metadata, "annotations": annotations}
        spec = {**volume["spec"], "claimRef": reference(PERSISTENT_VOLUME_CLAIMS, claim)}
        body = {**volume, "metadata": metadata, "spec": spec}
        await self.handle.client.update(PERSISTENT_VOLUMES, body)

    async def _tell(self, claim: Object, node: str) -> None:
        """Have a volume made for the claim that the node reaches."""
        patch = {"metadata": {"uid": meta.uid(claim), "annotations": {SELECTED_NODE: node}}}
        await self._patch(claim, patch)

    async def _patch(self, claim: Object, patch: Object) -> None:
        await self.handle.client.patch(
            PERSISTENT_VOLUME_CLAIMS, meta.name(claim), patch, meta.namespace(claim)
        )

    async def _until_bound(self, claim: Object, node: str) -> str:
        """Return once the claim is bound, or why it will not be."""
        told = False
        while True:
            now = self._claims.get(meta.namespace(claim), meta.name(claim))
            if now is None or meta.uid(now) != meta.uid(claim):
                return f'persistentvolumeclaim "{meta.name(claim)}" not found'
            if is_bound(now):
                return self._out_of_reach(now, node)
            selected = meta.annotations(now).get(SELECTED_NODE)
            if told and not selected:
                # The provisioner has given the node back: it cannot make the volume there.
                return f'provisioning failed for PVC "{meta.name(claim)}"'
            told = told or selected == node
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._changed.setdefault(meta.uid(claim), []).append(future)
            await future

    def _out_of_reach(self, claim: Object, node: str) -> str:
        """Why the volume that the claim has got is of no use on the node; empty where it is."""
        volume = self._claims.volume(claim["spec"]["volumeName"])
        info = self.handle.snapshot.nodes.get(node)
        if volume is None or info is None or info.object is None or reaches(volume, info.object):
            return ""
        return (
            f'pv "{meta.name(volume)}" node affinity doesn\'t match node "{node}": '
            "no matching NodeSelectorTerms"
        )

    def _plan_of(self, cycle: Cycle, node: str) -> _Plan:
        state: _State | None = cycle.data.get(self.name)
        return (state.plans.get(node) if state is not None else None) or _Plan()

    # -- waking

    def helped_by(self) -> Mapping[Change, Hint]:
        return {
            Change.CLAIM: pod_claims.is_own_claim,
            Change.VOLUME: always,
            Change.STORAGE_CLASS: always,
            Change.NODE_ADDED: always,
            Change.NODE_LABELS: always,
        }


def _has_space(capacities: Objects, wanted: int, node: NodeInfo) -> bool:
    """Whether a driver has published that much free storage for the node."""
    for capacity in capacities:
        topology = capacity.get("nodeTopology")
        if topology is None or not labels_from_object(topology).matches(node.labels):
            continue
        largest = capacity.get("maximumVolumeSize") or capacity.get("capacity")
        if largest is not None and to_milli(largest) >= wanted:
            return True
    return False
