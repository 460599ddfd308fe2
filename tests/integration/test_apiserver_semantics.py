"""What lists, writes and deletions mean, by upstream's documentation, over the wire.

https://kubernetes.io/docs/reference/using-api/api-concepts/
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from apiserver_process import Server

MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def ask(server: Server) -> Ask:
    context = ssl.create_default_context(cafile=str(server.authority.certificate))
    context.load_cert_chain(*map(str, server.admin))

    def request(
        method: str, path: str, body: Any = None, medium: str = "application/json", **query: str
    ) -> tuple[int, Any]:
        url = f"https://127.0.0.1:{server.port}{path}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(url, data, {"Content-Type": medium}, method=method)
        try:
            with urllib.request.urlopen(asked, context=context, timeout=60) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return request


@pytest.fixture(autouse=True)
def clean(ask: Ask) -> Iterator[None]:
    yield
    for path in (MAPS, DEPLOYMENTS):
        for item in ask("GET", path)[1]["items"]:
            name = item["metadata"]["name"]
            if item["metadata"].get("finalizers"):
                ask("PATCH", f"{path}/{name}", {"metadata": {"finalizers": None}}, MERGE)
        assert ask("DELETE", path)[0] == 200


def made(ask: Ask, name: str, **metadata: Any) -> dict[str, Any]:
    code, o = ask("POST", MAPS, {"metadata": {"name": name, **metadata}, "data": {"a": "1"}})
    assert code == 201, o
    return o


# --- lists --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "code", "says"),
    [
        ({"resourceVersionMatch": "Exact"}, 422, "forbidden unless resourceVersion is provided"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422, "forbidden for resource"),
        ({"resourceVersionMatch": "Near", "resourceVersion": "1"}, 422, "supported values"),
        ({"sendInitialEvents": "true"}, 422, "sendInitialEvents is forbidden for list"),
        ({"resourceVersion": "new"}, 400, "invalid resource version"),
        ({"continue": "x", "resourceVersion": "5"}, 400, "not allowed when using continue"),
        ({"continue": "x"}, 400, "continue key is not valid"),
        ({"fieldSelector": "data.a=1"}, 400, '"data.a" is not a known field selector'),
        ({"labelSelector": "a in"}, 400, "unable to parse requirement"),
        ({"limit": "some"}, 400, "strconv.ParseInt"),
    ],
)
def test_options_that_contradict_are_told(
    ask: Ask, query: dict[str, str], code: int, says: str
) -> None:
    got, told = ask("GET", MAPS, **query)
    assert (got, told["code"]) == (code, code) and says in told["message"]


def test_revisions_mean_exact_or_not_older(ask: Ask) -> None:
    first = made(ask, "a")["metadata"]["resourceVersion"]
    second = made(ask, "b")["metadata"]["resourceVersion"]

    def names(**query: str) -> list[str]:
        code, found = ask("GET", MAPS, **query)
        assert code == 200, found
        return [o["metadata"]["name"] for o in found["items"]]

    assert names(resourceVersion=first, resourceVersionMatch="Exact") == ["a"]
    assert names(resourceVersion=first, limit="5") == ["a"], "with a limit, as of then"
    assert names(resourceVersion=first, resourceVersionMatch="NotOlderThan") == ["a", "b"]
    assert names(resourceVersion=first) == names(resourceVersion="0") == names() == ["a", "b"]
    far = str(int(second) + 10_000)
    for path, match in ((MAPS, "NotOlderThan"), (MAPS, "Exact"), (f"{MAPS}/a", "")):
        query = {"resourceVersion": far, **({"resourceVersionMatch": match} if match else {})}
        code, told = ask("GET", path, **query)
        assert (code, told["reason"]) == (504, "Timeout")
        assert told["message"].startswith(f"Timeout: Too large resource version: {far}, current: ")
        assert told["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
        assert told["details"]["retryAfterSeconds"] == 1


def test_pages_are_of_one_moment_and_count_what_is_left(ask: Ask) -> None:
    for n in range(7):
        made(ask, f"c{n}", labels={"odd": str(n % 2)})
    code, page = ask("GET", MAPS, limit="3")
    assert code == 200 and page["metadata"]["remainingItemCount"] == 4
    token = json.loads(base64.urlsafe_b64decode(page["metadata"]["continue"] + "=="))
    assert token["v"] == "meta.k8s.io/v1" and token["rv"] == int(
        page["metadata"]["resourceVersion"]
    )
    ask("DELETE", f"{MAPS}/c5")
    names = []
    while "continue" in page["metadata"]:
        _, page = ask("GET", MAPS, limit="3", **{"continue": page["metadata"]["continue"]})
        assert page["metadata"]["resourceVersion"] == str(token["rv"])
        names += [o["metadata"]["name"] for o in page["items"]]
    assert names == ["c3", "c4", "c5", "c6"]
    _, selected = ask("GET", MAPS, limit="1", labelSelector="odd=1")
    assert "remainingItemCount" not in selected["metadata"]


# --- writes -------------------------------------------------------------------------------------


def test_what_the_server_decides_is_not_the_clients(ask: Ask) -> None:
    given = {"uid": "mine", "generation": 7, "selfLink": "/x", "creationTimestamp": None}
    o = made(ask, "a", **given, deletionTimestamp="2020-01-01T00:00:00Z")["metadata"]
    assert o["uid"] != "mine" and o["creationTimestamp"] and "selfLink" not in o
    assert "deletionTimestamp" not in o and "generation" not in o
    code, told = ask("POST", MAPS, {"metadata": {"name": "b", "resourceVersion": "5"}})
    assert (code, told["message"]) == (
        400,
        "resourceVersion should not be set on objects to be created",
    )
    code, told = ask("POST", MAPS, {"metadata": {"name": "a"}})
    assert (code, told["reason"]) == (409, "AlreadyExists")
    _, named = ask("POST", MAPS, {"metadata": {"generateName": "g" * 80 + "-"}})
    assert len(named["metadata"]["name"]) == 63


@pytest.mark.parametrize(
    ("path", "rest", "code"),
    [
        ("/apis/coordination.k8s.io/v1/namespaces/default/leases/n", {}, 201),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/n", {}, 201),
        ("/apis/node.k8s.io/v1/runtimeclasses/n", {"handler": "x"}, 201),
        ("/api/v1/namespaces/default/limitranges/n", {"spec": {"limits": []}}, 201),
        ("/api/v1/namespaces/default/endpoints/n", {}, 201),
        ("/api/v1/namespaces/default/secrets/n", {}, 404),
        ("/api/v1/namespaces/default/serviceaccounts/n", {}, 404),
    ],
)
def test_some_kinds_are_created_by_an_update(
    ask: Ask, path: str, rest: dict[str, Any], code: int
) -> None:
    assert ask("PUT", path, {"metadata": {"name": "n"}, **rest})[0] == code


def test_an_update_is_of_the_object_and_state_it_names(ask: Ask) -> None:
    o = made(ask, "a")
    path = f"{MAPS}/a"
    code, new = ask("PUT", path, {"metadata": {"name": "a"}, "data": {"b": "2"}})
    assert code == 200 and new["data"] == {"b": "2"}, "without a revision, the last one wins"
    code, told = ask("PUT", path, o)
    assert (code, told["reason"]) == (409, "Conflict") and "been modified" in told["message"]
    code, told = ask("PUT", path, {"metadata": {"name": "a", "uid": "x"}})
    assert code == 409 and "Precondition failed: UID in precondition: x" in told["message"]
    code, told = ask("PUT", path, {"metadata": {"name": "b"}})
    assert code == 400 and "does not match the name on the URL" in told["message"]
    lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/once"
    assert ask("PUT", lease, {"metadata": {"name": "once"}})[0] == 201
    code, told = ask("PUT", lease, {"metadata": {"name": "once"}})
    assert code == 422 and "must be specified for an update" in told["message"]
    code, same = ask("PATCH", path, {"data": {"b": "2"}}, MERGE)
    assert same["metadata"]["resourceVersion"] == new["metadata"]["resourceVersion"]


def test_generation_counts_changes_of_the_spec_alone(ask: Ask) -> None:
    def patch(body: Any, below: str = "") -> dict[str, Any]:
        code, o = ask("PATCH", f"{DEPLOYMENTS}/web{below}", body, STRATEGIC)
        assert code == 200, o
        metadata: dict[str, Any] = o["metadata"]
        return metadata

    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    assert ask("POST", DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": spec})[0] == 201
    assert patch({"metadata": {"labels": {"x": "y"}}})["generation"] == 1
    assert patch({"status": {"replicas": 3}}, "/status")["generation"] == 1
    assert patch({"spec": {"replicas": 3}})["generation"] == 2
    containers = [{"name": "d", "image": "d"}, {"name": "c", "$patch": "delete"}]
    assert patch({"spec": {"template": {"spec": {"containers": containers}}}})["generation"] == 3
    _, o = ask("GET", f"{DEPLOYMENTS}/web")
    assert [c["name"] for c in o["spec"]["template"]["spec"]["containers"]] == ["d"]


# --- server-side apply --------------------------------------------------------------------------


def test_who_applies_owns_and_gives_up_by_not_saying(ask: Ask) -> None:
    def apply(manager: str, force: str = "", **data: str) -> tuple[int, Any]:
        o = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}
        query = {"fieldManager": manager, **({"force": force} if force else {})}
        return ask("PATCH", f"{MAPS}/a", o, APPLY, **query)

    assert apply("one", a="1", b="1")[0] == 201
    code, told = apply("two", a="2", b="1")
    assert (code, told["reason"]) == (409, "Conflict")
    assert told["message"] == 'Apply failed with 1 conflict: conflict with "one": .data.a'
    assert told["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
    ]
    code, o = apply("two", "true", a="2", b="1")
    assert code == 200 and o["data"] == {"a": "2", "b": "1"}
    assert apply("one", b="1")[1]["data"] == {"a": "2", "b": "1"}, "b has two owners"
    assert apply("one")[1]["data"] == {"a": "2", "b": "1"}, "and now one, who keeps it"
    assert apply("two", a="2")[1]["data"] == {"a": "2"}


def test_an_applied_identity_is_meant(ask: Ask) -> None:
    o = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "none"}}
    code, told = ask("PATCH", f"{MAPS}/a", o, APPLY, fieldManager="m")
    assert code == 409 and "uid mismatch: the provided object specified uid none" in told["message"]
    made(ask, "a")
    assert ask("PATCH", f"{MAPS}/a", o, APPLY, fieldManager="m")[0] == 409
    o["metadata"] = {"name": "a", "resourceVersion": "1"}
    code, told = ask("PATCH", f"{MAPS}/a", o, APPLY, fieldManager="m")
    assert code == 409 and "been modified" in told["message"]


def test_a_scale_may_be_applied_and_is_owned(ask: Ask) -> None:
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    o = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    assert ask("PATCH", f"{DEPLOYMENTS}/web", o, APPLY, fieldManager="author")[0] == 201
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}}
    scale["spec"] = {"replicas": 5}  # type: ignore[assignment]
    query = {"fieldManager": "scaler"}
    code, told = ask("PATCH", f"{DEPLOYMENTS}/web/scale", scale, APPLY, **query)
    assert code == 409 and 'conflict with "author"' in told["message"]
    code, scaled = ask("PATCH", f"{DEPLOYMENTS}/web/scale", scale, APPLY, force="true", **query)
    assert code == 200 and scaled["spec"]["replicas"] == 5
    managed = ask("GET", f"{DEPLOYMENTS}/web")[1]["metadata"]["managedFields"]
    (entry,) = [e for e in managed if e["manager"] == "scaler"]
    assert (entry["operation"], entry["subresource"]) == ("Apply", "scale")
    assert entry["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


# --- deletion -----------------------------------------------------------------------------------


def test_a_deletion_names_what_it_means(ask: Ask) -> None:
    uid = made(ask, "a")["metadata"]["uid"]
    path = f"{MAPS}/a"
    code, told = ask("DELETE", path, {"preconditions": {"uid": "other"}})
    assert code == 409 and "UID in the precondition (other)" in told["message"]
    code, told = ask("DELETE", path, {"preconditions": {"resourceVersion": "1"}})
    assert code == 409 and "ResourceVersion in the precondition (1)" in told["message"]
    assert ask("DELETE", path, {"propagationPolicy": "Never"})[0] == 422
    both = {"propagationPolicy": "Orphan", "orphanDependents": True}
    assert ask("DELETE", path, both)[0] == 422
    assert ask("DELETE", path, {"dryRun": ["All"]})[0] == 200
    code, gone = ask("DELETE", path, {"preconditions": {"uid": uid}})
    assert (code, gone["status"], gone["details"]["uid"]) == (200, "Success", uid)
    assert ask("GET", path)[0] == 404


def test_finalizers_hold_and_none_is_added_while_one_goes(ask: Ask) -> None:
    made(ask, "a", finalizers=["example.com/hold"])
    path = f"{MAPS}/a"
    code, held = ask("DELETE", path)
    assert code == 200 and held["metadata"]["deletionTimestamp"]
    code, told = ask(
        "PATCH", path, {"metadata": {"finalizers": ["example.com/hold", "x.y/z"]}}, MERGE
    )
    assert code == 422 and "no new finalizers can be added" in told["message"]
    assert ask("PATCH", path, {"metadata": {"deletionTimestamp": None}}, MERGE)[0] == 200
    assert ask("GET", path)[1]["metadata"]["deletionTimestamp"]
    assert ask("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)[0] == 200
    assert ask("GET", path)[0] == 404


def test_a_collection_is_deleted_by_what_it_selects(ask: Ask) -> None:
    for n in range(4):
        made(ask, f"c{n}", labels={"odd": str(n % 2)})
    code, gone = ask("DELETE", MAPS, labelSelector="odd=1")
    assert code == 200 and [o["metadata"]["name"] for o in gone["items"]] == ["c1", "c3"]
    left = [o["metadata"]["name"] for o in ask("GET", MAPS)[1]["items"]]
    assert left == ["c0", "c2"]


# --- custom resources ---------------------------------------------------------------------------


def test_todays_defaults_are_read_from_yesterdays_objects(server: Server, ask: Ask) -> None:
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    part: dict[str, Any] = {"type": "string"}
    schema = {"type": "object", "properties": {"a": part, "b": {"type": "string"}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "toys", "kind": "Toy"}
    spec = {"group": "example.com", "scope": "Cluster", "names": names, "versions": [version]}
    definition = {"metadata": {"name": "toys.example.com"}, "spec": spec}
    assert ask("POST", definitions, definition)[0] == 201
    server.kubectl("wait", "crd/toys.example.com", "--for=condition=Established")
    toys = "/apis/example.com/v1/toys"
    o = {"apiVersion": "example.com/v1", "kind": "Toy", "metadata": {"name": "old"}}
    assert ask("POST", toys, o)[0] == 201
    part["default"] = "A"
    assert ask("PATCH", f"{definitions}/toys.example.com", {"spec": spec}, MERGE)[0] == 200
    assert ask("GET", f"{toys}/old")[1]["a"] == "A"
    assert [each["a"] for each in ask("GET", toys)[1]["items"]] == ["A"]
    del part["default"]
    assert ask("PATCH", f"{definitions}/toys.example.com", {"spec": spec}, MERGE)[0] == 200
    assert "a" not in ask("GET", f"{toys}/old")[1], "it was never stored"
    condition = {"status": {"conditions": [{"message": "nobody expects this"}]}}
    assert ask("PATCH", f"{definitions}/toys.example.com/status", condition, MERGE)[0] == 200
    assert ask("POST", MAPS, {"metadata": {"name": "goes-on"}})[0] == 201
    assert ask("DELETE", f"{definitions}/toys.example.com")[0] == 200
