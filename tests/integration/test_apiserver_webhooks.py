"""Admission webhooks, asked over TLS by a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from apiserver_process import Server
from apiserver_rest import Rest
from webhook_server import WebhookServer, allow, patch, slow

Object = dict[str, Any]

GROUP = "/apis/admissionregistration.k8s.io/v1"
MUTATING, VALIDATING = "mutatingwebhookconfigurations", "validatingwebhookconfigurations"
MAPS = "/api/v1/namespaces/default/configmaps"
CREATES: list[Object] = [
    {
        "operations": ["CREATE"],
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "resources": ["configmaps"],
    }
]


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
def rest(server: Server) -> Iterator[Rest]:
    asked = Rest(server)
    yield asked
    for plural in (MUTATING, VALIDATING):
        asked.ok("DELETE", f"{GROUP}/{plural}")
    asked.ok("DELETE", MAPS)


def configure(rest: Rest, plural: str, name: str, *webhooks: Object) -> None:
    kind = (
        "MutatingWebhookConfiguration" if plural == MUTATING else "ValidatingWebhookConfiguration"
    )
    made = [
        {
            "name": f"w{i}.{name}.example.com",
            "rules": CREATES,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **webhook,
        }
        for i, webhook in enumerate(webhooks)
    ]
    rest.ok(
        "POST",
        f"{GROUP}/{plural}",
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": name},
            "webhooks": made,
        },
    )


def config_map(name: str, **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}


def add(key: str, value: str) -> Object:
    return {"op": "add", "path": f"/data/{key}", "value": value}


class TestMutating:
    def test_a_patch_changes_what_is_stored(self, rest: Rest, webhooks: WebhookServer) -> None:
        client = webhooks.client("/one", patch(add("added", "yes")))
        configure(rest, MUTATING, "one", {"clientConfig": client})
        made = rest.ok("POST", MAPS, config_map("a", data={"k": "v"}))
        assert made["data"] == {"k": "v", "added": "yes"}
        (review,) = webhooks.asked["/one"]
        request = review["request"]
        assert review["apiVersion"] == "admission.k8s.io/v1"
        assert request["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
        assert request["requestResource"] == {
            "group": "",
            "version": "v1",
            "resource": "configmaps",
        }
        assert (request["name"], request["namespace"]) == ("a", "default")
        assert request["operation"] == "CREATE"
        assert request["userInfo"]["username"] == "kubernetes-admin"
        assert "system:masters" in request["userInfo"]["groups"]
        assert request["object"]["data"] == {"k": "v"}
        assert request["oldObject"] is None
        assert request["dryRun"] is False
        assert request["options"]["kind"] == "CreateOptions"
        assert webhooks.queries[-1] == "timeout=10s"

    def test_each_sees_what_those_before_it_did_and_is_asked_again_if_it_wants(
        self, rest: Rest, webhooks: WebhookServer
    ) -> None:
        first = webhooks.client("/first", patch(add("first", "yes")))
        second = webhooks.client("/second", patch(add("second", "yes")))
        configure(
            rest,
            MUTATING,
            "order",
            {"clientConfig": first, "reinvocationPolicy": "IfNeeded"},
            {"clientConfig": second},
        )
        rest.ok("POST", MAPS, config_map("b", data={"k": "v"}))
        seen = [set(r["request"]["object"]["data"]) for r in webhooks.asked["/first"]]
        assert seen == [{"k"}, {"k", "first", "second"}]
        seen = [set(r["request"]["object"]["data"]) for r in webhooks.asked["/second"]]
        assert seen == [{"k", "first"}]

    def test_a_patch_that_does_not_fit_is_the_servers_fault(
        self, rest: Rest, webhooks: WebhookServer
    ) -> None:
        client = webhooks.client("/bad", patch({"op": "remove", "path": "/data/none"}))
        configure(rest, MUTATING, "bad", {"clientConfig": client})
        reply = rest("POST", MAPS, config_map("c", data={"k": "v"}))
        assert reply.code == 500
        assert reply.message.startswith("Internal error occurred: remove operation does not apply")

    def test_defaults_and_unknown_fields_are_seen_to_after_a_patch(
        self, rest: Rest, webhooks: WebhookServer
    ) -> None:
        container = {"name": "side", "image": "busybox", "wrong": 1}
        client = webhooks.client(
            "/sidecar", patch({"op": "add", "path": "/spec/containers/-", "value": container})
        )
        rules = [{**CREATES[0], "resources": ["pods"]}]
        configure(rest, MUTATING, "sidecar", {"clientConfig": client, "rules": rules})
        rest(
            "POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}}
        )
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
        made = rest.ok("POST", "/api/v1/namespaces/default/pods?dryRun=All", pod)
        side = made["spec"]["containers"][1]
        assert side["imagePullPolicy"] == "Always"
        assert "wrong" not in side
        assert webhooks.asked["/sidecar"][0]["request"]["dryRun"] is True

    def test_an_update_may_be_made_by_the_webhook_itself(
        self, rest: Rest, webhooks: WebhookServer
    ) -> None:
        wrote = []

        def interfere(request: Object) -> Object:
            if not wrote:
                wrote.append(1)
                rest.ok(
                    "PATCH",
                    f"{MAPS}/d",
                    {"data": {"other": "1"}},
                    content_type="application/merge-patch+json",
                )
            return {"allowed": True}

        rest.ok("POST", MAPS, config_map("d"))
        rules = [{**CREATES[0], "operations": ["UPDATE"]}]
        configure(
            rest,
            MUTATING,
            "interfering",
            {"clientConfig": webhooks.client("/interfere", interfere), "rules": rules},
        )
        merge = {"data": {"mine": "1"}}
        made = rest.ok("PATCH", f"{MAPS}/d", merge, content_type="application/merge-patch+json")
        assert made["data"] == {"other": "1", "mine": "1"}

    @pytest.mark.parametrize(
        ("path", "value", "said"),
        [
            ("/metadata/namespace", "kube-system", "does not match the namespace sent on the"),
            ("/kind", "Secret", "Secret"),
            ("/metadata", "x", "metadata"),
            ("", [], ""),
        ],
    )
    def test_a_patch_does_not_make_it_another_object(
        self, rest: Rest, webhooks: WebhookServer, path: str, value: Any, said: str
    ) -> None:
        client = webhooks.client("/move", patch({"op": "replace", "path": path, "value": value}))
        rules = [{**CREATES[0], "operations": ["CREATE", "UPDATE"]}]
        rest.ok("POST", MAPS, config_map("mine"))
        configure(rest, MUTATING, "move", {"clientConfig": client, "rules": rules})
        reply = rest("POST", MAPS, config_map("moved"))
        assert reply.code >= 400
        assert said in reply.message
        assert rest("PUT", f"{MAPS}/mine", config_map("mine", data={"a": "b"})).code >= 400
        assert rest("GET", "/api/v1/namespaces/kube-system/configmaps/moved").code == 404
        assert "data" not in rest.ok("GET", f"{MAPS}/mine")


class TestValidating:
    def test_a_refusal_is_passed_on_with_code_reason_and_warnings(
        self, rest: Rest, webhooks: WebhookServer
    ) -> None:
        def deny(request: Object) -> Object:
            return {
                "allowed": False,
                "status": {"code": 402, "message": "pay first", "reason": "Payment"},
                "warnings": ["it costs"],
            }

        configure(rest, VALIDATING, "deny", {"clientConfig": webhooks.client("/deny", deny)})
        reply = rest("POST", MAPS, config_map("e"))
        assert reply.code == 402
        assert reply.message == (
            'admission webhook "w0.deny.example.com" denied the request: pay first'
        )
        assert reply.body["reason"] == "Payment"
        assert rest("GET", f"{MAPS}/e").code == 404

    def test_without_a_word_it_says_so(self, rest: Rest, webhooks: WebhookServer) -> None:
        client = webhooks.client("/mute", lambda request: {"allowed": False})
        configure(rest, VALIDATING, "mute", {"clientConfig": client})
        reply = rest("POST", MAPS, config_map("f"))
        assert reply.code == 400
        assert reply.message == (
            'admission webhook "w0.mute.example.com" denied the request without explanation'
        )

    def test_warnings_reach_the_client(self, rest: Rest, webhooks: WebhookServer) -> None:
        client = webhooks.client("/warn", lambda r: {"allowed": True, "warnings": ["beware"]})
        configure(rest, VALIDATING, "warn", {"clientConfig": client})
        assert rest("POST", MAPS, config_map("g")).warnings == ["beware"]

    def test_selectors_and_conditions_choose(self, rest: Rest, webhooks: WebhookServer) -> None:
        client = webhooks.client("/chosen", allow)
        configure(
            rest,
            VALIDATING,
            "chosen",
            {
                "clientConfig": client,
                "objectSelector": {"matchLabels": {"watch": "me"}},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
                "matchConditions": [
                    {"name": "named", "expression": "object.metadata.name != 'h3'"},
                    {
                        "name": "may",
                        "expression": "authorizer.group('').resource('configmaps')"
                        ".namespace('default').check('create').allowed()",
                    },
                ],
            },
        )
        for name, labels in (("h1", {}), ("h2", {"watch": "me"}), ("h3", {"watch": "me"})):
            o = config_map(name)
            o["metadata"]["labels"] = labels
            rest.ok("POST", MAPS, o)
        assert [r["request"]["name"] for r in webhooks.asked["/chosen"]] == ["h2"]

    def test_a_condition_in_error_refuses(self, rest: Rest, webhooks: WebhookServer) -> None:
        configure(
            rest,
            VALIDATING,
            "error",
            {
                "clientConfig": webhooks.client("/never", allow),
                "matchConditions": [{"name": "c", "expression": "object.data.x == 'y'"}],
            },
        )
        reply = rest("POST", MAPS, config_map("i"))
        assert reply.code == 403
        assert reply.message == (
            "configmaps \"i\" is forbidden: expression 'object.data.x == 'y'' resulted in error: "
            "no such key: data"
        )

    def test_deletes_show_the_old_object(self, rest: Rest, webhooks: WebhookServer) -> None:
        rest.ok("POST", MAPS, config_map("j", data={"k": "v"}))
        rules = [{**CREATES[0], "operations": ["DELETE"]}]
        client = webhooks.client("/delete", allow)
        configure(rest, VALIDATING, "delete", {"clientConfig": client, "rules": rules})
        rest.ok("DELETE", f"{MAPS}/j")
        request = webhooks.asked["/delete"][0]["request"]
        assert request["object"] is None
        assert request["oldObject"]["data"] == {"k": "v"}
        assert request["options"]["kind"] == "DeleteOptions"

    def test_reviews_of_v1beta1(self, rest: Rest, webhooks: WebhookServer) -> None:
        client = webhooks.client("/beta", allow)
        configure(
            rest,
            VALIDATING,
            "beta",
            {"clientConfig": client, "admissionReviewVersions": ["v2", "v1beta1"]},
        )
        rest.ok("POST", MAPS, config_map("k"))
        assert webhooks.asked["/beta"][0]["apiVersion"] == "admission.k8s.io/v1beta1"

    def test_configurations_themselves_are_exempt(
        self, rest: Rest, webhooks: WebhookServer
    ) -> None:
        everything = [
            {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
        ]
        client = webhooks.client("/all", lambda request: {"allowed": False})
        configure(rest, VALIDATING, "all", {"clientConfig": client, "rules": everything})
        assert rest("POST", MAPS, config_map("l")).code == 400
        rest.ok("DELETE", f"{GROUP}/{VALIDATING}/all")
        rest.ok("POST", MAPS, config_map("l"))


class TestVersions:
    INGRESS: ClassVar[Object] = {
        "metadata": {"name": "web"},
        "spec": {"backend": {"serviceName": "web", "servicePort": 80}},
    }
    PATHS = ("/apis/networking.k8s.io/v1beta1", "/apis/networking.k8s.io/v1")

    def rule(self, version: str) -> Object:
        return {**CREATES[0], "apiGroups": ["networking.k8s.io"], "apiVersions": [version],
                "resources": ["ingresses"]}  # fmt: skip

    def test_an_old_version_is_shown_and_changed_as_the_webhook_knows_it(
        self, rest: Rest, webhooks: WebhookServer
    ) -> None:
        new = patch({"op": "add", "path": "/spec/ingressClassName", "value": "a"})
        old = patch({"op": "replace", "path": "/spec/backend/serviceName", "value": "b"})
        rules = {"rules": [self.rule("v1")]}
        configure(rest, MUTATING, "new", {"clientConfig": webhooks.client("/new", new), **rules})
        rules = {"rules": [self.rule("v1beta1")]}
        configure(rest, MUTATING, "old", {"clientConfig": webhooks.client("/old", old), **rules})
        path = "/apis/networking.k8s.io/v1beta1/namespaces/default/ingresses?dryRun=All"
        made = rest.ok("POST", path, self.INGRESS)
        assert made["apiVersion"] == "networking.k8s.io/v1beta1"
        assert made["spec"]["ingressClassName"] == "a"
        assert made["spec"]["backend"]["serviceName"] == "b"
        (review,) = webhooks.asked["/new"]
        request = review["request"]
        assert request["kind"]["version"] == "v1"
        assert request["requestKind"]["version"] == "v1beta1"
        assert request["object"]["spec"]["defaultBackend"]["service"]["name"] == "web"
        (review,) = webhooks.asked["/old"]
        assert review["request"]["object"]["spec"]["backend"]["serviceName"] == "web"

    def test_exact_rules_are_about_their_version_alone(
        self, rest: Rest, webhooks: WebhookServer
    ) -> None:
        client = webhooks.client("/exact", lambda request: {"allowed": False})
        exact = {"clientConfig": client, "matchPolicy": "Exact", "rules": [self.rule("v1beta1")]}
        configure(rest, VALIDATING, "exact", exact)
        old, new = (f"{path}/namespaces/default/ingresses?dryRun=All" for path in self.PATHS)
        assert rest("POST", old, self.INGRESS).code == 400
        backend = {"service": {"name": "web", "port": {"number": 80}}}
        o = {"metadata": {"name": "web"}, "spec": {"defaultBackend": backend}}
        assert rest("POST", new, o).code == 201


class TestFailures:
    @pytest.mark.parametrize("policy", ["Fail", "Ignore"])
    def test_nobody_there(self, rest: Rest, webhooks: WebhookServer, policy: str) -> None:
        client = {"url": "https://127.0.0.1:1/x", "caBundle": webhooks.bundle}
        configure(rest, VALIDATING, "gone", {"clientConfig": client, "failurePolicy": policy})
        reply = rest("POST", MAPS, config_map("m"))
        if policy == "Ignore":
            assert reply.code == 201
            return
        assert reply.code == 500
        assert reply.message == (
            'Internal error occurred: failed calling webhook "w0.gone.example.com": failed to call '
            'webhook: Post "https://127.0.0.1:1/x?timeout=10s": dial tcp 127.0.0.1:1: connect: '
            "connection refused"
        )

    def test_too_slow(self, rest: Rest, webhooks: WebhookServer) -> None:
        client = webhooks.client("/slow", slow(3))
        configure(rest, VALIDATING, "slow", {"clientConfig": client, "timeoutSeconds": 1})
        reply = rest("POST", MAPS, config_map("n"))
        assert reply.code == 500
        assert reply.message.endswith('/slow?timeout=1s": context deadline exceeded')

    def test_a_certificate_nobody_knows(self, rest: Rest, webhooks: WebhookServer) -> None:
        client = {**webhooks.client("/tls", allow)}
        del client["caBundle"]
        configure(rest, VALIDATING, "tls", {"clientConfig": client})
        reply = rest("POST", MAPS, config_map("o"))
        assert reply.code == 500
        assert reply.message.endswith("x509: certificate signed by unknown authority")

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (None, 'an error on the server ("oops") has prevented the request from succeeding'),
            ({"allowed": True, "uid": "x"}, 'got "x"'),
            (
                {"allowed": True, "patch": "W10="},
                "validating webhook may not return response.patch",
            ),
            ({"__whole__": {"kind": "Pod", "apiVersion": "v1"}}, "got v1, Kind=Pod"),
        ],
    )
    def test_answers_that_are_none(
        self, rest: Rest, webhooks: WebhookServer, answer: Object | None, said: str
    ) -> None:
        client = webhooks.client("/odd", lambda r: None if answer is None else {**answer})
        configure(rest, VALIDATING, "odd", {"clientConfig": client})
        reply = rest("POST", MAPS, config_map("p"))
        assert reply.code == 500
        assert said in reply.message

    def test_dry_runs_are_not_for_those_with_side_effects(
        self, rest: Rest, webhooks: WebhookServer
    ) -> None:
        client = webhooks.client("/effects", allow)
        configure(
            rest, VALIDATING, "effects", {"clientConfig": client, "sideEffects": "NoneOnDryRun"}
        )
        rest.ok("POST", f"{MAPS}?dryRun=All", config_map("q"))
        assert webhooks.asked["/effects"][0]["request"]["dryRun"] is True


class TestServices:
    def test_a_service_is_asked_by_its_name(self, rest: Rest, webhooks: WebhookServer) -> None:
        client = webhooks.client("/service", allow)
        port = webhooks.port
        service = {"namespace": "default", "name": "hook", "path": "/service", "port": port}
        configure(
            rest,
            VALIDATING,
            "service",
            {"clientConfig": {"service": service, "caBundle": client["caBundle"]}},
        )
        url = f"https://hook.default.svc:{port}/service?timeout=10s"
        reply = rest("POST", MAPS, config_map("r"))
        assert reply.message.endswith(f'Post "{url}": service "hook" not found')
        services = "/api/v1/namespaces/default/services"
        spec = {"ports": [{"port": port, "name": "https"}]}
        rest.ok("POST", services, {"metadata": {"name": "hook"}, "spec": spec})
        reply = rest("POST", MAPS, config_map("r"))
        assert reply.message.endswith('no endpoints available for service "hook"')
        rest.ok("DELETE", f"{services}/hook")
        spec = {"type": "ExternalName", "externalName": "localhost"}
        rest.ok("POST", services, {"metadata": {"name": "hook"}, "spec": spec})
        rest.ok("POST", MAPS, config_map("r"))
        assert webhooks.names[-1] == "hook.default.svc"
        connections = webhooks.connections
        rest.ok("POST", MAPS, config_map("s"))
        assert webhooks.connections == connections  # it was kept
