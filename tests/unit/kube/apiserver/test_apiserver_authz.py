from __future__ import annotations

import pytest

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.authn import (
    ANONYMOUS,
    impersonate,
    known,
)
from wherry.kube.apiserver.authz import Authorizer, Grant, Rule, refusal
from wherry.kube.apiserver.policy import GRANTS
from wherry.kube.apiserver.request import NO_QUERY, User, parse_request

BOB = known("bob")


def allowed(rule: Rule, method: str, path: str, *, namespace: str = "") -> bool:
    authorizer = Authorizer((Grant((rule,), users=("bob",), namespace=namespace),))
    return authorizer.allows(BOB, parse_request(method, path, NO_QUERY))


def test_a_rule_allows_its_verbs_on_its_resources() -> None:
    rule = Rule(("get", "list"), ("",), ("pods",))
    assert allowed(rule, "GET", "/api/v1/namespaces/a/pods/p")
    assert allowed(rule, "GET", "/api/v1/pods")
    assert not allowed(rule, "DELETE", "/api/v1/namespaces/a/pods/p")
    assert not allowed(rule, "GET", "/api/v1/secrets")
    assert not allowed(rule, "GET", "/apis/apps/v1/deployments")


def test_a_subresource_is_a_resource_of_its_own() -> None:
    assert not allowed(Rule(("get",), ("",), ("pods",)), "GET", "/api/v1/namespaces/a/pods/p/log")
    assert allowed(Rule(("get",), ("",), ("pods/log",)), "GET", "/api/v1/namespaces/a/pods/p/log")
    any_scale = Rule(("get",), ("*",), ("*/scale",))
    assert allowed(any_scale, "GET", "/apis/apps/v1/namespaces/a/deployments/d/scale")
    assert not allowed(any_scale, "GET", "/apis/apps/v1/namespaces/a/deployments/d")


def test_a_rule_may_be_for_names() -> None:
    rule = Rule(("get",), ("",), ("secrets",), names=("mine",))
    assert allowed(rule, "GET", "/api/v1/namespaces/a/secrets/mine")
    assert not allowed(rule, "GET", "/api/v1/namespaces/a/secrets/other")


def test_a_grant_may_be_for_one_namespace() -> None:
    rule = Rule(("*",), ("*",), ("*",))
    assert allowed(rule, "GET", "/api/v1/namespaces/a/pods", namespace="a")
    assert not allowed(rule, "GET", "/api/v1/namespaces/b/pods", namespace="a")
    assert not allowed(rule, "GET", "/api/v1/pods", namespace="a")


def test_paths_are_allowed_exactly_or_below_a_star() -> None:
    rule = Rule(("get",), urls=("/version", "/openapi/*"))
    assert allowed(rule, "GET", "/version")
    assert allowed(rule, "GET", "/openapi/v3/api/v1")
    assert not allowed(rule, "GET", "/metrics")
    assert not allowed(rule, "GET", "/versions")


def test_masters_may_everything_and_strangers_learn_the_version() -> None:
    authorizer = Authorizer(GRANTS)
    root = User("root", ("system:masters",))
    delete = parse_request("DELETE", "/api/v1/nodes/n", NO_QUERY)
    assert authorizer.allows(root, delete) and not authorizer.allows(BOB, delete)
    version = parse_request("GET", "/version", NO_QUERY)
    apis = parse_request("GET", "/apis", NO_QUERY)
    assert authorizer.allows(ANONYMOUS, version) and not authorizer.allows(ANONYMOUS, apis)
    assert authorizer.allows(BOB, apis)


def test_a_refused_path_is_named() -> None:
    error = refusal(ANONYMOUS, parse_request("GET", "/", NO_QUERY))
    assert error.message == 'forbidden: User "system:anonymous" cannot get path "/"'


def test_impersonation_is_a_right_of_its_own() -> None:
    authorizer = Authorizer(GRANTS)
    root = User("root", ("system:masters",))
    assert impersonate(root, "bob", ["dev"], authorizer) == known("bob", ("dev",))
    with pytest.raises(StatusError, match='User "bob" cannot impersonate resource "users"'):
        impersonate(BOB, "root", [], authorizer)
    with pytest.raises(StatusError, match="without impersonating a user"):
        impersonate(root, "", ["dev"], authorizer)
