from __future__ import annotations

from typing import Any

import pytest
from apiserver_harness import API, Object

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.authn import known
from wherry.kube.apiserver.server import APIServer

GROUP = "/apis/authorization.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
PODS = {"resource": "pods", "verb": "list", "namespace": "default"}


async def review(api: API, kind: str, spec: Object, path: str = "") -> Object:
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
    answer = await api("POST", path or f"{GROUP}/{kind.lower()}s", body)
    assert answer["kind"] == kind
    status: Object = answer["status"]
    return status


@pytest.fixture
async def granted(api: API) -> None:
    body: Object = {
        "metadata": {"name": "r"},
        "rules": [{"verbs": ["list"], "resources": ["pods"], "apiGroups": [""]}],
    }
    await api("POST", f"{RBAC}/namespaces/default/roles", body)
    body = {
        "metadata": {"name": "b"},
        "roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [
            {"kind": "User", "name": "bob"},
            {"kind": "ServiceAccount", "name": "robot", "namespace": "default"},
        ],
    }
    await api("POST", f"{RBAC}/namespaces/default/rolebindings", body)


@pytest.mark.usefixtures("granted")
async def test_may_somebody(api: API) -> None:
    spec = {"user": "bob", "resourceAttributes": PODS}
    assert await review(api, "SubjectAccessReview", spec) == {
        "allowed": True,
        "reason": 'RBAC: allowed by RoleBinding "b/default" of Role "r" to User "bob"',
    }
    spec["user"] = "system:serviceaccount:default:robot"
    status = await review(api, "SubjectAccessReview", spec)
    assert status["reason"].endswith('to ServiceAccount "robot/default"')
    spec["user"] = "eve"
    assert await review(api, "SubjectAccessReview", spec) == {"allowed": False}
    path: Object = {"user": "bob", "nonResourceAttributes": {"path": "/metrics", "verb": "get"}}
    assert not (await review(api, "SubjectAccessReview", path))["allowed"]
    path["groups"] = ["system:masters"]
    assert (await review(api, "SubjectAccessReview", path))["allowed"]


@pytest.mark.usefixtures("granted")
async def test_in_a_namespace(api: API) -> None:
    path = f"{GROUP}/namespaces/default/localsubjectaccessreviews"
    spec = {"user": "bob", "resourceAttributes": PODS}
    assert (await review(api, "LocalSubjectAccessReview", spec, path))["allowed"]
    spec["resourceAttributes"] = {**PODS, "namespace": "other"}
    with pytest.raises(StatusError, match=r"must match metadata\.namespace"):
        await review(api, "LocalSubjectAccessReview", spec, path)


@pytest.mark.usefixtures("granted")
async def test_what_may_i(server: APIServer) -> None:
    bob = API(server.transport(known("bob")))
    mine = {"resourceAttributes": PODS}
    assert (await review(bob, "SelfSubjectAccessReview", mine))["allowed"]
    other = {"resourceAttributes": {**PODS, "verb": "delete"}}
    assert await review(bob, "SelfSubjectAccessReview", other) == {"allowed": False}
    rules = await review(bob, "SelfSubjectRulesReview", {"namespace": "default"})
    listed = {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}
    assert listed in rules["resourceRules"] and rules["incomplete"] is False
    urls = [url for rule in rules["nonResourceRules"] for url in rule["nonResourceURLs"]]
    assert "/apis" in urls and "/version" in urls
    elsewhere = await review(bob, "SelfSubjectRulesReview", {"namespace": "other"})
    assert listed not in elsewhere["resourceRules"]


async def test_a_kubelet_asks_with_a_selector(api: API) -> None:
    asked: Object = {
        "user": "system:node:n1",
        "groups": ["system:nodes"],
        "resourceAttributes": {"resource": "pods", "verb": "list"},
    }
    assert not (await review(api, "SubjectAccessReview", asked))["allowed"]
    own = {"key": "spec.nodeName", "operator": "In", "values": ["n1"]}
    asked["resourceAttributes"]["fieldSelector"] = {"requirements": [own]}
    assert (await review(api, "SubjectAccessReview", asked))["allowed"]
    asked["resourceAttributes"]["fieldSelector"] = {"rawSelector": "spec.nodeName=n1"}
    assert (await review(api, "SubjectAccessReview", asked))["allowed"]
    status = await review(
        api,
        "SubjectAccessReview",
        {
            **asked,
            "resourceAttributes": {
                "resource": "pods",
                "verb": "list",
                "fieldSelector": {"requirements": [{**own, "operator": "Exists", "values": []}]},
            },
        },
    )
    assert not status["allowed"] and "fieldSelector ignored" in status["evaluationError"]


@pytest.mark.parametrize(
    ("kind", "spec", "why"),
    [
        ("SubjectAccessReview", {"resourceAttributes": PODS}, "at least one of user or group"),
        ("SubjectAccessReview", {"user": "bob"}, "exactly one of nonResourceAttributes"),
        (
            "SelfSubjectAccessReview",
            {"resourceAttributes": PODS, "nonResourceAttributes": {}},
            "cannot be specified in combination",
        ),
        (
            "SelfSubjectAccessReview",
            {
                "resourceAttributes": {
                    **PODS,
                    "labelSelector": {
                        "rawSelector": "a",
                        "requirements": [{"key": "a", "operator": "Exists"}],
                    },
                }
            },
            "may not specified at the same time",
        ),
        (
            "SelfSubjectAccessReview",
            {"resourceAttributes": {**PODS, "labelSelector": {"requirements": [{"key": "a"}]}}},
            "not a valid selector operator",
        ),
    ],
)
async def test_a_review_that_makes_no_sense(api: API, kind: str, spec: Any, why: str) -> None:
    with pytest.raises(StatusError, match=why) as failure:
        await review(api, kind, spec)
    assert (failure.value.code, failure.value.reason) == (422, "Invalid")


async def test_reviews_have_no_name_and_rules_a_namespace(api: API) -> None:
    body = {"metadata": {"name": "x"}, "spec": {"resourceAttributes": PODS}}
    with pytest.raises(StatusError, match="must be empty"):
        await api("POST", f"{GROUP}/selfsubjectaccessreviews", body)
    with pytest.raises(StatusError, match="no namespace on request"):
        await review(api, "SelfSubjectRulesReview", {})
