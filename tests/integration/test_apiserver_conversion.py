"""Custom resources in several versions, converted by webhook or by name."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from apiserver_process import Server
from apiserver_rest import Rest
from webhook_server import WebhookServer

Object = dict[str, Any]

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "/apis/stable.example.com"
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("server")).start()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def webhooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebhookServer]:
    started = WebhookServer(tmp_path_factory.mktemp("webhooks"))
    yield started
    started.close()


@pytest.fixture
def rest(server: Server) -> Rest:
    return Rest(server)


def version(name: str, *, storage: bool, **properties: Object) -> Object:
    schema = {"type": "object", "properties": {"spec": {"type": "object", **properties}}}
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
    }


V1 = {"properties": {"hostPort": {"type": "string"}}}
V2 = {
    "properties": {
        "host": {"type": "string"},
        "port": {"type": "string"},
        "proto": {"type": "string", "default": "tcp"},
    }
}


def converted(o: Object, to: str) -> Object:
    """Between hostPort and host with port."""
    spec = dict(o.get("spec") or {})
    if to.endswith("v2") and "hostPort" in spec:
        spec["host"], _, spec["port"] = spec.pop("hostPort").partition(":")
    elif to.endswith("v1") and "host" in spec:
        spec["hostPort"] = f"{spec.pop('host')}:{spec.pop('port', '')}"
        spec.pop("proto", None)
    return {**o, "apiVersion": to, "spec": spec}


def convert(request: Object) -> Object:
    to = request["desiredAPIVersion"]
    return {
        "result": {"status": "Success"},
        "convertedObjects": [converted(o, to) for o in request["objects"]],
    }


def define(rest: Rest, plural: str, storage: str, conversion: Object | None) -> None:
    kind = plural.capitalize()
    spec = {
        "group": "stable.example.com",
        "scope": "Namespaced",
        "names": {"plural": plural, "singular": plural[:-1], "kind": kind},
        "versions": [
            version("v1", storage=storage == "v1", **V1),
            version("v2", storage=storage == "v2", **V2),
        ],
        **({"conversion": conversion} if conversion else {}),
    }
    name = f"{plural}.stable.example.com"
    rest.ok("POST", CRDS, {"metadata": {"name": name}, "spec": spec})
    for each in ("v1", "v2"):
        wait_for(lambda v=each: rest("GET", f"{GROUP}/{v}/{plural}").code == 200)


def wait_for(holds: Any) -> None:
    pause = threading.Event()
    for _ in range(1200):
        if holds():
            return
        pause.wait(0.05)
    raise AssertionError("it did not come about")


def rewritten(rest: Rest, plural: str, change: Callable[[Object], None], below: str = "") -> Object:
    """The definition as it is after ``change``; its controllers may write it at the same time."""
    where = f"{CRDS}/{plural}.stable.example.com"
    replies = []

    def written() -> bool:
        crd = rest.ok("GET", where)
        change(crd)
        reply = rest("PUT", where + below, crd)
        assert reply.code in (200, 409), reply
        replies.append(reply)
        return reply.code == 200

    wait_for(written)
    body: Object = replies[-1].body
    return body


def by(client: Object, *versions: str) -> Object:
    webhook = {"clientConfig": client, "conversionReviewVersions": list(versions or ("v1",))}
    return {"strategy": "Webhook", "webhook": webhook}


def path(version: str, plural: str, name: str = "") -> str:
    return f"{GROUP}/{version}/namespaces/default/{plural}" + (f"/{name}" if name else "")


def made(rest: Rest, version: str, plural: str, name: str, **spec: str) -> Object:
    o = {
        "apiVersion": f"stable.example.com/{version}",
        "kind": plural.capitalize(),
        "metadata": {"name": name},
        "spec": spec,
    }
    found: Object = rest.ok("POST", path(version, plural), o)
    return found


@pytest.fixture(scope="module")
def gates(server: Server, webhooks: WebhookServer) -> Rest:
    rest = Rest(server)
    define(rest, "gates", "v1", by(webhooks.client("/gates", convert)))
    return rest


class TestByWebhook:
    def test_what_is_written_in_one_version_is_read_in_the_other(self, gates: Rest) -> None:
        assert made(gates, "v1", "gates", "a", hostPort="h:1")["spec"] == {"hostPort": "h:1"}
        two = gates.ok("GET", path("v2", "gates", "a"))
        assert two["apiVersion"] == "stable.example.com/v2"
        assert two["spec"] == {"host": "h", "port": "1", "proto": "tcp"}
        assert made(gates, "v2", "gates", "b", host="x", port="2")["spec"]["host"] == "x"
        one = gates.ok("GET", path("v1", "gates", "b"))
        assert one["spec"] == {"hostPort": "x:2"}
        two = gates.ok("GET", path("v2", "gates", "b"))
        assert one["metadata"]["resourceVersion"] == two["metadata"]["resourceVersion"]
        assert one["metadata"]["uid"] == two["metadata"]["uid"]

    def test_lists_are_converted_at_once(self, gates: Rest, webhooks: WebhookServer) -> None:
        for name in ("l1", "l2", "l3"):
            made(gates, "v1", "gates", name, hostPort=f"{name}:1")
        del webhooks.asked["/gates"][:]
        items = gates.ok("GET", path("v2", "gates"))["items"]
        hosts = {o["metadata"]["name"]: o["spec"]["host"] for o in items}
        assert {"l1", "l2", "l3"} <= set(hosts.values())
        (review,) = webhooks.asked["/gates"]
        assert review["apiVersion"] == "apiextensions.k8s.io/v1"
        assert review["request"]["desiredAPIVersion"] == "stable.example.com/v2"
        gates.ok("GET", path("v2", "gates"))
        assert len(webhooks.asked["/gates"]) == 1  # what was converted is remembered

    def test_updates_and_patches_are_of_the_version_asked_for(self, gates: Rest) -> None:
        made(gates, "v1", "gates", "p", hostPort="h:1")
        done = gates.ok(
            "PATCH", path("v2", "gates", "p"), {"spec": {"port": "9"}}, content_type=MERGE
        )
        assert done["spec"] == {"host": "h", "port": "9", "proto": "tcp"}
        one = gates.ok("GET", path("v1", "gates", "p"))
        assert one["spec"] == {"hostPort": "h:9"}
        two = gates.ok("GET", path("v2", "gates", "p"))
        two["spec"]["host"] = "other"
        assert gates.ok("PUT", path("v2", "gates", "p"), two)["spec"]["host"] == "other"
        assert gates.ok("GET", path("v1", "gates", "p"))["spec"] == {"hostPort": "other:9"}

    def test_server_side_apply(self, gates: Rest) -> None:
        o = {
            "apiVersion": "stable.example.com/v2",
            "kind": "Gates",
            "metadata": {"name": "s"},
            "spec": {"host": "s", "port": "1"},
        }
        apply = {"content_type": "application/apply-patch+yaml"}
        where = path("v2", "gates", "s") + "?fieldManager=test"
        gates.ok("PATCH", where, o, **apply)
        o["spec"] = {"host": "t", "port": "1"}
        assert gates.ok("PATCH", where, o, **apply)["spec"]["host"] == "t"
        assert gates.ok("GET", path("v1", "gates", "s"))["spec"] == {"hostPort": "t:1"}

    def test_watches_tell_of_the_version_asked_for(self, server: Server, gates: Rest) -> None:
        made(gates, "v1", "gates", "w", hostPort="w:1")
        context = ssl.create_default_context(cafile=str(server.authority.certificate))
        context.load_cert_chain(*map(str, server.admin))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", server.port, context=context, timeout=60
        )
        query = "?watch=1&fieldSelector=metadata.name%3Dw"
        connection.request("GET", path("v2", "gates") + query)
        response = connection.getresponse()
        first = json.loads(response.readline())
        assert (first["type"], first["object"]["spec"]["host"]) == ("ADDED", "w")
        change = {"spec": {"hostPort": "v:2"}}
        gates.ok("PATCH", path("v1", "gates", "w"), change, content_type=MERGE)
        second = json.loads(response.readline())
        assert (second["type"], second["object"]["spec"]["host"]) == ("MODIFIED", "v")
        gates.ok("DELETE", path("v1", "gates", "w"))
        third = json.loads(response.readline())
        assert third["type"] == "DELETED"
        assert third["object"]["apiVersion"] == "stable.example.com/v2"
        connection.close()

    def test_deletes_in_either(self, gates: Rest) -> None:
        made(gates, "v1", "gates", "d", hostPort="d:1")
        gates.ok("DELETE", path("v2", "gates", "d"))
        assert gates("GET", path("v1", "gates", "d")).code == 404

    def test_admission_sees_the_version_it_asks_for(
        self, gates: Rest, webhooks: WebhookServer
    ) -> None:
        rule = {
            "operations": ["CREATE"],
            "apiGroups": ["stable.example.com"],
            "apiVersions": ["v2"],
            "resources": ["gates"],
        }
        client = webhooks.client("/admission", lambda request: {"allowed": True})
        configurations = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        webhook = {
            "name": "gates.example.com",
            "rules": [rule],
            "clientConfig": client,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        gates.ok("POST", configurations, {"metadata": {"name": "gates"}, "webhooks": [webhook]})
        made(gates, "v1", "gates", "m", hostPort="m:1")
        request = webhooks.asked["/admission"][0]["request"]
        assert request["kind"]["version"] == "v2"
        assert request["requestKind"]["version"] == "v1"
        assert request["object"]["spec"]["host"] == "m"
        gates.ok("DELETE", f"{configurations}/gates")


class TestFailures:
    @pytest.mark.parametrize(
        ("name", "response", "said"),
        [
            ("sads", {"result": {"status": "Failure", "message": "no"}}, "failed: no"),
            ("fews", {"result": {"status": "Success"}, "convertedObjects": []},
             "returned 0 objects, expected 1"),
            ("odds", {"result": {"status": "Success"}, "convertedObjects": [
                {"apiVersion": "stable.example.com/v2", "kind": "Odds", "metadata": {"name": "x"}}
            ]}, "returned invalid converted object at index 0: must have the same name: a != x"),
            ("bare", {}, "response.result.status was '', not 'Success'"),
        ],
    )  # fmt: skip
    def test_a_bad_answer_is_told(
        self, rest: Rest, webhooks: WebhookServer, name: str, response: Object, said: str
    ) -> None:
        define(rest, name, "v1", by(webhooks.client(f"/{name}", lambda request: dict(response))))
        made(rest, "v1", name, "a", hostPort="a:1")
        reply = rest("GET", path("v2", name, "a"))
        assert reply.code == 500
        source = f"conversion webhook for stable.example.com/v1, Kind={name.capitalize()} "
        assert reply.message.startswith(source)
        assert said in reply.message
        assert rest("GET", path("v1", name, "a")).code == 200  # it is stored so

    def test_a_webhook_that_is_not_there(self, rest: Rest, webhooks: WebhookServer) -> None:
        client = {"url": "https://127.0.0.1:1/convert", "caBundle": webhooks.bundle}
        define(rest, "lost", "v1", by(client))
        made(rest, "v1", "lost", "a", hostPort="a:1")
        assert rest("GET", path("v2", "lost")).message == (
            "conversion webhook for stable.example.com/v1, Kind=Lost failed: Post "
            '"https://127.0.0.1:1/convert?timeout=30s": dial tcp 127.0.0.1:1: connect: connection '
            "refused"
        )

    def test_reviews_of_v1beta1(self, rest: Rest, webhooks: WebhookServer) -> None:
        define(rest, "olds", "v1", by(webhooks.client("/olds", convert), "v1beta1"))
        made(rest, "v1", "olds", "a", hostPort="a:1")
        assert rest.ok("GET", path("v2", "olds", "a"))["spec"]["host"] == "a"
        assert webhooks.asked["/olds"][0]["apiVersion"] == "apiextensions.k8s.io/v1beta1"


class TestMigration:
    def test_the_storage_version_changes_and_objects_follow_when_written(
        self, server: Server, webhooks: WebhookServer
    ) -> None:
        rest = Rest(server)
        define(rest, "moves", "v1", by(webhooks.client("/moves", convert)))
        made(rest, "v1", "moves", "a", hostPort="a:1")

        def store_v2(crd: Object) -> None:
            for each in crd["spec"]["versions"]:
                each["storage"] = each["name"] == "v2"

        crd = rewritten(rest, "moves", store_v2)
        assert crd["status"]["storedVersions"] == ["v1", "v2"]
        before = rest.ok("GET", path("v2", "moves", "a"))
        assert before["spec"]["host"] == "a"
        after = rest.ok("PUT", path("v2", "moves", "a"), before)  # changes nothing, but is written
        assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
        again = rest.ok("PUT", path("v2", "moves", "a"), after)
        assert again["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]

        def forget_v1(crd: Object) -> None:
            crd["status"]["storedVersions"] = ["v2"]

        crd = rewritten(rest, "moves", forget_v1, "/status")
        assert crd["status"]["storedVersions"] == ["v2"]

        def serve_v2_alone(crd: Object) -> None:
            crd["spec"]["versions"] = [v for v in crd["spec"]["versions"] if v["name"] == "v2"]
            crd["spec"]["conversion"] = {"strategy": "None"}

        rewritten(rest, "moves", serve_v2_alone)
        assert rest.ok("GET", path("v2", "moves", "a"))["spec"]["host"] == "a"
        server.stop()
        server.start()
        assert Rest(server).ok("GET", path("v2", "moves", "a"))["spec"]["host"] == "a"


class TestByName:
    def test_each_version_has_its_own_schema(self, rest: Rest) -> None:
        define(rest, "names", "v1", None)
        two = made(rest, "v2", "names", "a", host="h", hostPort="x")
        assert two["spec"] == {"host": "h", "proto": "tcp"}  # as the version's schema has it
        one = rest.ok("GET", path("v1", "names", "a"))
        assert one["apiVersion"] == "stable.example.com/v1"
        entry = two["metadata"]["managedFields"][0]
        assert entry["apiVersion"] == "stable.example.com/v2"


class TestDefinitionsOfV1beta1:
    def test_a_tutorials_definition_applies(self, server: Server) -> None:
        manifest = {
            "apiVersion": "apiextensions.k8s.io/v1beta1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "crontabs.old.example.com"},
            "spec": {
                "group": "old.example.com",
                "version": "v1",
                "scope": "Namespaced",
                "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab"},
                "validation": {
                    "openAPIV3Schema": {
                        "properties": {
                            "spec": {"properties": {"replicas": {"type": "integer", "minimum": 1}}}
                        }
                    }
                },
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "JSONPath": ".spec.cronSpec"}
                ],
            },
        }
        rest = Rest(server)
        old = "/apis/apiextensions.k8s.io/v1beta1/customresourcedefinitions"
        reply = rest("POST", old, manifest)
        assert reply.code == 201, reply
        assert reply.warnings == [
            "apiextensions.k8s.io/v1beta1 CustomResourceDefinition is deprecated in v1.16+, "
            "unavailable in v1.22+; use apiextensions.k8s.io/v1 CustomResourceDefinition"
        ]
        assert reply.body["spec"]["preserveUnknownFields"] is True
        stored = rest.ok("GET", f"{CRDS}/crontabs.old.example.com")
        (version,) = stored["spec"]["versions"]
        assert version["additionalPrinterColumns"][0]["jsonPath"] == ".spec.cronSpec"
        assert version["subresources"] == {"status": {}}
        shown = rest.ok("GET", f"{old}/crontabs.old.example.com")["spec"]
        assert shown["version"] == "v1"
        assert shown["validation"] == manifest["spec"]["validation"]
        assert shown["additionalPrinterColumns"][0]["JSONPath"] == ".spec.cronSpec"
        instances = "/apis/old.example.com/v1/namespaces/default/crontabs"
        wait_for(lambda: rest("GET", instances).code == 200)
        o = {"metadata": {"name": "a"}, "spec": {"cronSpec": "* * *", "unknown": 1}}
        assert rest.ok("POST", instances, o)["spec"]["unknown"] == 1
        o["metadata"] = {"name": "b"}
        o["spec"] = {"replicas": 0}
        assert rest("POST", instances, o).code == 422
        assert "* * *" in server.kubectl("get", "crontabs.old.example.com").out

        def renamed() -> bool:  # the controllers may write its status between the two
            latest = rest.ok("GET", f"{CRDS}/crontabs.old.example.com")
            latest["spec"]["names"]["shortNames"] = ["ct"]
            reply = rest("PUT", f"{CRDS}/crontabs.old.example.com", latest | {"status": {}})
            assert reply.code in (200, 409), reply
            return reply.code == 200

        wait_for(renamed)

    def test_several_versions_with_a_webhook(self, rest: Rest, webhooks: WebhookServer) -> None:
        client = webhooks.client("/beta", convert)
        schema = {"openAPIV3Schema": {"type": "object"}}
        spec = {
            "group": "old.example.com",
            "names": {"plural": "gates", "singular": "gate", "kind": "Gate"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": schema},
                {"name": "v2", "served": True, "storage": False, "schema": schema},
            ],
            "conversion": {"strategy": "Webhook", "webhookClientConfig": client},
        }
        old = "/apis/apiextensions.k8s.io/v1beta1/customresourcedefinitions"
        made = rest.ok("POST", old, {"metadata": {"name": "gates.old.example.com"}, "spec": spec})
        assert made["spec"]["conversion"]["conversionReviewVersions"] == ["v1beta1"]
        assert made["spec"]["validation"] == schema
        stored = rest.ok("GET", f"{CRDS}/gates.old.example.com")["spec"]
        assert stored["conversion"]["webhook"]["clientConfig"]["url"] == client["url"]

    def test_without_a_version_there_is_a_sentence(self, rest: Rest) -> None:
        old = "/apis/apiextensions.k8s.io/v1beta1/customresourcedefinitions"
        reply = rest("POST", old, {"metadata": {"name": "x.old.example.com"}, "spec": {}})
        assert reply.code == 422
