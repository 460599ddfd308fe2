"""AdmissionReviews: questions and answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import DEPLOYMENTS, NAMESPACES, PODS
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.webhooks import review
from wherry.kube.apiserver.request import User

Object = dict[str, Any]


def answer(version: str = "v1", **response: Any) -> Object:
    return {
        "kind": "AdmissionReview",
        "apiVersion": f"admission.k8s.io/{version}",
        "response": {"uid": "1", "allowed": True, **response},
    }


def encoded(*operations: Object) -> str:
    return base64.b64encode(json.dumps(operations).encode()).decode()


def test_a_request_tells_of_what_it_carries():
    binding = {"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"}}
    attributes = Attributes("CREATE", PODS, "binding", "n", "p", User("u", ("g",), "7"), binding)
    request = review.request_of(attributes, "1", PODS, PODS, binding, None)
    assert request["kind"] == {"group": "", "version": "v1", "kind": "Binding"}
    assert request["resource"] == {"group": "", "version": "v1", "resource": "pods"}
    assert request["subResource"] == request["requestSubResource"] == "binding"
    assert request["userInfo"] == {"username": "u", "uid": "7", "groups": ["g"]}
    assert (request["object"], request["oldObject"]) == (binding, None)


def test_a_namespace_is_in_itself():
    o = {"kind": "Namespace", "metadata": {"name": "x"}}
    attributes = Attributes("CREATE", NAMESPACES, "", "", "x", User("u"), o)
    assert review.request_of(attributes, "1", NAMESPACES, NAMESPACES, o, None)["namespace"] == "x"


def test_an_answer_is_read():
    patch = encoded({"op": "remove", "path": "/a"})
    verdict = review.read(
        answer(patch=patch, patchType="JSONPatch", warnings=["w"], auditAnnotations={"a": "b"}),
        "v1",
        "1",
        mutating=True,
    )
    assert verdict.allowed
    assert verdict.patch == [{"op": "remove", "path": "/a"}]
    assert (verdict.warnings, verdict.annotations) == (["w"], {"a": "b"})


@pytest.mark.parametrize(
    ("given", "mutating", "said"),
    [
        ({**answer(), "response": None}, True, "webhook response was absent"),
        ([], True, "cannot unmarshal array"),
        (answer(uid="2"), True, 'expected response.uid="1", got "2"'),
        (answer(patch="W10="), True, "response.patch but not response.patchType"),
        (answer(patchType="JSONPatch"), True, "response.patchType but not response.patch"),
        (answer(patch="W10=", patchType="Other"), True, 'unsupported patch type "Other"'),
        (answer(patch="W10="), False, "validating webhook may not return response.patch"),
        (answer(patchType="x"), False, "validating webhook may not return response.patchType"),
        (answer("v1beta1"), True, "expected webhook response of admission.k8s.io/v1"),
        ({"response": {"uid": "1"}}, True, "Object 'Kind' is missing"),
    ],
)
def test_answers_that_are_none(given: Any, mutating: bool, said: str):
    with pytest.raises(review.BadAnswer) as failed:
        review.read(given, "v1", "1", mutating=mutating)
    assert said in str(failed.value)


def test_v1beta1_is_less_strict():
    verdict = review.read({"response": {"patch": "W10="}}, "v1beta1", "1", mutating=True)
    assert not verdict.allowed
    assert verdict.patch == []


@pytest.mark.parametrize("patch", ["no base64!", "e30=", "eA=="])
def test_a_patch_that_is_none_is_the_webhooks_fault(patch: str):
    with pytest.raises(StatusError) as failed:
        review.read(answer(patch=patch, patchType="JSONPatch"), "v1", "1", mutating=True)
    assert failed.value.code == 500


@pytest.mark.parametrize(
    ("result", "code", "message"),
    [
        (None, 400, "without explanation"),
        ({"code": 200, "status": "Success"}, 400, "without explanation"),
        ({"code": 403, "message": "no"}, 403, ": no"),
        ({"reason": "Gone"}, 400, ": Gone"),
    ],
)
def test_refusals(result: Any, code: int, message: str):
    error = review.denied("w", result)
    assert error.code == code
    begin = 'admission webhook "w" denied the request'
    assert error.message == f"{begin}{'' if message[0] == ':' else ' '}{message}"


def test_the_first_version_both_speak_is_used():
    assert review.version_for(["v9", "v1beta1", "v1"]) == "v1beta1"
    with pytest.raises(review.BadAnswer):
        review.version_for(["v9"])


def test_scales_are_told_as_what_they_are():
    scale = {"kind": "Scale", "apiVersion": "autoscaling/v1"}
    found = review.kind_of(DEPLOYMENTS, "scale", scale)
    assert found == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
