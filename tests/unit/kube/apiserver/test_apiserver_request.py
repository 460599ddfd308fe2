from __future__ import annotations

import pytest

from wherry.kube.api import resources
from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.request import parse_query, parse_request


def parsed(method: str, target: str):  # type: ignore[no-untyped-def]
    path, _, query = target.partition("?")
    return parse_request(method, path, parse_query(query))


@pytest.mark.parametrize(
    ("method", "target", "verb", "resource", "namespace", "name", "subresource"),
    [
        ("GET", "/api/v1/pods", "list", resources.PODS, "", "", ""),
        ("GET", "/api/v1/pods?watch=1", "watch", resources.PODS, "", "", ""),
        ("GET", "/api/v1/watch/pods", "watch", resources.PODS, "", "", ""),
        ("GET", "/api/v1/namespaces/a/pods", "list", resources.PODS, "a", "", ""),
        ("GET", "/api/v1/namespaces/a/pods/p", "get", resources.PODS, "a", "p", ""),
        ("GET", "/api/v1/namespaces/a/pods/p?watch=1", "get", resources.PODS, "a", "p", ""),
        ("GET", "/api/v1/watch/namespaces/a/pods/p", "watch", resources.PODS, "a", "p", ""),
        ("GET", "/api/v1/namespaces/a/pods/p?watch=false", "get", resources.PODS, "a", "p", ""),
        ("POST", "/api/v1/namespaces/a/pods", "create", resources.PODS, "a", "", ""),
        ("PUT", "/api/v1/namespaces/a/pods/p/status", "update", resources.PODS, "a", "p", "status"),
        ("PATCH", "/api/v1/namespaces/a/pods/p", "patch", resources.PODS, "a", "p", ""),
        ("DELETE", "/api/v1/namespaces/a/pods/p", "delete", resources.PODS, "a", "p", ""),
        ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection", resources.PODS, "a", "", ""),
        ("GET", "/api/v1/namespaces", "list", resources.NAMESPACES, "", "", ""),
        ("GET", "/api/v1/namespaces/a", "get", resources.NAMESPACES, "a", "a", ""),
        (
            "PUT",
            "/api/v1/namespaces/a/finalize",
            "update",
            resources.NAMESPACES,
            "a",
            "a",
            "finalize",
        ),
        ("GET", "/api/v1/nodes/n", "get", resources.NODES, "", "n", ""),
        (
            "GET",
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            "get",
            resources.DEPLOYMENTS,
            "a",
            "d",
            "scale",
        ),
    ],
)
def test_a_path_says_what_is_asked(  # type: ignore[no-untyped-def]
    method, target, verb, resource, namespace, name, subresource
) -> None:
    info = parsed(method, target)
    assert info.is_resource
    assert (info.verb, info.resource) == (verb, resource)
    assert (info.namespace, info.name, info.subresource) == (namespace, name, subresource)


def test_nothing_is_written_by_the_old_form_of_a_watch() -> None:
    assert parsed("POST", "/api/v1/watch/namespaces/a/pods").verb == ""


def test_selecting_one_name_is_asking_for_that_object() -> None:
    info = parsed("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp&watch=true")
    assert (info.verb, info.name) == ("watch", "p")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/unknown",
        "/apis/apps/v2/deployments",
        "/api/v1/namespaces/a/pods/p/unknown",
        "/api/v1/pods/p",
        "/api/v1/namespaces/a/nodes",
        "/apis/apps/v1/pods",
    ],
)
def test_what_is_not_served_is_not_found(path: str) -> None:
    with pytest.raises(StatusError) as failure:
        _ = parsed("GET", path).served
    assert failure.value.code == 404
    assert failure.value.message == "the server could not find the requested resource"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/../secrets",
        "/api/v1/namespaces/a/pods/%2e%2e",
        "/api/v1/namespaces/a%2fb/pods",
        "/api/v1/namespaces/a/pods/p%00",
        "/",
        "/api",
        "/api/v1",
        "/healthz",
        "/apis/apps",
    ],
)
def test_tricks_and_other_paths_are_no_resources(path: str) -> None:
    assert not parsed("GET", path).is_resource


def test_flags_follow_the_conversion_of_query_parameters() -> None:
    query = parse_query("a&b=true&c=false&d=0&e=1&e=2")
    assert query.flag("a") and query.flag("b") and query.flag("e")
    assert not query.flag("c") and not query.flag("d") and not query.flag("missing")
    assert query.all("e") == ["1", "2"] and query.get("e") == "1"
