"""The claims of a set's pods: made with the pod, kept or deleted as the retention policy says.

Who owns a claim decides: one that the set owns goes with the set, one that its pod owns goes when
the pod that was scaled away is gone, one that nobody owns stays; the garbage collector does the
rest. (https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/, "retention")
"""

from __future__ import annotations

from wherry.kube.api import meta
from wherry.kube.api.resources import PODS, STATEFUL_SETS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.stateful_set.identity import claim_name, claim_templates, ordinals


def claims_for(set: Object, ordinal: int) -> list[Object]:
    """The claims that the pod with that ordinal needs."""
    labels = dict((set["spec"].get("selector") or {}).get("matchLabels") or {})
    result = []
    for template in claim_templates(set):
        given = template.get("metadata") or {}
        metadata = {
            **given,
            "name": claim_name(set, template, ordinal),
            "namespace": meta.namespace(set),
            "labels": {**(given.get("labels") or {}), **labels},
        }
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": template["spec"]}
        claim["metadata"] = metadata
        references = references_for(set, {"metadata": metadata}, None, ordinal)
        if references:
            metadata["ownerReferences"] = references
        result.append(claim)
    return result


def _deletes(set: Object, moment: str) -> bool:
    policy = set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return bool(policy.get(moment) == "Delete")


def references_for(set: Object, claim: Object, pod: Object | None, ordinal: int) -> list[Object]:
    """The owner references the claim shall have; those of strangers stay.

    Args:
        pod: the pod with that ordinal, where there is one.
    """
    scaled_away = ordinal not in ordinals(set)
    by_pod = _deletes(set, "whenScaled") and scaled_away
    by_set = _deletes(set, "whenDeleted") and not by_pod
    name = f"{meta.name(set)}-{ordinal}"
    result = [
        reference
        for reference in meta.owner_references(claim)
        if reference.get("uid") != meta.uid(set)
        and not (reference.get("kind") == "Pod" and reference.get("name") == name)
    ]
    if by_set:
        result.append(_reference(STATEFUL_SETS.api_version, STATEFUL_SETS.kind, set))
    if by_pod and pod is not None:
        result.append(_reference(PODS.api_version, PODS.kind, pod))
    return result


def _reference(api_version: str, kind: str, owner: Object) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": meta.name(owner),
        "uid": meta.uid(owner),
        "controller": True,
    }


def is_stale(claim: Object, pod: Object | None) -> bool:
    """Whether the claim is on its way out, with a pod that is no more: a new pod waits for that."""
    if meta.is_deleting(claim):
        return True
    return any(
        reference.get("kind") == "Pod" and (pod is None or reference.get("uid") != meta.uid(pod))
        for reference in meta.owner_references(claim)
    )
