"""Which requests webhooks and policies are about."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.kube.api.catalogue import STATIC
from wherry.kube.api.resources import DEPLOYMENTS, INGRESSES, NAMESPACES, NODES, PODS, Resource
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.matching import Selection, versions_of
from wherry.kube.apiserver.request import User

Object = dict[str, Any]


def attributes(resource: Resource, operation: Any = "CREATE", **more: Any) -> Attributes:
    namespace = "default" if resource.namespaced else ""
    given = {"subresource": "", "namespace": namespace, "name": "x", **more}
    return Attributes(operation, resource, user=User("u"), **given)


def rule(*resources: str, **more: Any) -> Object:
    return {
        "operations": ["*"],
        "apiGroups": ["*"],
        "apiVersions": ["*"],
        "resources": list(resources),
        **more,
    }


@pytest.mark.parametrize(
    ("given", "write", "meant"),
    [
        (rule("*"), attributes(PODS), True),
        (rule("*"), attributes(PODS, subresource="status"), False),
        (rule("*/*"), attributes(PODS, subresource="status"), True),
        (rule("pods/*"), attributes(PODS, subresource="exec"), True),
        (rule("pods/*"), attributes(PODS), True),
        (rule("*/status"), attributes(DEPLOYMENTS, subresource="status"), True),
        (rule("*/status"), attributes(DEPLOYMENTS, subresource="scale"), False),
        (rule("pods", apiGroups=["apps"]), attributes(PODS), False),
        (rule("pods", operations=["UPDATE", "DELETE"]), attributes(PODS, "DELETE"), True),
        (rule("pods", operations=["UPDATE"]), attributes(PODS), False),
        (rule("*", scope="Cluster"), attributes(NODES), True),
        (rule("*", scope="Namespaced"), attributes(NODES), False),
        (rule("*", scope="Namespaced"), attributes(NAMESPACES, namespace="x"), False),
        (rule("*", scope="Cluster"), attributes(NAMESPACES, namespace="x"), True),
        (rule("pods", resourceNames=["x"]), attributes(PODS), True),
        (rule("pods", resourceNames=["y"]), attributes(PODS), False),
    ],
)
def test_rules(given: Object, write: Attributes, meant: bool):
    found = Selection({}, [given]).version(STATIC, write, write.resource)
    assert (found is not None) == meant


def test_an_equivalent_version_is_shown_the_one_it_knows():
    old = rule("ingresses", apiGroups=["networking.k8s.io"], apiVersions=["v1beta1"])
    write = attributes(INGRESSES)
    found = Selection({"matchPolicy": "Equivalent"}, [old]).version(STATIC, write, INGRESSES)
    assert found is not None
    assert found.version == "v1beta1"
    assert Selection({"matchPolicy": "Exact"}, [old]).version(STATIC, write, INGRESSES) is None


def test_the_version_asked_for_is_preferred():
    both = rule("ingresses", apiGroups=["networking.k8s.io"])
    write = attributes(INGRESSES)
    assert Selection({}, [both]).version(STATIC, write, INGRESSES) is INGRESSES
    groups = {each.group for each in versions_of(STATIC, INGRESSES)}
    assert groups == {"networking.k8s.io", "extensions"}


def test_what_is_excluded_is_not_meant():
    chosen = Selection({}, [rule("*")], [rule("pods")])
    assert chosen.version(STATIC, attributes(PODS), PODS) is None
    assert chosen.version(STATIC, attributes(NODES), NODES) is NODES


@pytest.mark.parametrize(
    ("labels", "old", "meant"),
    [({"a": "b"}, None, True), ({}, {"a": "b"}, True), ({}, {}, False), ({}, None, False)],
)
def test_either_state_of_the_object_may_have_the_labels(labels: Any, old: Any, meant: bool):
    write = attributes(PODS, object={"metadata": {"labels": labels}})
    if old is not None:
        write.old = {"metadata": {"labels": old}}
    selection = Selection({"objectSelector": {"matchLabels": {"a": "b"}}}, [])
    assert selection.selects(write, None) == meant  # type: ignore[arg-type]


def test_a_namespace_is_chosen_by_its_own_labels():
    write = attributes(NAMESPACES, object={"metadata": {"labels": {"a": "b"}}})
    selection = Selection({"namespaceSelector": {"matchLabels": {"a": "b"}}}, [])
    assert selection.selects(write, None)  # type: ignore[arg-type]


def test_what_is_in_no_namespace_is_chosen_by_any_selector():
    selection = Selection({"namespaceSelector": {"matchLabels": {"a": "b"}}}, [])
    assert selection.selects(attributes(NODES), None)  # type: ignore[arg-type]
