"""ConversionReviews: questions, answers, and what must not change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from wherry.kube.api.resources import CONFIG_MAPS
from wherry.kube.apiserver.extensions import conversion

Object = dict[str, Any]

V2 = replace(CONFIG_MAPS, group="example.com", version="v2", kind="A", custom=True)


def o(**metadata: Any) -> Object:
    given = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", **metadata}
    return {"apiVersion": "example.com/v1", "kind": "A", "metadata": given}


def converted(**metadata: Any) -> Object:
    return {**o(**metadata), "apiVersion": "example.com/v2"}


def answer(**response: Any) -> Object:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "ConversionReview",
        "response": {"uid": "1", "result": {"status": "Success"}, **response},
    }


def test_the_question_names_what_is_wanted():
    review = conversion.review_of("v1", "1", [o()], V2)
    assert review["request"]["desiredAPIVersion"] == "example.com/v2"
    assert review["request"]["objects"] == [o()]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no object"),
        ({**answer(), "kind": "Pod"}, "got apiextensions.k8s.io/v1, Kind=Pod"),
        ({**answer(), "response": None}, "no response provided"),
        (answer(uid="2"), 'expected response.uid="1", got "2"'),
        (answer(result={"status": "Failure"}), "response.result.status was 'Failure'"),
        (answer(result={"status": "Failure", "message": "why"}), "why"),
    ],
)
def test_answers_that_are_none(given: Any, said: str):
    with pytest.raises(conversion.BadAnswer, match=None) as failed:
        conversion.read(given, "v1", "1")
    assert said in str(failed.value)


def test_v1beta1_need_not_repeat_the_uid():
    given = {**answer(uid=""), "apiVersion": "apiextensions.k8s.io/v1beta1"}
    assert conversion.read(given, "v1beta1", "1") == []


def test_of_metadata_only_labels_and_annotations_change():
    after = converted(labels={"a": "b"}, annotations={"c": "d"}, resourceVersion="9", extra="x")
    kept = conversion.checked(o(labels={"old": "1"}), after, V2)["metadata"]
    assert kept == {
        "name": "a",
        "namespace": "n",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {"a": "b"},
        "annotations": {"c": "d"},
    }


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("x", "no object"),
        (o(), "invalid groupVersion: example.com/v1"),
        (converted(name="b"), "must have the same name: a != b"),
        (converted(uid="x"), "must have the same UID: u != x"),
        ({**converted(), "kind": "B"}, "must have the same kind: A != B"),
        ({**converted(), "metadata": None}, "missing metadata in converted object"),
        (converted(labels={"a": 1}), "invalid metadata of type dict in labels"),
        (converted(labels={"-": "x"}), "metadata.labels"),
    ],
)
def test_an_object_stays_itself(after: Any, said: str):
    with pytest.raises(conversion.BadAnswer) as failed:
        conversion.checked(o(), after, V2)
    assert said in str(failed.value)


def test_a_version_both_speak_is_chosen():
    assert conversion.version_for(["v3", "v1beta1", "v1"]) == "v1beta1"
    with pytest.raises(conversion.BadAnswer):
        conversion.version_for(["v3"])
