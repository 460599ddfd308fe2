"""A kubelet writes only what is its own: its Node, its leases, the pods bound to it.

https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction;
upstream: plugin/pkg/admission/noderestriction. What it may read is the Node authorizer's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from wherry.kube.api import references
from wherry.kube.api.resources import (
    CSI_DRIVERS,
    CSI_NODES,
    LEASES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESOURCE_SLICES,
    SERVICE_ACCOUNTS,
    Resource,
)
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.service_account import MIRROR
from wherry.kube.apiserver.authz.node import node_of
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import RequestInfo

_LEASES = "kube-node-lease"
_RESTRICTED = "node-restriction.kubernetes.io"
_KUBELET_LABELS = frozenset(
    (
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    )
)
_KUBELET_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_KUBERNETES_DOMAINS = ("kubernetes.io", "k8s.io")


def admit(attributes: Attributes, context: Context) -> None:
    node = node_of(attributes.user)
    if node is None or attributes.operation == "CONNECT":
        return
    if not node:
        raise attributes.forbidden(f'could not determine node from user "{attributes.user.name}"')
    judge = _JUDGES.get(attributes.resource)
    if judge is not None:
        judge(attributes, node, context)


# --- pods -------------------------------------------------------------------------------------


def _pod(attributes: Attributes, node: str, context: Context) -> None:
    match attributes.subresource, attributes.operation:
        case "", "CREATE":
            _mirror(attributes, node, context)
        case "", "DELETE":
            if attributes.old is not None and _place(attributes.old) != node:
                raise attributes.forbidden(
                    f'node "{node}" can only delete pods with spec.nodeName set to itself'
                )
        case "", operation:
            raise attributes.forbidden(
                f'unexpected operation "{operation}", node "{node}" can only create and delete '
                "mirror pods"
            )
        case "status", "UPDATE":
            _pod_status(attributes, node)
        case "eviction", "CREATE":
            found = context.cache.of(PODS).get(attributes.namespace, attributes.name)
            if found is not None and _place(found.object) != node:
                raise attributes.forbidden(
                    f"node {node} can only evict pods with spec.nodeName set to itself"
                )
        case (("status" | "eviction"), operation):
            raise attributes.forbidden(f'unexpected operation "{operation}"')
        case subresource, _:
            raise attributes.forbidden(
                f"unexpected pod subresource \"{subresource}\", only 'status' and 'eviction' are "
                "allowed"
            )


def _place(pod: Object) -> str:
    name: str = pod["spec"].get("nodeName", "")
    return name


def _pod_status(attributes: Attributes, node: str) -> None:
    assert attributes.old is not None
    old, new = attributes.old, attributes.new
    if _place(old) != node:
        raise attributes.forbidden(
            f'node "{node}" can only update pod status for pods with spec.nodeName '  # noqa: S608
            "set to itself"
        )
    if (new["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {}):
        raise attributes.forbidden(f'node "{node}" cannot update labels through pod status')
    claims = [(o.get("status") or {}).get("resourceClaimStatuses") or [] for o in (old, new)]
    if claims[0] != claims[1]:
        raise attributes.forbidden(f'node "{node}" cannot update resource claim statuses')


def _mirror(attributes: Attributes, node: str, context: Context) -> None:
    """A node creates only mirrors of its own static pods, which refer to nothing."""
    pod = attributes.new
    if MIRROR not in (pod["metadata"].get("annotations") or {}):
        raise attributes.forbidden(
            f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods'
        )
    if _place(pod) != node:
        raise attributes.forbidden(
            f'node "{node}" can only create pods with spec.nodeName set to itself'
        )
    if why := _wrong_owner(pod, node, context):
        raise attributes.forbidden(why)
    needed = references.of_pod(pod)
    for what, there in (
        ("a service account", needed.service_account),
        ("secrets", needed.secrets),
        ("configmaps", needed.config_maps),
        ("persistentvolumeclaims", needed.claims),
        ("resourceclaims", pod["spec"].get("resourceClaims")),
    ):
        if there:
            raise attributes.forbidden(f'node "{node}" can not create pods that reference {what}')


def _wrong_owner(pod: Object, node: str, context: Context) -> str:
    """What is wrong with the owner of a mirror pod, which must be the node alone."""
    owners = pod["metadata"].get("ownerReferences") or []
    if len(owners) > 1:
        return f'node "{node}" can only create pods with a single owner reference set to itself'
    owner = owners[0] if owners else {}
    named = (owner.get("apiVersion"), owner.get("kind"), owner.get("name"))
    if named != ("v1", NODES.kind, node):
        return f'node "{node}" can only create pods with an owner reference set to itself'
    if not owner.get("controller"):
        return f'node "{node}" can only create pods with a controller owner reference set to itself'
    if owner.get("blockOwnerDeletion"):
        return f'node "{node}" must not set blockOwnerDeletion on an owner reference'
    found = context.cache.of(NODES).get("", node)
    uid = "" if found is None else found.object["metadata"]["uid"]
    if owner.get("uid") != uid:
        return f"node {node} UID mismatch: expected {owner.get('uid', '')} got {uid}"
    return ""


# --- nodes ------------------------------------------------------------------------------------


def _node(attributes: Attributes, node: str, context: Context) -> None:
    asked = attributes.name or (attributes.object or {}).get("metadata", {}).get("name", "")
    if asked != node:
        raise attributes.forbidden(f'node "{node}" is not allowed to modify node "{asked}"')
    if attributes.operation == "DELETE":
        return
    new, old = attributes.new, attributes.old
    labels = new["metadata"].get("labels") or {}
    if old is None:
        if forbidden := forbidden_labels(labels, {}):
            raise attributes.forbidden(
                f'node "{node}" is not allowed to set the following labels: {", ".join(forbidden)}'
            )
        return
    if (new.get("spec", {}).get("taints") or []) != (old.get("spec", {}).get("taints") or []):
        raise attributes.forbidden(f'node "{node}" is not allowed to modify taints')
    if forbidden := forbidden_labels(labels, old["metadata"].get("labels") or {}):
        raise attributes.forbidden(f"is not allowed to modify labels: {', '.join(forbidden)}")
    owners = [o["metadata"].get("ownerReferences") or [] for o in (new, old)]
    if owners[0] != owners[1]:
        raise attributes.forbidden(f'node "{node}" is not allowed to modify ownerReferences')


def forbidden_labels(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """The labels among those that differ that no kubelet sets, sorted."""
    changed = {key for key in new.keys() | old.keys() if new.get(key) != old.get(key)}
    return sorted(key for key in changed if _is_forbidden(key))


def _is_forbidden(label: str) -> bool:
    domain, slash, _ = label.partition("/")
    if not slash:
        return False
    if _within(domain, (_RESTRICTED,)):
        return True
    if not _within(domain, _KUBERNETES_DOMAINS):
        return False
    return label not in _KUBELET_LABELS and not _within(domain, _KUBELET_DOMAINS)


def _within(domain: str, domains: tuple[str, ...]) -> bool:
    return any(domain == each or domain.endswith(f".{each}") for each in domains)


# --- what else a kubelet writes -----------------------------------------------------------------


def _claim(attributes: Attributes, node: str, context: Context) -> None:
    if attributes.subresource != "status":
        raise attributes.forbidden("may only update PVC status")
    if attributes.operation != "UPDATE" or attributes.old is None:
        raise attributes.forbidden(f'unexpected operation "{attributes.operation}"')
    if _fixed(attributes.new) != _fixed(attributes.old):
        raise attributes.forbidden(
            f'node "{node}" is not allowed to update fields other than status.capacity and '
            "status.conditions"
        )


_OF_CLAIM = (
    "capacity",
    "conditions",
    "allocatedResources",
    "allocatedResourceStatuses",
)


def _fixed(claim: Object) -> Object:
    """What of a claim is not the node's to change."""
    ignored = ("resourceVersion", "managedFields")
    metadata = {k: v for k, v in claim["metadata"].items() if k not in ignored}
    status = {k: v for k, v in (claim.get("status") or {}).items() if k not in _OF_CLAIM}
    return {**claim, "metadata": metadata, "status": status}


