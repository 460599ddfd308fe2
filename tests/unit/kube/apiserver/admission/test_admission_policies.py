"""Admission policies come, change and go between writes; what they cost is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from apiserver_harness import API

from wherry.kube.api.errors import StatusError
from wherry.kube.api.merge_types import merge_type
from wherry.kube.apiserver.admission.policies.evaluation import EvaluationFailed
from wherry.kube.apiserver.admission.policies.mutating import applied, patched

Object = dict[str, Any]

GROUP = "/apis/admissionregistration.k8s.io/v1"
POD = merge_type("io.k8s.api.core.v1.Pod")


async def policy(api: API, name: str, resource: str, expression: str, **more: Any) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": [resource]}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": expression}],
        **more,
    }
    o = {"metadata": {"name": name}, "spec": spec}
    await api("POST", f"{GROUP}/validatingadmissionpolicies", o)
    spec = {"policyName": name, "validationActions": ["Deny"]}
    o = {"metadata": {"name": name}, "spec": spec}
    await api("POST", f"{GROUP}/validatingadmissionpolicybindings", o)


async def make(api: API, name: str) -> Object:
    return await api("POST", "configmaps", {"metadata": {"name": name}, "data": {"a": "b"}})


async def test_a_policy_holds_from_its_binding_on_and_no_longer(api: API):
    await make(api, "before")
    await policy(api, "other", "secrets", "false")
    await make(api, "unconcerned")
    await policy(
        api,
        "mine",
        "configmaps",
        "variables.n < 5 && !object.metadata.name.startsWith('x')",
        variables=[{"name": "n", "expression": "size(object.data)"}],
    )
    await make(api, "good")
    with pytest.raises(StatusError, match="ValidatingAdmissionPolicy 'mine' with binding 'mine'"):
        await make(api, "x1")
    await api.merge(
        f"{GROUP}/validatingadmissionpolicies/mine",
        {"spec": {"validations": [{"expression": "true"}]}},
    )
    await make(api, "x1")
    await api.merge(
        f"{GROUP}/validatingadmissionpolicies/mine",
        {"spec": {"validations": [{"expression": "false"}]}},
    )
    with pytest.raises(StatusError):
        await make(api, "x2")
    await api("DELETE", f"{GROUP}/validatingadmissionpolicybindings/mine")
    await make(api, "x2")


def test_a_configuration_is_merged_as_apply_would():
    pod = {"spec": {"containers": [{"name": "a", "image": "x"}], "nodeName": "n"}}
    change = {"spec": {"containers": [{"name": "a", "tty": True}, {"name": "b"}]}}
    assert applied(pod, change, POD)["spec"] == {
        "containers": [{"name": "a", "image": "x", "tty": True}, {"name": "b"}],
        "nodeName": "n",
    }


def test_what_can_only_be_replaced_is_not():
    change = {"spec": {"containers": [{"name": "a", "args": ["x"]}]}}
    with pytest.raises(EvaluationFailed, match=r"may not mutate atomic .*containers\[0\]\.args"):
        applied({"spec": {"containers": [{"name": "a"}]}}, change, POD)


@pytest.mark.parametrize("value", [1, {"op": "add"}, [{"op": "remove", "path": "/a"}], ["x"]])
def test_patches_that_do_not_apply_are_told(value: Any):
    with pytest.raises(EvaluationFailed):
        patched({}, value)
