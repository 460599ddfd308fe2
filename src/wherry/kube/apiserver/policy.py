"""The access every cluster grants from the start: to its own components, and to everybody.

After upstream's default roles (plugin/pkg/auth/authorizer/rbac/bootstrappolicy), as far as the
kinds served so far need them. Upstream gives each controller a role of its own; here they share one
user, whose rules are the sum.
"""

from __future__ import annotations

from wherry.kube.apiserver.authn import AUTHENTICATED, UNAUTHENTICATED
from wherry.kube.apiserver.authz import ALL, Grant, Rule

_READ = ("get", "list", "watch")
_CORE = ("",)
_EVENTS = Rule(("create", "patch", "update"), ("", "events.k8s.io"), ("events",))
_LEASES = ("coordination.k8s.io",)
_SLICES = ("discovery.k8s.io",)

_PUBLIC = (Rule(("get",), urls=("/healthz", "/livez", "/readyz", "/version", "/version/")),)

_DISCOVERY = (
    Rule(
        ("get",),
        urls=(
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/healthz",
            "/livez",
            "/openapi",
            "/openapi/*",
            "/readyz",
            "/version",
            "/version/",
        ),
    ),
)

_SCHEDULER = (
    _EVENTS,
    Rule(("create",), _LEASES, ("leases",)),
    Rule(("get", "list", "watch", "update"), _LEASES, ("leases",)),
    Rule(_READ, _CORE, ("nodes", "namespaces", "services", "replicationcontrollers")),
    Rule((*_READ, "delete"), _CORE, ("pods",)),
    Rule(("create",), _CORE, ("pods/binding", "bindings")),
    Rule(("patch", "update"), _CORE, ("pods/status",)),
    Rule(_READ, ("apps",), ("replicasets", "statefulsets")),
    Rule(_READ, _CORE, ("persistentvolumeclaims", "persistentvolumes")),
    Rule(("update",), _CORE, ("persistentvolumeclaims", "persistentvolumes")),
    Rule(_READ, ("policy",), ("poddisruptionbudgets",)),
    Rule(_READ, ("storage.k8s.io",), (ALL,)),
)

_CONTROLLERS = (
    # the garbage collector and the namespace controller meet every kind there is
    Rule((*_READ, "delete", "deletecollection", "patch", "update"), (ALL,), (ALL,)),
    Rule(
        ("create",),
        _CORE,
        (
            "events",
            "endpoints",
            "pods",
            "replicationcontrollers",
            "secrets",
            "serviceaccounts",
            "serviceaccounts/token",
            "configmaps",
            "pods/eviction",
        ),
    ),
    Rule(("create",), ("events.k8s.io",), ("events",)),
    Rule(("create",), _SLICES, ("endpointslices",)),
    Rule(("create",), _LEASES, ("leases",)),
    Rule(("create",), ("apps", "batch"), (ALL,)),
    Rule(("approve", "sign"), ("certificates.k8s.io",), ("signers",)),
    Rule(("create",), ("authorization.k8s.io",), ("subjectaccessreviews",)),
)

_NODES = (
    _EVENTS,
    Rule(_READ, _CORE, ("services", "nodes", "pods", "namespaces")),
    Rule(("create", "update", "patch"), _CORE, ("nodes",)),
    Rule(("update", "patch"), _CORE, ("nodes/status", "pods/status")),
    Rule(("create", "delete"), _CORE, ("pods",)),
    Rule(("create",), _CORE, ("pods/eviction", "serviceaccounts/token")),
    Rule(_READ, _CORE, ("configmaps", "secrets", "serviceaccounts")),
    Rule(("get",), _CORE, ("endpoints", "persistentvolumeclaims", "persistentvolumes")),
    Rule(("get", "create", "update", "patch", "delete"), _LEASES, ("leases",)),
    Rule(_READ, ("node.k8s.io",), ("runtimeclasses",)),
    Rule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
    Rule(("create",), ("authorization.k8s.io",), ("subjectaccessreviews",)),
    Rule((*_READ, "create"), ("certificates.k8s.io",), ("certificatesigningrequests",)),
)

_PROXY = (
    _EVENTS,
    Rule(("list", "watch"), _CORE, ("services", "endpoints")),
    Rule(_READ, _CORE, ("nodes",)),
    Rule(("list", "watch"), _SLICES, ("endpointslices",)),
)

_EVERYTHING = (Rule((ALL,), (ALL,), (ALL,)), Rule((ALL,), urls=(ALL,)))

GRANTS: tuple[Grant, ...] = (
    Grant(_EVERYTHING, groups=("system:masters", "kubeadm:cluster-admins")),
    Grant(_PUBLIC, groups=(AUTHENTICATED, UNAUTHENTICATED)),
    Grant(_DISCOVERY, groups=(AUTHENTICATED,)),
    Grant(_SCHEDULER, users=("system:kube-scheduler",)),
    Grant(_CONTROLLERS, users=("system:kube-controller-manager",)),
    Grant(_NODES, groups=("system:nodes",)),
    Grant(_PROXY, users=("system:kube-proxy",)),
)