def _token(attributes: Attributes, node: str, context: Context) -> None:
    """A node asks for tokens bound to its pods only."""
    if attributes.operation != "CREATE" or attributes.subresource != "token":
        return
    spec = attributes.new.get("spec") or {}
    bound = spec.get("boundObjectRef") or {}
    named = (bound.get("apiVersion"), bound.get("kind"))
    if named != ("v1", PODS.kind) or not bound.get("name"):
        raise attributes.forbidden("node requested token not bound to a pod")
    if not bound.get("uid"):
        raise attributes.forbidden("node requested token with a pod binding without a uid")
    found = context.cache.of(PODS).get(attributes.namespace, bound["name"])
    if found is None:
        return  # the token is refused for want of its pod
    pod = found.object
    if bound["uid"] != pod["metadata"]["uid"]:
        raise attributes.forbidden(
            f"the UID in the bound object reference ({bound['uid']}) does not match the UID in "
            f"record ({pod['metadata']['uid']}). The object might have been deleted and then "
            "recreated"
        )
    if _place(pod) != node:
        raise attributes.forbidden(
            "node requested token bound to a pod scheduled on a different node"
        )
    _audience(attributes, pod, spec.get("audiences") or [], context)


def _audience(attributes: Attributes, pod: Object, asked: list[str], context: Context) -> None:
    """An audience is one that the pod's volumes name, or one the node has the right to."""
    own = list(context.backend.identities.service_accounts.audiences)
    audiences = [] if asked == own else asked
    if len(audiences) > 1:
        raise attributes.forbidden("node may only request 0 or 1 audiences")
    audience = audiences[0] if audiences else ""
    if audience in _audiences_of(pod, context):
        return
    asking = RequestInfo(
        "",
        "",
        "request-serviceaccounts-token-audience",
        True,
        "",
        "v1",
        audience,
        "",
        attributes.namespace,
        attributes.name,
    )
    if not context.authorizer.allows(attributes.user, asking):
        raise attributes.forbidden(
            f'audience "{audience}" not found in pod spec volume, {attributes.user.name} is not '
            "authorized to request tokens for this audience"
        )


