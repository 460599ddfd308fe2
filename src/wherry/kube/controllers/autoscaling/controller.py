"""HorizontalPodAutoscalers: looked at every 15 seconds, and when their spec was changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import HORIZONTAL_POD_AUTOSCALERS, PODS
from wherry.kube.api.selectors import LabelSelector, parse_labels
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.autoscaling.behavior import (
    Bounds,
    Decision,
    History,
    decide,
    tolerances,
)
from wherry.kube.controllers.autoscaling.metrics import Measured, MetricFault, View, measure
from wherry.kube.controllers.autoscaling.replicas import Timing
from wherry.kube.controllers.autoscaling.status import ABLE, ACTIVE, LIMITED, Status, same
from wherry.kube.controllers.autoscaling.targets import NoTarget, Scale, Targets
from wherry.kube.controllers.base import Context, Controller, now, split_key

log = logging.getLogger(__name__)


class _Unusable(Exception):
    """Of an autoscaler's metrics nothing follows; the conditions say why."""

    def __init__(self, message: str, statuses: Sequence[Object] | None = None) -> None:
        super().__init__(message)
        self.statuses = statuses


_LABELS = "labels"


def _pairs(pod: Object) -> Iterable[str]:
    """Indexer: each label of a pod, with its namespace."""
    namespace = meta.namespace(pod)
    return [f"{namespace}/{key}={value}" for key, value in meta.labels(pod).items()]


