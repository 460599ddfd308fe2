"""What makes a pod the n-th of its set: name, labels, host name and the claims of its volumes
(https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#pod-identity)."""

from __future__ import annotations

from wherry.kube.api import meta
from wherry.kube.api.resources import STATEFUL_SETS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.histories import HASH_LABEL
from wherry.kube.controllers.ownership import controller_reference

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


def first_ordinal(set: Object) -> int:
    return int((set["spec"].get("ordinals") or {}).get("start") or 0)


def replicas(set: Object) -> int:
    return int(set["spec"].get("replicas", 1))


def ordinals(set: Object) -> range:
    """The ordinals that the set's pods shall have."""
    first = first_ordinal(set)
    return range(first, first + replicas(set))


def ordinal(set: Object, pod: Object) -> int | None:
    """Which of the set's pods this is by its name; None where the name is not one of the set's."""
    parent, _, number = meta.name(pod).rpartition("-")
    if parent != meta.name(set) or not (number.isascii() and number.isdigit()):
        return None
    return int(number)


def is_pod_of(set: Object, pod: Object) -> bool:
    """Whether the pod's name is one of the set's; its controller may be another."""
    return ordinal(set, pod) is not None


def pod_name(set: Object, ordinal: int) -> str:
    return f"{meta.name(set)}-{ordinal}"


def claim_name(set: Object, template: Object, ordinal: int) -> str:
    return f"{meta.name(template)}-{pod_name(set, ordinal)}"


def claim_templates(set: Object) -> list[Object]:
    return list(set["spec"].get("volumeClaimTemplates") or ())


def identity_labels(set: Object, ordinal: int) -> dict[str, str]:
    return {POD_NAME: pod_name(set, ordinal), POD_INDEX: str(ordinal)}


def revision_of(pod: Object) -> str:
    """The name of the revision the pod was made from."""
    return meta.labels(pod).get(HASH_LABEL, "")


def make_pod(set: Object, template: Object, revision: str, ordinal: int) -> Object:
    """The pod with that ordinal, from the template of ``revision``."""
    given = template.get("metadata") or {}
    metadata: Object = {
        "name": pod_name(set, ordinal),
        "namespace": meta.namespace(set),
        "labels": {
            **(given.get("labels") or {}),
            **identity_labels(set, ordinal),
            HASH_LABEL: revision,
        },
        "ownerReferences": [controller_reference(set, STATEFUL_SETS)],
    }
    for part in ("annotations", "finalizers"):
        if given.get(part):
            metadata[part] = given[part]
    spec = {**template["spec"], "hostname": pod_name(set, ordinal)}
    if set["spec"].get("serviceName"):
        spec["subdomain"] = set["spec"]["serviceName"]
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    for claim in claim_templates(set):
        source = {"claimName": claim_name(set, claim, ordinal)}
        volumes[meta.name(claim)] = {"name": meta.name(claim), "persistentVolumeClaim": source}
    if volumes:
        spec["volumes"] = list(volumes.values())
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
