"""The Node authorizer: a kubelet reads and writes what concerns its own node and the pods on it.

https://kubernetes.io/docs/reference/access-authn-authz/node/; upstream:
plugin/pkg/auth/authorizer/node. That it writes only its own objects is for the admission plugin
NodeRestriction to see to, which knows what is written.
"""

from __future__ import annotations

from collections.abc import Callable

from wherry.kube.api.errors import StatusError
from wherry.kube.api.selectors import parse_fields
from wherry.kube.apiserver.authz.decision import ALLOWED, NO_OPINION, Decision
from wherry.kube.apiserver.authz.graph import Graph
from wherry.kube.apiserver.authz.rules import Rule
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.request import RequestInfo, User

_USER = "system:node:"
_GROUP = "system:nodes"
_LEASES = "kube-node-lease"
_READ = ("get", "list", "watch")
_OWN = ("get", "create", "update", "patch", "delete")

_Related = Callable[[str, str, str], bool]
"""Whether a node needs the object of that namespace and name."""
_Judge = Callable[[str, RequestInfo], Decision]


def node_of(user: User) -> str | None:
    """The node whose kubelet asks; "" where it does not say which, None if it is no kubelet."""
    if _GROUP in user.groups and user.name.startswith(_USER):
        return user.name[len(_USER) :]
    return None


