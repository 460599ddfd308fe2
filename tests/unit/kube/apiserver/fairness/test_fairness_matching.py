"""Which schema a request belongs to, among those that every cluster has."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.kube.api.resources import FLOW_SCHEMAS
from wherry.kube.apiserver.authn import known
from wherry.kube.apiserver.fairness.matching import distinguisher, in_order, matches
from wherry.kube.apiserver.flow_defaults import flow_defaults
from wherry.kube.apiserver.request import User, parse_query, parse_request

SCHEMAS = in_order([o for resource, o in flow_defaults() if resource is FLOW_SCHEMAS])
NODE = known("system:node:n", ("system:nodes",))
PODS = "/api/v1/namespaces/default/pods"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n"


def found(user: User, method: str, path: str) -> tuple[str, str]:
    info = parse_request(method, path, parse_query(""))
    schema: dict[str, Any] = next(s for s in SCHEMAS if matches(s, user, info))
    return schema["metadata"]["name"], distinguisher(schema, user, info)


@pytest.mark.parametrize(
    ("user", "method", "path", "name", "flow"),
    [
        (known("admin", ("system:masters",)), "GET", PODS, "exempt", ""),
        (known("eve"), "GET", "/readyz", "probes", ""),
        (known("eve"), "GET", PODS, "global-default", "eve"),
        (known("eve"), "GET", "/version", "global-default", "eve"),
        (NODE, "PUT", LEASES, "system-node-high", "system:node:n"),
        (NODE, "GET", PODS, "system-nodes", "system:node:n"),
        (known("system:kube-scheduler"), "GET", PODS, "kube-scheduler", "default"),
        (
            known("system:serviceaccount:kube-system:endpoint-controller"),
            "PUT",
            "/api/v1/namespaces/default/endpoints/e",
            "endpoint-controller",
            "system:serviceaccount:kube-system:endpoint-controller",
        ),
        (
            known("system:serviceaccount:kube-system:job-controller"),
            "GET",
            PODS,
            "kube-system-service-accounts",
            "default",
        ),
        (
            known("system:serviceaccount:default:app", ("system:serviceaccounts",)),
            "GET",
            PODS,
            "service-accounts",
            "system:serviceaccount:default:app",
        ),
    ],
)  # fmt: skip
def test_each_of_a_clusters_users_has_his_schema_and_flow(
    user: User, method: str, path: str, name: str, flow: str
) -> None:
    assert found(user, method, path) == (name, flow)


def test_a_request_without_namespace_is_only_matched_where_the_rule_says_so() -> None:
    rule = {
        "subjects": [{"kind": "User", "user": {"name": "*"}}],
        "resourceRules": [
            {"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["default"]}
        ],
    }
    schema = {"metadata": {"name": "x"}, "spec": {"rules": [rule]}}
    eve = known("eve")
    for path, expected in ((PODS, True), ("/api/v1/pods", False), (f"{PODS}/a/status", False)):
        assert matches(schema, eve, parse_request("GET", path, parse_query(""))) is expected
