from __future__ import annotations

import pytest

from wherry.kube.apiserver.authz.rules import EVERYTHING, Rule, compact, missing
from wherry.kube.apiserver.request import NO_QUERY, parse_request


def allowed(rule: Rule, method: str, path: str) -> bool:
    return rule.allows(parse_request(method, path, NO_QUERY))


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


def test_paths_are_allowed_exactly_or_below_a_star() -> None:
    rule = Rule(("get",), urls=("/version", "/openapi/*"))
    assert allowed(rule, "GET", "/version")
    assert allowed(rule, "GET", "/openapi/v3/api/v1")
    assert not allowed(rule, "GET", "/metrics")
    assert not allowed(rule, "GET", "/versions")


@pytest.mark.parametrize(
    ("held", "wanted", "lacking"),
    [
        (Rule(("*",), ("*",), ("*",)), Rule(("get",), ("apps",), ("deployments/scale",)), 0),
        (Rule(("get",), ("*",), ("*/scale",)), Rule(("get",), ("apps",), ("x/scale",)), 0),
        (Rule(("get",), ("",), ("pods",)), Rule(("get", "list"), ("",), ("pods",)), 1),
        (Rule(("get",), ("",), ("pods",), ("a",)), Rule(("get",), ("",), ("pods",)), 1),
        (Rule(("get",), ("",), ("pods",)), Rule(("get",), ("",), ("pods",), ("a",)), 0),
        (Rule(("get",), ("",), ("pods",), ("a",)), Rule(("get",), ("",), ("pods",), ("a", "b")), 1),
        (Rule(("get",), urls=("/a/*",)), Rule(("get",), urls=("/a/b", "/c")), 1),
    ],
)
def test_what_one_rule_lacks_of_another(held: Rule, wanted: Rule, lacking: int) -> None:
    assert len(missing([held], [wanted])) == lacking
    assert missing(EVERYTHING, [wanted]) == []


def test_what_is_lacking_reads_as_upstreams() -> None:
    wanted = [
        Rule(("get", "list"), ("", "apps"), ("pods",)),
        Rule(("get",), ("",), ("secrets",), ("a",)),
        Rule(("get",), urls=("/x",)),
    ]
    assert [str(rule) for rule in compact(missing([], wanted))] == [
        '{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}',
        '{APIGroups:["apps"], Resources:["pods"], Verbs:["get" "list"]}',
        '{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["get"]}',
        '{NonResourceURLs:["/x"], Verbs:["get"]}',
    ]