def _audiences_of(pod: Object, context: Context) -> set[str]:
    """Those for which the pod's volumes need tokens; "" is the server's own."""
    found: set[str] = set()
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if (token := source.get("serviceAccountToken")) is not None:
                found.add(token.get("audience") or "")
        if csi := volume.get("csi"):
            driver = context.cache.of(CSI_DRIVERS).get("", csi.get("driver", ""))
            if driver is not None:
                requests = driver.object.get("spec", {}).get("tokenRequests") or ()
                found |= {request.get("audience", "") for request in requests}
    return found


def _lease(attributes: Attributes, node: str, context: Context) -> None:
    if attributes.namespace != _LEASES:
        raise attributes.forbidden(f'can only access leases in the "{_LEASES}" system namespace')
    if _name(attributes) != node:
        raise attributes.forbidden(
            "can only access node lease with the same name as the requesting node"
        )


def _csi_node(attributes: Attributes, node: str, context: Context) -> None:
    if _name(attributes) != node:
        raise attributes.forbidden(
            "can only access CSINode with the same name as the requesting node"
        )


def _slice(attributes: Attributes, node: str, context: Context) -> None:
    verb = {"CREATE": "create", "DELETE": "delete"}.get(attributes.operation)
    o = attributes.object if attributes.operation == "CREATE" else attributes.old
    if verb and (o or {}).get("spec", {}).get("nodeName", "") != node:
        raise attributes.forbidden(
            f"can only {verb} ResourceSlice with the same NodeName as the requesting node"
        )


def _name(attributes: Attributes) -> str:
    if attributes.operation != "CREATE":
        return attributes.name
    name: str = attributes.new["metadata"].get("name", "")
    return name


_JUDGES: dict[Resource, Callable[[Attributes, str, Context], None]] = {
    PODS: _pod,
    NODES: _node,
    PERSISTENT_VOLUME_CLAIMS: _claim,
    SERVICE_ACCOUNTS: _token,
    LEASES: _lease,
    CSI_NODES: _csi_node,
    RESOURCE_SLICES: _slice,
}

CONCERNED = tuple(_JUDGES)
"""What kubelets write."""