class NodeAuthorizer:
    """Decides for kubelets; others it has no opinion of. ``rules``: those of ``system:node``,
    for what is not judged by the graph."""

    def __init__(self, cache: Cache, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        graph = self._graph = Graph(cache)
        self._judges: dict[tuple[str, str], _Judge] = {
            ("", "secrets"): _reads(graph.secret),
            ("", "configmaps"): _reads(graph.config_map),
            ("", "persistentvolumeclaims"): _claim(graph.claim),
            ("", "persistentvolumes"): _gets(graph.volume),
            ("", "serviceaccounts"): _account(graph.service_account),
            ("", "nodes"): _node,
            ("", "pods"): _pod(graph.pod),
            ("resource.k8s.io", "resourceclaims"): _gets(graph.resource_claim),
            ("resource.k8s.io", "resourceslices"): _slice(graph.slice),
            ("storage.k8s.io", "volumeattachments"): _gets(graph.attachment),
            ("storage.k8s.io", "csinodes"): _csi_node,
            ("coordination.k8s.io", "leases"): _lease,
        }

    def follow(self) -> None:
        """Keep to the cache from now on."""
        self._graph.follow()

    def decide(self, user: User, info: RequestInfo) -> Decision:
        node = node_of(user)
        if node is None:
            return NO_OPINION
        if not node:
            return Decision(reason=f'unknown node for user "{user.name}"')
        if info.is_resource and (judge := self._judges.get((info.group, info.plural))):
            return judge(node, info)
        return ALLOWED if any(rule.allows(info) for rule in self._rules) else NO_OPINION

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        if node_of(user) is None:
            return [], []
        return [], ["node authorizer does not support user rule resolution"]

    def incomplete(self, user: User) -> bool:
        return node_of(user) is not None


# --- one function a resource ------------------------------------------------------------------


def _related(related: _Related, node: str, info: RequestInfo) -> Decision:
    if not info.name:
        return Decision(reason="No Object name found")
    if related(node, info.namespace, info.name):
        return ALLOWED
    return Decision(reason=f"no relationship found between node '{node}' and this object")


def _reads(related: _Related) -> _Judge:
    def judge(node: str, info: RequestInfo) -> Decision:
        if info.verb not in _READ:
            return Decision(reason="can only read resources of this type")
        if info.subresource:
            return Decision(reason="cannot read subresource")
        if not info.namespace:
            return Decision(reason="can only read namespaced object of this type")
        return _related(related, node, info)

    return judge


def _gets(related: _Related) -> _Judge:
    def judge(node: str, info: RequestInfo) -> Decision:
        if info.verb != "get":
            return Decision(reason="can only get individual resources of this type")
        if info.subresource:
            return Decision(reason="cannot get subresource")
        return _related(related, node, info)

    return judge


def _claim(related: _Related) -> _Judge:
    get = _gets(related)

    def judge(node: str, info: RequestInfo) -> Decision:
        if info.subresource != "status":
            return get(node, info)
        if info.verb not in ("update", "patch"):
            return Decision(reason="can only get/update/patch this type")
        return _related(related, node, info)

    return judge


def _account(related: _Related) -> _Judge:
    def judge(node: str, info: RequestInfo) -> Decision:
        if info.verb == "get" and not info.subresource:  # for credential providers of the kubelet
            return _related(related, node, info)
        if info.verb != "create" or not info.name:
            return Decision(reason="can only create tokens for individual service accounts")
        if info.subresource != "token":
            return Decision(reason="can only create token subresource of serviceaccount")
        return _related(related, node, info)

    return judge


def _node(node: str, info: RequestInfo) -> Decision:
    if info.subresource == "status":
        return ALLOWED if info.verb in ("update", "patch") else NO_OPINION
    if info.subresource:
        return NO_OPINION
    if info.verb in ("create", "update", "patch"):
        return ALLOWED
    if info.verb not in _READ:
        return NO_OPINION
    if info.name == node:
        return ALLOWED
    which = f"'{info.name}'" if info.name else "all nodes"
    return Decision(reason=f"node '{node}' cannot read {which}, only its own Node object")


def _pod(related: _Related) -> _Judge:
    get = _gets(related)

    def judge(node: str, info: RequestInfo) -> Decision:
        match info.subresource, info.verb:
            case "", "get":
                return get(node, info)
            case "", "list" | "watch":
                if _selects(info, "spec.nodeName", node):
                    return ALLOWED
                if info.name:
                    return _related(related, node, info)
                return Decision(reason="can only list/watch pods with spec.nodeName field selector")
            case (
                ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create")
            ):
                return ALLOWED
        return NO_OPINION

    return judge


def _lease(node: str, info: RequestInfo) -> Decision:
    if info.verb not in _OWN:
        return Decision(reason="can only get, create, update, patch, or delete a node lease")
    if info.namespace != _LEASES:
        return Decision(reason=f'can only access leases in the "{_LEASES}" system namespace')
    if info.verb != "create" and info.name != node:
        return Decision(
            reason="can only access node lease with the same name as the requesting node"
        )
    return ALLOWED


def _csi_node(node: str, info: RequestInfo) -> Decision:
    if info.verb not in _OWN:
        return Decision(reason="can only get, create, update, patch, or delete a CSINode")
    if info.subresource:
        return Decision(reason="cannot authorize CSINode subresources")
    if info.verb != "create" and info.name != node:
        return Decision(reason="can only access CSINode with the same name as the requesting node")
    return ALLOWED


def _slice(related: _Related) -> _Judge:
    def judge(node: str, info: RequestInfo) -> Decision:
        if info.subresource:
            return Decision(reason="cannot authorize ResourceSlice subresources")
        match info.verb:
            case "create":
                return ALLOWED
            case "get" | "update" | "patch" | "delete":
                return _related(related, node, info)
            case "list" | "watch" | "deletecollection":
                if _selects(info, "spec.nodeName", node):
                    return ALLOWED
                return Decision(
                    reason="can only list/watch/deletecollection resourceslices with nodeName "
                    "field selector"
                )
        return Decision(
            reason="only the following verbs are allowed for a ResourceSlice: get, watch, list, "
            "create, update, patch, delete, deletecollection"
        )

    return judge


def _selects(info: RequestInfo, field: str, value: str) -> bool:
    """Whether the request's field selector asks for that value alone."""
    if not info.field_selector:
        return False
    try:
        return parse_fields(info.field_selector).exact(field) == value
    except StatusError:
        return False
