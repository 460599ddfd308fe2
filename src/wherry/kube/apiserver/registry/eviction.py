"""pods/eviction: a delete that asks the pod's disruption budget first.

A budget is charged by comparing and swapping its status, so that of many evictions at once, on
whichever server, no more pass than it allows. The pod is written down as disrupted there; the
disruption controller counts it out until it has gone.
Upstream: pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from dataclasses import replace

from wherry.kube.api import pods
from wherry.kube.api.conditions import find
from wherry.kube.api.errors import StatusError, bad_request, conflict, forbidden
from wherry.kube.api.meta import now
from wherry.kube.api.resources import POD_DISRUPTION_BUDGETS, PODS
from wherry.kube.api.selectors import labels_from_object
from wherry.kube.apiserver.answers import Single
from wherry.kube.apiserver.content import read_kind
from wherry.kube.apiserver.objects import Object, Stored, answer
from wherry.kube.apiserver.options import (
    DeleteOptions,
    WriteOptions,
    dry_run,
    parse_delete_options,
    parse_write_options,
)
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.registry.deleting import remove
from wherry.kube.apiserver.registry.records import Changed
from wherry.kube.apiserver.request import NO_QUERY, APIRequest

_SCHEMA = "io.k8s.api.policy.v1.Eviction"
_VERSIONS = ("policy/v1", "policy/v1beta1")
_MOST_DISRUPTED = 2000
_ATTEMPTS = 20
_VIOLATED = "Cannot evict pod as it would violate the pod's disruption budget."


async def evict(backend: Backend, request: APIRequest) -> Single:
    """POST of an Eviction."""
    options = parse_write_options(request.query, "CreateOptions", request.user_agent)
    eviction = _read(request, options)
    name = request.info.name
    if eviction["metadata"].get("name", name) != name:
        raise bad_request("name in URL does not match name in Eviction object")
    given = parse_delete_options(eviction.get("deleteOptions") or {}, NO_QUERY)
    dry = given.dry_run or options.dry_run or dry_run(request.query.all("dryRun"), "Eviction")
    deletion = replace(given, dry_run=dry)
    await backend.admit(request, eviction, options)
    for attempt in range(_ATTEMPTS):
        try:
            return await _attempt(backend, request, deletion)
        except StatusError as error:
            last = attempt + 1 == _ATTEMPTS
            if error.reason != "Conflict" or deletion.revision is not None or last:
                raise
    raise AssertionError("unreachable")


def _read(request: APIRequest, options: WriteOptions) -> Object:
    """The Eviction, in either of its versions."""
    body = request.body
    version = _VERSIONS[0]
    if body.decoded and isinstance(body.value, dict):
        version = body.value.get("apiVersion", version)
    elif _VERSIONS[1].encode() in body.data:
        version = _VERSIONS[1]
    if version not in _VERSIONS:
        version = _VERSIONS[0]
    return read_kind(request, _SCHEMA, version, "Eviction", options.field_validation)


async def _attempt(backend: Backend, request: APIRequest, deletion: DeleteOptions) -> Single:
    namespace, name = request.info.namespace, request.info.name
    stored = backend.records(PODS).get(namespace, name)
    pod = stored.object
    if ignores_budgets(pod):
        if not _ended(pod) and deletion.revision is None:
            deletion = replace(deletion, revision=str(stored.revision))
        return await _delete(backend, request, stored, deletion)
    budgets = [b for b in _budgets(backend, namespace) if _covers(b.object, pod)]
    if len(budgets) > 1:
        return _status(
            "Failure",
            500,
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does "
            "not support.",
        )
    if not budgets:
        return await _delete(backend, request, stored, deletion)
    budget = budgets[0].object
    if not pods.is_ready(pod) and spares_unready(budget):
        # It was no healthy one; that must still be so when it goes.
        try:
            pinned = replace(deletion, revision=deletion.revision or str(stored.revision))
            return await _delete(backend, request, stored, pinned)
        except StatusError as error:
            if error.reason == "Conflict" and deletion.revision is None:
                raise _still_processed(budget["metadata"]["name"]) from error
            raise
    await _charge(backend, namespace, budget["metadata"]["name"], name, deletion)
    return await _delete(backend, request, stored, deletion)


def _budgets(backend: Backend, namespace: str) -> list[Stored]:
    return list(backend.records(POD_DISRUPTION_BUDGETS).cache.list(namespace))


def _covers(budget: Object, pod: Object) -> bool:
    given = (budget.get("spec") or {}).get("selector")
    if given is None:
        return False
    return bool(labels_from_object(given).matches(pod["metadata"].get("labels") or {}))


def _ended(pod: Object) -> bool:
    return not pods.is_active(pod)


def ignores_budgets(pod: Object) -> bool:
    """Whether it runs nothing that a budget could protect."""
    return _ended(pod) or pods.phase(pod) == "Pending"


def spares_unready(budget: Object) -> bool:
    """Whether a pod that is not ready may go without being charged."""
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy", 0)
    return bool(status.get("currentHealthy", 0) >= desired > 0)


async def _charge(
    backend: Backend, namespace: str, budget: str, pod: str, deletion: DeleteOptions
) -> None:
    """Take one disruption of the budget. Raises StatusError 429, 403."""
    records = backend.records(POD_DISRUPTION_BUDGETS)
    async with backend.turn(POD_DISRUPTION_BUDGETS, namespace, budget):
        while True:
            old = records.get(namespace, budget)
            new = charged(old.object, pod, now())
            if deletion.dry_run:
                return
            try:
                await records.update(new, old)
                return
            except Changed:
                continue


def charged(budget: Object, pod: str, moment: str) -> Object:
    """The budget after one more disruption, of ``pod``.

    Raises:
        StatusError: 429, it allows none; 403, it is not to be trusted.
    """
    metadata, status = budget["metadata"], budget.get("status") or {}
    name = metadata["name"]
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        raise _still_processed(name)
    allowed = status.get("disruptionsAllowed", 0)
    if allowed < 0:
        raise forbidden(
            "poddisruptionbudget", name, "pdb disruptions allowed is negative", "policy"
        )
    disrupted = status.get("disruptedPods") or {}
    if len(disrupted) > _MOST_DISRUPTED:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise forbidden("poddisruptionbudget", name, why, "policy")
    if not allowed:
        raise _refused(_why_none(name, status))
    conditions = status.get("conditions") or []
    if allowed == 1:
        conditions = with_disruption_allowed(conditions, 0, metadata.get("generation", 0), moment)
    return {
        **budget,
        "status": {
            **status,
            "disruptionsAllowed": allowed - 1,
            "disruptedPods": {**disrupted, pod: moment},
            "conditions": conditions,
        },
    }


def with_disruption_allowed(
    conditions: list[Object], allowed: int, generation: int, moment: str
) -> list[Object]:
    """The conditions with the one that says whether there is any disruption left."""
    new = {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "observedGeneration": generation,
        "lastTransitionTime": moment,
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": "",
    }
    out = []
    for found in conditions:
        if found.get("type") != new["type"]:
            out.append(found)
        elif found.get("status") == new["status"]:
            new["lastTransitionTime"] = found.get("lastTransitionTime", moment)
    return [*out, new]


def _why_none(name: str, status: Object) -> str:
    allowed = find(status.get("conditions") or (), "DisruptionAllowed")
    subject = f"The disruption budget {name}"
    if allowed is not None and allowed.get("reason") == "SyncFailed":
        why = allowed.get("message", "")
        return f"{subject} does not allow evicting pods currently because it failed sync: {why}"
    healthy, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    if healthy <= desired:
        return f"{subject} needs {desired} healthy pods and has {healthy} currently"
    return f"{subject} does not allow evicting pods currently"


def _refused(cause: str, retry_after: int = 0) -> StatusError:
    details: Object = {"causes": [{"reason": "DisruptionBudget", "message": cause}]}
    if retry_after:
        details["retryAfterSeconds"] = retry_after
    return StatusError(429, "TooManyRequests", _VIOLATED, details=details)


def _still_processed(name: str) -> StatusError:
    return _refused(f"The disruption budget {name} is still being processed by the server.", 10)


async def _delete(
    backend: Backend, request: APIRequest, stored: Stored, deletion: DeleteOptions
) -> Single:
    """Say in the pod's status why it goes, then delete it."""
    namespace, name = request.info.namespace, request.info.name
    revision = deletion.revision
    if revision is not None and revision != str(stored.revision):
        why = (
            f"the ResourceVersion in the precondition ({revision}) does not match the "
            f"ResourceVersion in record ({stored.revision}). The object might have been modified"
        )
        raise conflict("Pod", name, why)
    if not deletion.dry_run and not _ended(stored.object):
        try:
            stored = await backend.records(PODS).update(_marked(stored.object), stored)
        except Changed as error:
            raise backend.records(PODS).conflict(name) from error
        if revision is not None:
            deletion = replace(deletion, revision=str(stored.revision))
    await remove(backend, request, namespace, name, deletion, admitted=False)
    return _status("Success", 201)


def _marked(pod: Object) -> Object:
    status = pod.get("status") or {}
    moment = now()
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "observedGeneration": pod["metadata"].get("generation", 0),
        "lastProbeTime": None,
        "lastTransitionTime": moment,
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    others = [c for c in status.get("conditions") or () if c.get("type") != condition["type"]]
    return {
        **pod,
        "metadata": {**pod["metadata"]},
        "status": {**status, "conditions": [*others, condition]},
    }


def _status(status: str, code: int, message: str = "") -> Single:
    o: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": status}
    if message:
        o["message"] = message
    o["code"] = code
    return Single(answer(o), code=code)