class HorizontalPodAutoscalerController(Controller):
    """Keys are autoscalers."""

    name = "horizontal-pod-autoscaler-controller"
    account = "horizontal-pod-autoscaler"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("horizontal-pod-autoscaler")
        self.autoscalers = self.watch(HORIZONTAL_POD_AUTOSCALERS)
        self.autoscalers.add_handlers(
            on_add=self.enqueue, on_update=self._changed, on_delete=self._gone
        )
        self.pods = self.watch(PODS)
        self.targets = Targets(self.client.transport)
        self._histories: dict[str, History] = {}
        self._selectors: dict[str, LabelSelector] = {}

    def _changed(self, old: Object, autoscaler: Object) -> None:
        if old.get("spec") != autoscaler.get("spec"):
            self.enqueue(autoscaler)

    def _gone(self, autoscaler: Object) -> None:
        key = meta.key(autoscaler)
        self._histories.pop(key, None)
        self._selectors.pop(key, None)

    async def sync(self, key: str) -> None:
        autoscaler = self.autoscalers.get(*split_key(key))
        if autoscaler is None or meta.is_deleting(autoscaler):
            return
        try:
            await self._look(key, autoscaler)
        finally:
            self.queue.add_after(key, self.options.autoscaling.period)

    async def _look(self, key: str, autoscaler: Object) -> None:
        spec = autoscaler["spec"]
        moment = now()
        status = Status(autoscaler.get("status") or {}, meta.format_time(moment))
        try:
            scale = await self.targets.scale(
                meta.namespace(autoscaler), spec.get("scaleTargetRef") or {}
            )
        except NoTarget as error:
            self._event(autoscaler, WARNING, "FailedGetScale", str(error))
            message = f"the HPA controller was unable to get the target's current scale: {error}"
            status.say(ABLE, False, "FailedGetScale", message)
            await self._write(autoscaler, status.only_said())
            return
        message = "the HPA controller was able to get the target's current scale"
        status.say(ABLE, True, "SucceededGetScale", message)
        history = self._histories.get(key)
        if history is None:
            history = self._histories[key] = History()
            history.recommended(scale.wanted, moment)

        least = 1 if spec.get("minReplicas") is None else spec["minReplicas"]
        bounds = Bounds(least, spec["maxReplicas"], scale.wanted)
        statuses: Sequence[Object] | None = None
        if scale.wanted == 0 and least != 0:
            message = "scaling is disabled since the replica count of the target is zero"
            status.say(ACTIVE, False, "ScalingDisabled", message)
            desired, reason = 0, ""
        elif scale.wanted > bounds.most:
            desired, reason = bounds.most, "Current number of replicas above Spec.MaxReplicas"
        elif scale.wanted < least:
            desired, reason = least, "Current number of replicas below Spec.MinReplicas"
        else:
            try:
                best, statuses = await self._measure(key, autoscaler, scale, status, moment)
            except _Unusable as error:
                await self._write(autoscaler, status.made(scale.wanted, None, error.statuses))
                self._event(autoscaler, WARNING, "FailedComputeMetricsReplicas", str(error))
                return
            reason = ""
            if best.replicas > scale.wanted:
                reason = f"{best.name} above target"
            elif best.replicas < scale.wanted:
                reason = "All metrics below target"
            decision = self._decide(spec, history, best.replicas, bounds, moment)
            status.say(ABLE, True, *decision.able)
            status.say(LIMITED, decision.limited, *decision.limit)
            desired = decision.replicas
        if desired != scale.wanted and not await self._rescale(
            autoscaler, scale, desired, reason, status
        ):
            return
        if desired != scale.wanted and spec.get("behavior") is not None:
            history.scaled(scale.wanted, desired, moment)
        made = status.made(scale.wanted, desired, statuses, scaled=desired != scale.wanted)
        await self._write(autoscaler, made)

    def _decide(
        self, spec: Object, history: History, wanted: int, bounds: Bounds, moment: datetime
    ) -> Decision:
        window = self.options.autoscaling.downscale_stabilization
        decision = decide(spec.get("behavior"), history, wanted, bounds, moment, window)
        history.recommended(wanted, moment)
        return decision

    async def _rescale(
        self, autoscaler: Object, scale: Scale, desired: int, reason: str, status: Status
    ) -> bool:
        """Whether it worked; where not, that is written down."""
        try:
            await self.targets.write(scale, desired)
        except (StatusError, ConnectionError, TimeoutError) as error:
            message = f"New size: {desired}; reason: {reason}; error: {error}"
            self._event(autoscaler, WARNING, "FailedRescale", message)
            message = f"the HPA controller was unable to update the target scale: {error}"
            status.say(ABLE, False, "FailedUpdateScale", message)
            metrics = status.before.get("currentMetrics")
            await self._write(autoscaler, status.made(scale.wanted, None, metrics))
            return False
        message = f"the HPA controller was able to update the target scale to {desired}"
        status.say(ABLE, True, "SucceededRescale", message)
        self._event(
            autoscaler, NORMAL, "SuccessfulRescale", f"New size: {desired}; reason: {reason}"
        )
        return True

    # -- measuring

    async def _measure(
        self, key: str, autoscaler: Object, scale: Scale, status: Status, moment: datetime
    ) -> tuple[Measured, list[Object]]:
        """The metric that asks for most, and what the status says of each.

        Raises:
            _Unusable: none can be had, or one that might ask for more than there is.
        """
        namespace, spec = meta.namespace(autoscaler), autoscaler["spec"]
        pods = self._pods(key, autoscaler, scale, status)
        options = self.options.autoscaling
        view = View(
            self.client.transport,
            self.targets,
            namespace,
            scale,
            scale.selector,
            pods,
            tolerances(spec.get("behavior"), options.tolerance),
            Timing(
                moment,
                timedelta(seconds=options.cpu_initialization),
                timedelta(seconds=options.initial_readiness),
            ),
        )
        metrics = spec.get("metrics") or ()
        answers = await asyncio.gather(
            *(measure(metric, view) for metric in metrics), return_exceptions=True
        )
        measured, faults, statuses = [], [], []
        for answer in answers:
            if isinstance(answer, Measured):
                measured.append(answer)
                statuses.append(answer.status)
            elif isinstance(answer, MetricFault):
                faults.append(answer)
                statuses.append({"type": ""})
                self._event(autoscaler, WARNING, answer.reason, answer.why)
            else:
                raise answer
        best = max(measured, key=lambda each: each.replicas, default=None)
        if best is None or (faults and best.replicas < scale.wanted):
            message = "the HPA was unable to compute the replica count: "
            if faults:
                status.say(ACTIVE, False, faults[0].reason, message + faults[0].why)
            raise _Unusable(
                f"invalid metrics ({len(faults)} invalid out of {len(metrics)}), "
                f"first error is: {faults[0] if faults else None}",
                statuses,
            )
        message = f"the HPA was able to successfully calculate a replica count from {best.name}"
        status.say(ACTIVE, True, "ValidMetricFound", message)
        return best, statuses

    def _pods(self, key: str, autoscaler: Object, scale: Scale, status: Status) -> list[Object]:
        """The pods that are scaled. Raises _Unusable where nobody can say which these are."""
        namespace, text = meta.namespace(autoscaler), scale.selector
        if not text:
            self._event(autoscaler, WARNING, "SelectorRequired", "selector is required")
            message = "the HPA target's scale is missing a selector"
            status.say(ACTIVE, False, "InvalidSelector", message)
            raise _Unusable("selector is required")
        try:
            selector = parse_labels(text)
        except StatusError as error:
            message = "couldn't convert selector into a corresponding internal selector object: "
            self._refuse(autoscaler, status, "InvalidSelector", f"{message}{error}")
        self._selectors[key] = selector
        found = self._selected(namespace, selector)
        kinds = {frozenset(meta.labels(pod).items()) for pod in found}
        labels = [dict(each) for each in kinds]
        claimants = sorted(
            other
            for other, theirs in self._selectors.items()
            if other.startswith(f"{namespace}/") and any(map(theirs.matches, labels))
        )
        if len(claimants) > 1:
            message = (
                f"pods by selector {text} are controlled by multiple HPAs: [{' '.join(claimants)}]"
            )
            self._refuse(autoscaler, status, "AmbiguousSelector", message)
        return found

    def _selected(self, namespace: str, selector: LabelSelector) -> list[Object]:
        """The pods it selects, found by a label that few have; where there is no autoscaler,
        nobody needs to know who has which."""
        self.pods.add_indexer(_LABELS, _pairs)
        demanded = [(each.key, selector.exact(each.key)) for each in selector.requirements]
        candidates = [
            self.pods.by_index(_LABELS, f"{namespace}/{key}={value}")
            for key, value in demanded
            if value is not None
        ]
        among = min(candidates, key=len) if candidates else self.pods.list(namespace)
        return [pod for pod in among if selector.matches(meta.labels(pod))]

    def _refuse(self, autoscaler: Object, status: Status, reason: str, message: str) -> None:
        self._event(autoscaler, WARNING, reason, message)
        status.say(ACTIVE, False, reason, message)
        raise _Unusable(message)

    # -- telling

    def _event(self, autoscaler: Object, type: str, reason: str, message: str) -> None:
        self.recorder.event(HORIZONTAL_POD_AUTOSCALERS, autoscaler, type, reason, message)

    async def _write(self, autoscaler: Object, status: Object) -> None:
        if same(autoscaler.get("status") or {}, status):
            return
        try:
            written = await self.client.update_status(
                HORIZONTAL_POD_AUTOSCALERS, {**autoscaler, "status": status}
            )
        except (StatusError, ConnectionError, TimeoutError) as error:
            self._event(autoscaler, WARNING, "FailedUpdateStatus", str(error))
            raise
        await self.seen(HORIZONTAL_POD_AUTOSCALERS, written)
