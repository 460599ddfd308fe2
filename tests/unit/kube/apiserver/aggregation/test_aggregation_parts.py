"""Order, verdicts, merged documents: the pure parts of aggregation."""

from __future__ import annotations

from typing import Any

from wherry.kube.api.catalogue import STATIC
from wherry.kube.apiserver.aggregation import availability, openapi, registration
from wherry.kube.apiserver.aggregation.discovery import Merged, from_list, version_entry
from wherry.kube.apiserver.aggregation.remote import identity
from wherry.kube.apiserver.aggregation.services import Remote, order, remote_of
from wherry.kube.apiserver.request import User


def api_service(group: str, version: str, least: int, priority: int, **spec: Any) -> dict[str, Any]:
    given = {"group": group, "version": version, **spec}
    given |= {"groupPriorityMinimum": least, "versionPriority": priority}
    return {"metadata": {"name": f"{version}.{group}"}, "spec": given}


SERVICE = {"namespace": "ns", "name": "api", "port": 443}


def remote() -> Remote:
    found = remote_of(api_service("x.org", "v1", 1, 1, service=SERVICE))
    assert found is not None
    return found


def test_groups_and_versions_come_by_priority() -> None:
    services = [
        api_service("apps", "v1", 17800, 15),
        api_service("own.org", "v1", 1000, 100),
        api_service("x.org", "v1", 2000, 10, service=SERVICE),
        api_service("x.org", "v2", 100, 20, service=SERVICE),
    ]
    local = {"own.org": ["v1"], "apps": ["v1"], "apiregistration.k8s.io": ["v1"]}
    assert order(local, services) == {
        "apiregistration.k8s.io": ("v1",),
        "apps": ("v1",),
        "x.org": ("v2", "v1"),
        "own.org": ("v1",),
    }


def test_what_is_served_here_is_registered_once_and_left_to_people_after() -> None:
    wanted = [o for o in registration.wanted(STATIC) if o["spec"].get("group") == "apps"]
    assert wanted[0]["metadata"]["name"] == "v1.apps"
    apps = wanted[:1]
    assert list(registration.plan(apps, [], first=True)) == [("POST", apps[0])]
    assert not list(registration.plan(apps, [], first=False))
    changed = {**apps[0], "spec": {**apps[0]["spec"], "versionPriority": 1}}
    assert [m for m, _ in registration.plan(apps, [changed], first=True)] == ["PUT"]
    assert not list(registration.plan(apps, [changed], first=False))
    owned = {**changed, "metadata": {"name": "v1.apps", "labels": {}}}
    assert not list(registration.plan(apps, [owned], first=True))
    gone = {"metadata": {"name": "v1.x.org", "labels": {registration.MARK: "true"}}, "spec": {}}
    assert list(registration.plan([], [gone], first=False)) == [("DELETE", gone)]


def test_a_verdict_needs_service_port_and_ready_endpoints() -> None:
    service: dict[str, Any] = {"spec": {"ports": [{"port": 443, "name": "https"}]}}
    ready = {
        "endpoints": [{"addresses": ["1.2.3.4"], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": 8443}],
    }
    verdicts = [
        availability.judge(remote(), None, []),
        availability.judge(remote(), {"spec": {"ports": []}}, []),
        availability.judge(remote(), service, []),
        availability.judge(remote(), service, [{**ready, "endpoints": []}]),
    ]
    assert [v and v[1] for v in verdicts] == [
        "ServiceNotFound",
        "ServicePortError",
        "EndpointsNotFound",
        "MissingEndpoints",
    ]
    assert availability.judge(remote(), service, [ready]) is None
    assert availability.judge(remote(), {"spec": {"type": "ExternalName"}}, []) is None


def test_a_condition_keeps_its_time_as_long_as_its_status() -> None:
    o = availability.with_condition({}, ("False", "A", "a"), "t1")
    assert o is not None
    assert availability.with_condition(o, ("False", "A", "a"), "t2") is None
    same = availability.with_condition(o, ("False", "B", "b"), "t2")
    assert same is not None
    (condition,) = same["status"]["conditions"]
    assert (condition["reason"], condition["lastTransitionTime"]) == ("B", "t1")
    other = availability.with_condition(o, availability.PASSED, "t3")
    assert other is not None
    assert other["status"]["conditions"][0]["lastTransitionTime"] == "t3"


def test_names_of_extra_fields_are_escaped_as_headers_want_it() -> None:
    user = User("jane", ("a", "b"), "u1", {"Acme.com/project": ("p", "q")})
    assert list(identity(user)) == [
        ("X-Remote-User", "jane"),
        ("X-Remote-Uid", "u1"),
        ("X-Remote-Group", "a"),
        ("X-Remote-Group", "b"),
        ("X-Remote-Extra-acme.com%2Fproject", "p"),
        ("X-Remote-Extra-acme.com%2Fproject", "q"),
    ]


def test_an_old_resource_list_is_told_in_the_new_form() -> None:
    entries = [
        {"name": "things", "kind": "Thing", "namespaced": True, "verbs": ["get"]},
        {"name": "things/status", "kind": "Thing", "namespaced": True, "verbs": ["get"]},
    ]
    (found,) = from_list({"resources": entries}, "x.org", "v1")
    assert (found["resource"], found["scope"], found["singularResource"]) == (
        *("things", "Namespaced"),
        "thing",
    )
    assert found["subresources"][0]["subresource"] == "status"
    services = [api_service("x.org", "v1", 2000, 10, service=SERVICE)]
    entry = version_entry("v1", [found], stale=True)
    merged = Merged(STATIC.discovery, services, {"x.org/v1": entry})
    group = merged.api_group("x.org")
    assert group is not None and group["preferredVersion"]["version"] == "v1"
    (item,) = (i for i in merged.aggregated("apis")["items"] if i["metadata"]["name"] == "x.org")
    assert item["versions"] == [entry]


def test_definitions_of_the_same_name_that_differ_are_kept_apart() -> None:
    ours = {
        "paths": {"/api": {}},
        "definitions": {"a": {"type": "object"}, "b": {"type": "string"}},
    }
    reference = {"$ref": "#/definitions/a"}
    theirs = {
        "paths": {"/apis/x.org/v1/things": {"get": {"schema": reference}}, "/apis/y.org/v1": {}},
        "definitions": {
            "a": {"type": "object", "properties": {"b": {"$ref": "#/definitions/b"}}},
            "b": {"type": "string", "description": "the same"},
            "c": {"type": "object"},
        },
    }
    merged = openapi.merge_v2(ours, theirs, "x.org/v1")
    assert sorted(merged["paths"]) == ["/api", "/apis/x.org/v1/things"]
    assert sorted(merged["definitions"]) == ["a", "a_v2", "b"]
    used = merged["paths"]["/apis/x.org/v1/things"]["get"]["schema"]
    assert used == {"$ref": "#/definitions/a_v2"}
