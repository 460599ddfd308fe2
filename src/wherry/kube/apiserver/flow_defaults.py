"""The flow schemas and priority levels every cluster has from the start.

Upstream: k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from wherry.kube.api.resources import FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS, Resource

Object = dict[str, Any]

_AUTOUPDATE = {"apf.kubernetes.io/autoupdate-spec": "true"}
_ALL = ("*",)


def _group(name: str) -> Object:
    return {"kind": "Group", "group": {"name": name}}


def _user(name: str) -> Object:
    return {"kind": "User", "user": {"name": name}}


def _account(name: str) -> Object:
    who = {"namespace": "kube-system", "name": name}
    return {"kind": "ServiceAccount", "serviceAccount": who}


def _resources(
    verbs: Sequence[str], groups: Sequence[str], names: Sequence[str], *, cluster: bool = False
) -> Object:
    rule: Object = {"verbs": [*verbs], "apiGroups": [*groups], "resources": [*names]}
    return {**rule, **({"clusterScope": True} if cluster else {}), "namespaces": ["*"]}


def _urls(verbs: Sequence[str], paths: Sequence[str]) -> Object:
    return {"verbs": [*verbs], "nonResourceURLs": [*paths]}


def _rule(
    subjects: Sequence[Object], resources: Sequence[Object], urls: Sequence[Object] = ()
) -> Object:
    rule: Object = {"subjects": [*subjects]}
    if resources:
        rule["resourceRules"] = [*resources]
    if urls:
        rule["nonResourceRules"] = [*urls]
    return rule


def _anything(*subjects: Object) -> Object:
    return _rule(subjects, [_resources(_ALL, _ALL, _ALL, cluster=True)], [_urls(_ALL, _ALL)])


_ANYBODY = (_group("system:unauthenticated"), _group("system:authenticated"))
_MANAGER, _SCHEDULER = _user("system:kube-controller-manager"), _user("system:kube-scheduler")
_NODES = _group("system:nodes")
_KEEP = ("get", "create", "update")
_LEASES = _resources(_KEEP, ("coordination.k8s.io",), ("leases",))
_ENDPOINTS = _resources(_KEEP, ("",), ("endpoints",))
_LOCKS = _resources(_KEEP, ("",), ("endpoints", "configmaps"))
_NODE_STATUS = _resources(_ALL, ("",), ("nodes", "nodes/status"), cluster=True)
_NODE_LEASES = _resources(_ALL, ("coordination.k8s.io",), ("leases",))
_HEALTH = _urls(("get",), ("/healthz", "/readyz", "/livez"))

# One line a schema or level, as a table is read: name, level, precedence, told apart by, rules;
# name, shares, percent it lends, queues, hand, length of a queue.
# ruff: noqa: E501
# fmt: off
_SCHEMAS: tuple[tuple[str, str, int, str, tuple[Object, ...]], ...] = (
    ("exempt", "exempt", 1, "", (_anything(_group("system:masters")),)),
    ("probes", "exempt", 2, "", (_rule(_ANYBODY, (), [_HEALTH]),)),
    ("system-leader-election", "leader-election", 100, "ByUser", (_rule((_MANAGER, _SCHEDULER), [_LOCKS, _LEASES]),)),
    ("endpoint-controller", "workload-high", 150, "ByUser", (_rule((_MANAGER, _account("endpoint-controller"), _account("endpointslicemirroring-controller")), [_ENDPOINTS]),)),
    ("workload-leader-election", "leader-election", 200, "ByUser", (_rule((_account("*"),), [_LOCKS, _LEASES]),)),
    ("system-node-high", "node-high", 400, "ByUser", (_rule((_NODES,), [_NODE_STATUS, _NODE_LEASES]),)),
    ("system-nodes", "system", 500, "ByUser", (_anything(_NODES),)),
    ("kube-controller-manager", "workload-high", 800, "ByNamespace", (_anything(_MANAGER),)),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", (_anything(_SCHEDULER),)),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", (_anything(_account("*")),)),
    ("service-accounts", "workload-low", 9000, "ByUser", (_anything(_group("system:serviceaccounts")),)),
    ("global-default", "global-default", 9900, "ByUser", (_anything(*_ANYBODY),)),
    ("catch-all", "catch-all", 10000, "ByUser", (_anything(*_ANYBODY),)),
)
_LEVELS: tuple[tuple[str, int, int, int, int, int], ...] = (
    ("leader-election", 10, 0, 16, 4, 50),
    ("node-high", 40, 25, 64, 6, 50),
    ("system", 30, 33, 64, 6, 50),
    ("workload-high", 40, 50, 128, 6, 50),
    ("workload-low", 100, 90, 128, 6, 50),
    ("global-default", 20, 50, 128, 6, 50),
)
# fmt: on


def flow_defaults() -> Iterator[tuple[Resource, Object]]:
    """The objects, each with its resource."""
    levels = PRIORITY_LEVEL_CONFIGURATIONS
    exempt = {"nominalConcurrencyShares": 0, "lendablePercent": 0}
    yield levels, _object(levels, "exempt", {"type": "Exempt", "exempt": exempt})
    yield levels, _object(levels, "catch-all", _limited(5, 0, {"type": "Reject"}))
    for name, shares, lent, queues, hand, length in _LEVELS:
        queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": length}
        spec = _limited(shares, lent, {"type": "Queue", "queuing": queuing})
        yield levels, _object(levels, name, spec)
    for name, level, precedence, method, rules in _SCHEMAS:
        spec = {
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence,
            "rules": list(rules),
        }
        if method:
            spec["distinguisherMethod"] = {"type": method}
        yield FLOW_SCHEMAS, _object(FLOW_SCHEMAS, name, spec)


def _limited(shares: int, lent: int, response: Object) -> Object:
    limits = {"nominalConcurrencyShares": shares, "lendablePercent": lent}
    return {"type": "Limited", "limited": {**limits, "limitResponse": response}}


def _object(resource: Resource, name: str, spec: Object) -> Object:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "annotations": dict(_AUTOUPDATE)},
        "spec": spec,
    }
