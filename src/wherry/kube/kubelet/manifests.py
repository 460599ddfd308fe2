"""Pods that a file on the node describes: from its text to the pod as the kubelet runs it. No I/O.

Follows pkg/kubelet/config/common.go and
https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/.
"""

from __future__ import annotations

import hashlib
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PODS
from wherry.kube.kubelet.volumes import sources

Object = dict[str, Any]

SOURCE, HASH = "kubernetes.io/config.source", "kubernetes.io/config.hash"
SEEN, MIRROR = "kubernetes.io/config.seen", "kubernetes.io/config.mirror"


class ManifestFault(Exception):
    """The file describes no pod that can be run; the text says why."""


def static_pod(text: bytes, path: str, node_name: str) -> Object:
    """The pod that the file at ``path`` describes, as node ``node_name`` runs it.

    Raises:
        ManifestFault: it describes none, a faulty one, or one that needs objects of the API.
    """
    # Most nodes have no such file, and need none of the rules of all kinds.
    from wherry.kube.api import schema
    from wherry.kube.api.bodies import parse_yaml
    from wherry.kube.api.kinds import KINDS

    try:
        value, _duplicates = parse_yaml(text, "Pod")
        if not isinstance(value, dict) or value.get("kind") != "Pod":
            raise ManifestFault("it is no Pod")
        pod = schema.decode(PODS, value).value
        metadata = pod.setdefault("metadata", {})
        if not metadata.get("name"):
            raise ManifestFault("metadata.name: Required value")
        metadata["name"] = f"{metadata['name']}-{node_name}".lower()
        metadata.setdefault("namespace", "default")
        kind = KINDS[PODS.group, PODS.version, PODS.plural]
        kind.default(pod)
        faults = kind.validate_body(pod)
    except StatusError as error:
        raise ManifestFault(error.message) from error
    if faults:
        raise ManifestFault("; ".join(str(fault) for fault in faults))
    spec = pod["spec"]
    if sources.references(pod) or spec.get("serviceAccountName"):
        raise ManifestFault("a static pod may not refer to objects of the API")
    digest = hashlib.md5(usedforsecurity=False)
    for part in (text, path.encode(), node_name.encode()):
        digest.update(part + b"\0")
    metadata["uid"] = digest.hexdigest()
    own = {SOURCE: "file", HASH: metadata["uid"], SEEN: meta.now()}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **own}
    metadata["creationTimestamp"] = own[SEEN]
    spec["nodeName"] = node_name
    # It stays, whatever befalls the node.
    spec["tolerations"] = [
        *(spec.get("tolerations") or ()),
        {"operator": "Exists", "effect": "NoExecute"},
    ]
    pod["status"] = {"phase": "Pending"}
    return pod


def mirror_of(pod: Object, node: Object | None) -> Object:
    """What stands for a static pod in the API; ``node`` owns it."""
    own = meta.annotations(pod)
    metadata: Object = {
        "name": meta.name(pod),
        "namespace": meta.namespace(pod),
        "labels": meta.labels(pod),
        "annotations": {**own, MIRROR: own[HASH]},
    }
    if node is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": "v1",
                "kind": "Node",
                "name": meta.name(node),
                "uid": meta.uid(node),
                "controller": True,
            }
        ]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}


def is_static(pod: Object) -> bool:
    """Whether a file describes ``pod``, not the API."""
    return meta.annotations(pod).get(SOURCE) == "file"


def mirrors(pod: Object) -> str:
    """The hash of the static pod for which ``pod`` stands; empty for a pod of its own."""
    return meta.annotations(pod).get(MIRROR, "")
