"""Disruption: how many pods of a budget are healthy, and how many may go at present.

Upstream: pkg/controller/disruption.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from wherry.kube.api import conditions, meta, pods
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
    Resource,
)
from wherry.kube.api.selectors import labels_from_object
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.amounts import resolve
from wherry.kube.controllers.base import Context, Controller, now, split_key

DELETION_TIMEOUT = timedelta(minutes=2)
"""So long a pod that was evicted is believed to go."""
STALE_TARGET = timedelta(minutes=2)
"""After that, a pod that was to be disrupted and still lives is no target any more."""
_SCALED = (REPLICATION_CONTROLLERS, DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS)


class CannotTell(Exception):
    """The number of pods there should be is unknown; ``reason`` is the event's."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a budget's pods: how many there should be, and how many healthy ones."""

    expected: int
    desired: int


def needs_scale(spec: Object) -> bool:
    """Whether how many pods there should be is asked of their owners."""
    return spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)


def counts(spec: Object, pods_there: int, scale: int) -> Counts:
    """What a budget asks for.

    Args:
        scale: how many pods their owners want together, where `needs_scale`.
    """
    if (most := spec.get("maxUnavailable")) is not None:
        return Counts(scale, max(0, scale - resolve(most, scale, round_up=True)))
    least = spec.get("minAvailable", 0)
    if isinstance(least, int):
        return Counts(pods_there, least)
    return Counts(scale, resolve(least, scale, round_up=True))


def disrupted(
    budget: Object, found: Sequence[Object], moment: datetime
) -> tuple[dict[str, str], datetime | None]:
    """Who is still believed to go, and when that is to be looked at again."""
    noted: Mapping[str, str] = (budget.get("status") or {}).get("disruptedPods") or {}
    kept: dict[str, str] = {}
    again: datetime | None = None
    for pod in found:
        when = noted.get(meta.name(pod))
        if when is None or meta.is_deleting(pod):
            continue
        expected = meta.parse_time(when) + DELETION_TIMEOUT
        if expected >= moment:
            kept[meta.name(pod)] = when
            again = expected if again is None else min(again, expected)
    return kept, again


def overdue(budget: Object, found: Iterable[Object], going: Mapping[str, str]) -> Iterator[Object]:
    """Pods that were to go, which nobody believes any more."""
    noted = (budget.get("status") or {}).get("disruptedPods") or {}
    for pod in found:
        if meta.name(pod) in noted.keys() - going.keys() and not meta.is_deleting(pod):
            yield pod


def status(
    budget: Object, found: Sequence[Object], wanted: Counts, going: Mapping[str, str], moment: str
) -> Object:
    """The status of a budget that covers ``found``."""
    healthy = sum(
        1
        for pod in found
        if not meta.is_deleting(pod) and meta.name(pod) not in going and pods.is_ready(pod)
    )
    allowed = max(0, healthy - wanted.desired) if wanted.expected > 0 else 0
    before = budget.get("status") or {}
    new: Object = {
        "observedGeneration": meta.generation(budget),
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": wanted.desired,
        "expectedPods": wanted.expected,
    }
    if going:
        new["disruptedPods"] = dict(going)
    reason = "SufficientPods" if allowed else "InsufficientPods"
    new["conditions"] = _said(budget, before, "True" if allowed else "False", reason, "", moment)
    return new


def failed(budget: Object, why: str, moment: str) -> Object:
    """The status of a budget that could not be counted: nothing may go."""
    before = budget.get("status") or {}
    said = _said(budget, before, "False", "SyncFailed", why, moment)
    return {**before, "disruptionsAllowed": 0, "conditions": said}


def _said(
    budget: Object, before: Object, state: str, reason: str, message: str, moment: str
) -> list[Object]:
    known = conditions.find(before.get("conditions") or (), "DisruptionAllowed")
    kept = known is not None and known.get("status") == state
    condition = {
        "type": "DisruptionAllowed",
        "status": state,
        "observedGeneration": meta.generation(budget),
        "lastTransitionTime": known["lastTransitionTime"] if known and kept else moment,
        "reason": reason,
        "message": message,
    }
    return [*conditions.without(before.get("conditions") or (), "DisruptionAllowed"), condition]


class DisruptionController(Controller):
    """Keys are budgets, and (with ``pod/`` before them) pods that were to be disrupted."""

    name = "disruption-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("controllermanager")
        self.budgets = self.watch(POD_DISRUPTION_BUDGETS)
        self.budgets.add_handlers(on_add=self.enqueue, on_update=self.enqueue_update)
        self.pods = self.watch(PODS)
        self.pods.add_handlers(
            on_add=self._pod_added, on_update=self._pod_changed, on_delete=self._pod_seen
        )
        self.definitions = self.watch(CUSTOM_RESOURCE_DEFINITIONS)
        self.owners = {resource: self.watch(resource) for resource in _SCALED}
        for informer in self.owners.values():
            informer.add_handlers(on_update=self._owner_changed)

    # -- what concerns whom

    def _pod_seen(self, pod: Object) -> None:
        for budget in self.budgets.list(meta.namespace(pod)):
            if _covers(budget, pod):
                self.enqueue(budget)
        self._look_at_target(pod)

    def _pod_added(self, pod: Object) -> None:
        self._pod_seen(pod)
        covering = [b for b in self.budgets.list(meta.namespace(pod)) if _covers(b, pod)]
        if len(covering) > 1:
            namespace, name = meta.namespace(pod), meta.name(pod)
            message = (
                f'Pod "{namespace}"/"{name}" matches multiple PodDisruptionBudgets.  Chose '
                f'"{meta.name(covering[0])}" arbitrarily.'
            )
            self.recorder.event(PODS, pod, WARNING, "MultiplePodDisruptionBudgets", message)

    def _pod_changed(self, old: Object, pod: Object) -> None:
        for budget in self.budgets.list(meta.namespace(pod)):
            if _covers(budget, pod) or _covers(budget, old):
                self.enqueue(budget)
        self._look_at_target(pod)

    def _owner_changed(self, old: Object, owner: Object) -> None:
        """Its scale is what percentages are of."""
        if (old.get("spec") or {}).get("replicas") == (owner.get("spec") or {}).get("replicas"):
            return
        for budget in self.budgets.list(meta.namespace(owner)):
            if needs_scale(budget.get("spec") or {}):
                self.enqueue(budget)

    def _look_at_target(self, pod: Object) -> None:
        found = conditions.of(pod, "DisruptionTarget")
        if found is None or found.get("status") != "True" or meta.is_deleting(pod):
            return
        age = now() - meta.parse_time(found["lastTransitionTime"])
        self.queue.add_after(f"pod/{meta.key(pod)}", (STALE_TARGET - age).total_seconds())

    # -- acting

    async def sync(self, key: str) -> None:
        if key.startswith("pod/"):
            await self._spare(key.removeprefix("pod/"))
            return
        namespace, name = split_key(key)
        budget = self.budgets.get(namespace, name)
        if budget is None:
            return
        found = [pod for pod in self.pods.list(namespace) if _covers(budget, pod)]
        if not found:
            self.recorder.event(
                POD_DISRUPTION_BUDGETS, budget, NORMAL, "NoPods", "No matching pods found"
            )
        moment = now()
        try:
            wanted = counts(budget.get("spec") or {}, len(found), await self._scale(budget, found))
        except CannotTell as error:
            message = f"Failed to calculate the number of expected pods: {error}"
            self.recorder.event(POD_DISRUPTION_BUDGETS, budget, WARNING, error.reason, str(error))
            self.recorder.event(
                POD_DISRUPTION_BUDGETS, budget, WARNING, "CalculateExpectedPodCountFailed", message
            )
            await self._write(budget, failed(budget, str(error), meta.format_time(moment)))
            return
        going, again = disrupted(budget, found, moment)
        for pod in overdue(budget, found, going):
            message = f"Pod was expected by PDB {key} to be deleted but it wasn't"
            self.recorder.event(PODS, pod, WARNING, "NotDeleted", message)
        await self._write(budget, status(budget, found, wanted, going, meta.format_time(moment)))
        if again is not None:
            self.queue.add_after(key, (again - moment).total_seconds())

    async def _write(self, budget: Object, status: Object) -> None:
        if status == (budget.get("status") or {}):
            return
        written = await self.client.update_status(
            POD_DISRUPTION_BUDGETS, {**budget, "status": status}
        )
        await self.seen(POD_DISRUPTION_BUDGETS, written)

    async def _scale(self, budget: Object, found: Sequence[Object]) -> int:
        """How many pods the owners of those there are want together. Raises CannotTell."""
        if not needs_scale(budget.get("spec") or {}):
            return 0
        scales: dict[str, int] = {}
        unmanaged = []
        for pod in found:
            reference = meta.controller_of(pod)
            if reference is None:
                unmanaged.append(meta.name(pod))
            elif reference["uid"] not in scales:
                uid, scale = await self._scale_of(reference, meta.namespace(pod), meta.name(pod))
                scales[uid] = scales[reference["uid"]] = scale
                if uid != reference["uid"]:  # a Deployment's: its ReplicaSets count as one
                    scales[reference["uid"]] = 0
        if unmanaged:
            selector = labels_from_object(budget["spec"].get("selector"))
            message = (
                f"Pods selected by this PodDisruptionBudget (selector: {selector}) were found to "
                "be unmanaged. As a result, the status of the PDB cannot be calculated correctly, "
                "which may result in undefined behavior. To account for these pods please set "
                '".spec.minAvailable" field of the PDB to an integer value.'
            )
            self.recorder.event(POD_DISRUPTION_BUDGETS, budget, WARNING, "UnmanagedPods", message)
        return sum(scales.values())

    async def _scale_of(self, reference: Object, namespace: str, pod: str) -> tuple[str, int]:
        """The uid of whoever says how many, and how many."""
        group = reference["apiVersion"].rpartition("/")[0]
        for resource, informer in self.owners.items():
            if (resource.group, resource.kind) != (group, reference["kind"]):
                continue
            owner = informer.get(namespace, reference["name"])
            if owner is None or meta.uid(owner) != reference["uid"]:
                break
            above = meta.controller_of(owner)
            if resource is REPLICA_SETS and above is not None and above["kind"] == "Deployment":
                deployment = self.owners[DEPLOYMENTS].get(namespace, above["name"])
                if deployment is not None and meta.uid(deployment) == above["uid"]:
                    owner = deployment
            return meta.uid(owner), (owner.get("spec") or {}).get("replicas", 1)
        custom = self._defined(group, reference["kind"])
        if custom is not None:
            scale = await self._ask_scale(custom, reference, namespace)
            if scale is not None:
                return reference["uid"], scale
        raise CannotTell("NoControllers", f'found no controllers for pod "{pod}"')

    def _defined(self, group: str, kind: str) -> Resource | None:
        from wherry.kube.api.custom.definition import kinds_of

        for definition in self.definitions.list():
            spec = definition["spec"]
            if (spec["group"], spec["names"]["kind"]) == (group, kind):
                served = [k.resource for k in kinds_of(definition) if not k.resource.hidden]
                return served[0] if served else None
        return None

    async def _ask_scale(self, resource: Resource, reference: Object, namespace: str) -> int | None:
        if "scale" not in resource.subresources:
            message = f"{resource.plural}.{resource.group} does not implement the scale subresource"
            raise CannotTell("NoControllers", message)
        path = resource.path(namespace, reference["name"], "scale")
        try:
            scale = await self.client.transport.request("GET", path)
        except StatusError as error:
            if error.code != 404:
                raise
            return None
        return int((scale.get("spec") or {}).get("replicas", 0))

    async def _spare(self, key: str) -> None:
        """A pod that was said to be disrupted, and was not."""
        namespace, name = split_key(key)
        pod = self.pods.get(namespace, name)
        found = None if pod is None else conditions.of(pod, "DisruptionTarget")
        if pod is None or found is None or found.get("status") != "True" or meta.is_deleting(pod):
            return
        moment = now()
        if meta.parse_time(found["lastTransitionTime"]) + STALE_TARGET > moment:
            self._look_at_target(pod)
            return
        condition = {
            "type": "DisruptionTarget",
            "status": "False",
            "lastTransitionTime": meta.format_time(moment),
        }
        known = pod["status"]["conditions"]
        others = [c for c in known if c["type"] != condition["type"]]
        state = {**pod["status"], "conditions": [*others, condition]}
        await self.client.update_status(PODS, {**pod, "status": state})


def _covers(budget: Object, pod: Object) -> bool:
    selector = (budget.get("spec") or {}).get("selector")
    return selector is not None and bool(labels_from_object(selector).matches(meta.labels(pod)))
