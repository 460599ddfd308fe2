"""The loop around ``plan``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.pods import is_finished
from wherry.kube.api.resources import (
    CONTROLLER_REVISIONS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STATEFUL_SETS,
)
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, namespace_is_leaving, now, split_key
from wherry.kube.controllers.claims import claim_dependents
from wherry.kube.controllers.histories import Collision, Histories
from wherry.kube.controllers.ownership import by_controller
from wherry.kube.controllers.pod_owners import PodOwnerController
from wherry.kube.controllers.stateful_set import identity
from wherry.kube.controllers.stateful_set.claims import claims_for, is_stale, references_for
from wherry.kube.controllers.stateful_set.plan import plan, status

_HASH_LABEL = "controller.kubernetes.io/hash"


class StatefulSetController(PodOwnerController):
    """Keeps the pods of StatefulSets, each with its name and its claims."""

    name = "statefulset-controller"
    component = "statefulset-controller"
    resource = STATEFUL_SETS

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.claims = self.watch(PERSISTENT_VOLUME_CLAIMS)
        self.claims.add_handlers(on_delete=self._claim_gone)
        self.revisions = self.watch(CONTROLLER_REVISIONS)
        self.revisions.add_indexer("controller", by_controller)
        self.histories = Histories(self.client, self.revisions, self.resource, _HASH_LABEL)
        self._waiting: dict[str, str] = {}
        """Sets that wait for a claim to go, by the claim's key."""

    def _claim_gone(self, claim: Object) -> None:
        waiting = self._waiting.pop(meta.key(claim), None)
        if waiting is not None:
            self.queue.add(waiting)

    # -- acting

    async def sync(self, key: str) -> None:
        set = self.owners.get(*split_key(key))
        if set is None:
            return
        owned = await claim_dependents(
            self.client,
            set,
            self.resource,
            self.selector(set),
            self.pods,
            accepts=partial(identity.is_pod_of, set),
        )
        revisions = await claim_dependents(
            self.client, set, self.resource, self.selector(set), self.revisions
        )
        try:
            update = await self.histories.current(set, revisions)
        except Collision:
            before = set.get("status") or {}
            await self.report(
                set, {**before, "collisionCount": (before.get("collisionCount") or 0) + 1}
            )
            return
        known = {meta.name(revision): revision for revision in (*revisions, update)}
        current = known.get((set.get("status") or {}).get("currentRevision") or "", update)
        step = plan(set, current, update, owned, self.removed, now())
        error = await self._tend_claims(set, owned)
        for pod in step.repair:
            await self._repair(set, pod)
        for pod in step.create:
            error = error or await self._create(set, pod)
            if error is not None:
                break
        for pod in step.replace:
            phase = (pod.get("status") or {}).get("phase")
            reason = "RecreatingFailedPod" if phase == "Failed" else "RecreatingTerminatedPod"
            where = f"{meta.namespace(set)}/{meta.name(set)}"
            message = (
                f"StatefulSet {where} is recreating {(phase or '').lower()} Pod {meta.name(pod)}"
            )
            self.tell(set, WARNING if phase == "Failed" else NORMAL, reason, message)
        for pod in (*step.replace, *step.delete):
            error = await self._delete(set, pod) or error
        owned = [pod for pod in self.owned(set) if identity.is_pod_of(set, pod)]
        set = await self.report(set, status(set, current, update, owned, now()))
        live = {identity.revision_of(pod) for pod in owned} | {meta.name(update)}
        live.add((set.get("status") or {}).get("currentRevision") or "")
        if not meta.is_deleting(set):
            await self.histories.truncate(set, list(known.values()), live)
        if step.check_after is not None:
            self.queue.add_after(key, step.check_after + 0.01)
        if error is not None:
            raise error

    async def _tend_claims(self, set: Object, owned: Sequence[Object]) -> Exception | None:
        """Make what is missing for pods that wait for it, and see to whom the claims belong."""
        for pod in owned:
            ordinal = identity.ordinal(set, pod)
            assert ordinal is not None
            for template in identity.claim_templates(set):
                name = identity.claim_name(set, template, ordinal)
                claim = self.claims.get(meta.namespace(set), name)
                if claim is None or meta.is_deleting(claim):
                    continue
                references = references_for(set, claim, pod, ordinal)
                if references != meta.owner_references(claim):
                    await self._own(claim, references)
            waits = (pod.get("status") or {}).get("phase") == "Pending"
            if waits and not meta.is_deleting(set) and ordinal in identity.ordinals(set):
                error = await self._create_claims(set, ordinal, pod)
                if error is not None:
                    return error
        return None

    async def _own(self, claim: Object, references: list[Object]) -> None:
        body = {**claim, "metadata": {**claim["metadata"], "ownerReferences": references}}
        try:
            written = await self.client.update(PERSISTENT_VOLUME_CLAIMS, body)
        except StatusError as error:
            if error.code == 404:
                return
            raise
        await self.seen(PERSISTENT_VOLUME_CLAIMS, written)

    async def _create_claims(self, set: Object, ordinal: int, pod: Object) -> Exception | None:
        """Make the pod's claims that are not there; the failure, which is told."""
        for claim in claims_for(set, ordinal):
            name = meta.name(claim)
            if self.claims.get(meta.namespace(set), name) is not None:
                continue
            what = f"create Claim {name} Pod {meta.name(pod)} in StatefulSet {meta.name(set)}"
            try:
                made = await self.client.create(PERSISTENT_VOLUME_CLAIMS, claim)
            except StatusError as error:
                if error.reason == "AlreadyExists":
                    continue
                if not namespace_is_leaving(error):
                    self.tell(set, WARNING, "FailedCreate", f"{what} failed error: {error}")
                return error
            self.tell(set, NORMAL, "SuccessfulCreate", f"{what} success")
            await self.seen(PERSISTENT_VOLUME_CLAIMS, made)
        return None

    async def _create(self, set: Object, pod: Object) -> Exception | None:
        """Make a pod and, before it, its claims; the failure, which is told."""
        ordinal = identity.ordinal(set, pod)
        assert ordinal is not None
        for template in identity.claim_templates(set):
            name = identity.claim_name(set, template, ordinal)
            claim = self.claims.get(meta.namespace(set), name)
            if claim is not None and is_stale(claim, None):
                self._waiting[meta.key(claim)] = meta.key(set)
                return None
        error = await self._create_claims(set, ordinal, pod)
        if error is not None:
            return None if namespace_is_leaving(error) else error
        what = f"create Pod {meta.name(pod)} in StatefulSet {meta.name(set)}"
        try:
            made = await self.client.create(PODS, pod)
        except StatusError as failure:
            if failure.reason == "AlreadyExists" or namespace_is_leaving(failure):
                return failure if failure.reason == "AlreadyExists" else None
            self.tell(set, WARNING, "FailedCreate", f"{what} failed error: {failure}")
            return failure
        self.tell(set, NORMAL, "SuccessfulCreate", f"{what} successful")
        await self.seen(PODS, made)
        return None

    async def _delete(self, set: Object, pod: Object) -> Exception | None:
        what = f"delete Pod {meta.name(pod)} in StatefulSet {meta.name(set)}"
        self.removed.add(meta.uid(pod))
        try:
            await self.client.delete(PODS, meta.name(pod), meta.namespace(pod), uid=meta.uid(pod))
        except (StatusError, ConnectionError) as error:
            if isinstance(error, StatusError) and error.code == 404:
                return None
            self.removed.discard(meta.uid(pod))
            self.tell(set, WARNING, "FailedDelete", f"{what} failed error: {error}")
            return error
        self.tell(set, NORMAL, "SuccessfulDelete", f"{what} successful")
        return None

    async def _repair(self, set: Object, pod: Object) -> None:
        """Give a pod the labels of its identity back."""
        ordinal = identity.ordinal(set, pod)
        assert ordinal is not None
        if is_finished(pod):
            return
        labels = identity.identity_labels(set, ordinal)
        patch = {"metadata": {"uid": meta.uid(pod), "labels": labels}}
        try:
            written = await self.client.patch(PODS, meta.name(pod), patch, meta.namespace(pod))
        except StatusError as error:
            if error.code == 404:
                return
            raise
        await self.seen(PODS, written)
