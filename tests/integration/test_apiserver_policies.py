"""Admission policies in CEL, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from apiserver_process import Server
from apiserver_rest import Rest
from conftest import eventually

Object = dict[str, Any]

GROUP = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
KINDS = {
    "validatingadmissionpolicies": "ValidatingAdmissionPolicy",
    "validatingadmissionpolicybindings": "ValidatingAdmissionPolicyBinding",
    "mutatingadmissionpolicies": "MutatingAdmissionPolicy",
    "mutatingadmissionpolicybindings": "MutatingAdmissionPolicyBinding",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("server")).start()
    yield started
    started.kill()


@pytest.fixture
def rest(server: Server) -> Iterator[Rest]:
    asked = Rest(server)
    yield asked
    for plural in KINDS:
        asked.ok("DELETE", f"{GROUP}/{plural}")
    for path in (MAPS, DEPLOYMENTS):
        asked.ok("DELETE", path)


def store(rest: Rest, plural: str, name: str, spec: Object) -> Object:
    o = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": KINDS[plural],
        "metadata": {"name": name},
        "spec": spec,
    }
    made: Object = rest.ok("POST", f"{GROUP}/{plural}", o)
    return made


def rules(*resources: str, group: str = "", operations: tuple[str, ...] = ("CREATE",)) -> Object:
    rule = {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": list(operations),
        "resources": list(resources),
    }
    return {"resourceRules": [rule]}


def policy(rest: Rest, name: str, *validations: Object, **more: Any) -> None:
    """A policy on ConfigMaps, bound."""
    binding = more.pop("binding", {})
    spec = {"matchConstraints": rules("configmaps"), "validations": list(validations), **more}
    store(rest, "validatingadmissionpolicies", name, spec)
    store(
        rest,
        "validatingadmissionpolicybindings",
        f"{name}-binding",
        {"policyName": name, "validationActions": ["Deny"], **binding},
    )


def config_map(name: str, data: Object | None = None, **metadata: Any) -> Object:
    o: Object = {"metadata": {"name": name, **metadata}}
    return o if data is None else {**o, "data": data}


def deployment(name: str, replicas: int) -> Object:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": name}, "spec": spec}


class TestValidating:
    def test_the_example_of_the_documentation(self, server: Server, rest: Rest) -> None:
        policy(
            rest,
            "demo-policy.example.com",
            {"expression": "object.spec.replicas <= 5"},
            matchConstraints=rules("deployments", group="apps", operations=("CREATE", "UPDATE")),
        )
        reply = rest("POST", DEPLOYMENTS, deployment("nginx", 6))
        assert reply.code == 422
        assert reply.body["reason"] == "Invalid"
        assert reply.message == (
            'deployments.apps "nginx" is forbidden: ValidatingAdmissionPolicy '
            "'demo-policy.example.com' with binding 'demo-policy.example.com-binding' denied "
            "request: failed expression: object.spec.replicas <= 5"
        )
        rest.ok("POST", DEPLOYMENTS, deployment("nginx", 5))
        done = server.kubectl("scale", "deployment", "nginx", "--replicas=7", ok=False)
        assert done.code == 0  # the scale is another resource
        done = server.kubectl("set", "image", "deployment/nginx", "c=other", ok=False)
        assert "failed expression: object.spec.replicas <= 5" in done.err

    def test_messages_and_reasons(self, rest: Rest) -> None:
        policy(
            rest,
            "texts",
            {
                "expression": "variables.size < 1",
                "messageExpression": "'%d is too many'.format([variables.size])",
                "reason": "Forbidden",
            },
            variables=[
                {"name": "keys", "expression": "has(object.data) ? object.data.map(k, k) : []"},
                {"name": "size", "expression": "size(variables.keys)"},
            ],
        )
        reply = rest("POST", MAPS, config_map("a", {"x": "1", "y": "2"}))
        assert reply.code == 403
        assert reply.body["reason"] == "Forbidden"
        assert reply.message.endswith("denied request: 2 is too many")
        assert reply.body["details"]["causes"][0]["message"].startswith("ValidatingAdmissionPolicy")
        rest.ok("POST", MAPS, config_map("b"))

    @pytest.mark.parametrize("failing", ["Fail", "Ignore"])
    def test_an_expression_in_error(self, rest: Rest, failing: str) -> None:
        policy(rest, "error", {"expression": "object.data.x == 'y'"}, failurePolicy=failing)
        reply = rest("POST", MAPS, config_map("c"))
        if failing == "Ignore":
            assert reply.code == 201
        else:
            assert reply.code == 422
            assert reply.message.endswith(
                "denied request: expression 'object.data.x == 'y'' resulted in error: no such key: "
                "data"
            )

    def test_warnings_only_warn(self, rest: Rest) -> None:
        policy(
            rest,
            "gentle",
            {"expression": "false", "message": "rather not"},
            binding={"validationActions": ["Warn", "Audit"]},
        )
        assert rest("POST", MAPS, config_map("d")).warnings == [
            "Validation failed for ValidatingAdmissionPolicy 'gentle' with binding "
            "'gentle-binding': rather not"
        ]

    def test_parameters(self, rest: Rest) -> None:
        rest.ok("POST", MAPS, config_map("limits", {"most": "1"}, labels={"role": "limits"}))
        policy(
            rest,
            "limited",
            {"expression": "!has(object.data) || size(object.data) <= int(params.data.most)"},
            paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
            binding={"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}},
        )
        two = {"x": "1", "y": "2"}
        assert rest("POST", MAPS, config_map("e", two)).code == 422
        rest.ok("POST", MAPS, config_map("e", {"x": "1"}))
        rest.ok("DELETE", f"{MAPS}/limits")
        reply = rest("POST", MAPS, config_map("f"))
        assert reply.message.endswith(
            "failed to configure binding: no params found for policy binding with `Deny` "
            "parameterNotFoundAction"
        )
        selector = {"matchLabels": {"role": "limits"}}
        reference = {"selector": selector, "parameterNotFoundAction": "Allow"}
        rest.ok(
            "PATCH",
            f"{GROUP}/validatingadmissionpolicybindings/limited-binding",
            {"spec": {"paramRef": {**reference, "name": None}}},
            content_type="application/merge-patch+json",
        )
        rest.ok("POST", MAPS, config_map("f", two))

    def test_a_kind_of_parameters_that_is_not_there(self, rest: Rest) -> None:
        policy(
            rest,
            "nokind",
            {"expression": "params == null"},
            paramKind={"apiVersion": "example.com/v1", "kind": "None"},
            binding={"paramRef": {"name": "x", "parameterNotFoundAction": "Allow"}},
        )
        assert rest("POST", MAPS, config_map("g")).message.endswith(
            "ValidatingAdmissionPolicy 'nokind' denied request: failed to configure policy: failed "
            "to find resource referenced by paramKind: 'example.com/v1, Kind=None'"
        )

    def test_who_asks_where_and_whether_he_may(self, rest: Rest) -> None:
        policy(
            rest,
            "context",
            {"expression": "request.userInfo.username == 'kubernetes-admin'"},
            {"expression": "namespaceObject.metadata.name == 'default'"},
            {"expression": "authorizer.requestResource.check('create').allowed()"},
            {"expression": "!authorizer.serviceAccount('default', 'x').group('').resource('pods')"
             ".namespace('default').check('delete').allowed()"},
            {"expression": "request.operation == 'CREATE' && oldObject == null"},
            {"expression": "request.resource.resource == 'configmaps' && !request.dryRun"},
        )  # fmt: skip
        rest.ok("POST", MAPS, config_map("h"))

    def test_conditions_and_selectors_of_both(self, rest: Rest) -> None:
        policy(
            rest,
            "narrow",
            {"expression": "false"},
            matchConditions=[{"name": "named", "expression": "object.metadata.name != 'i1'"}],
            binding={"matchResources": {"objectSelector": {"matchLabels": {"a": "b"}}}},
        )
        rest.ok("POST", MAPS, config_map("i1", labels={"a": "b"}))
        rest.ok("POST", MAPS, config_map("i2"))
        assert rest("POST", MAPS, config_map("i3", labels={"a": "b"})).code == 422

    def test_expressions_that_cost_too_much_are_stopped(self, rest: Rest) -> None:
        numbers = "[1,2,3,4,5,6,7,8,9,10]"
        loop = f"{numbers}.all(a, {numbers}.all(b, {numbers}.all(c, {numbers}.all(d, "
        loop += f"{numbers}.all(e, {numbers}.all(f, true))))))"
        policy(rest, "costly", {"expression": loop})
        reply = rest("POST", MAPS, config_map("j"))
        assert reply.message.endswith(
            "validation failed due to running out of cost budget, no further validation rules "
            "will be run"
        )

    def test_policies_do_not_hold_for_policies(self, rest: Rest) -> None:
        every = {
            "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]
        }  # fmt: skip
        policy(rest, "all", {"expression": "false"}, matchConstraints={"resourceRules": [every]})
        assert rest("POST", MAPS, config_map("k")).code == 422
        rest.ok("DELETE", f"{GROUP}/validatingadmissionpolicies/all")
        rest.ok("POST", MAPS, config_map("k"))


class TestMutating:
    def mutate(self, rest: Rest, name: str, *mutations: Object, **more: Any) -> None:
        spec = {
            "matchConstraints": rules("configmaps"),
            "mutations": list(mutations),
            "reinvocationPolicy": "Never",
            **more,
        }
        store(rest, "mutatingadmissionpolicies", name, spec)
        store(rest, "mutatingadmissionpolicybindings", f"{name}-binding", {"policyName": name})

    def test_a_configuration_is_applied(self, rest: Rest) -> None:
        self.mutate(
            rest,
            "labels",
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {
                    "expression": "Object{metadata: Object.metadata{labels: "
                    "Object.metadata.labels{env: 'test', of: object.metadata.name}}}"
                },
            },
        )
        made = rest.ok("POST", MAPS, config_map("a", labels={"own": "1"}))
        assert made["metadata"]["labels"] == {"own": "1", "env": "test", "of": "a"}

    def test_a_patch_is_applied_and_each_sees_what_was_before(self, rest: Rest) -> None:
        self.mutate(
            rest,
            "patch",
            {
                "patchType": "JSONPatch",
                "jsonPatch": {
                    "expression": "[JSONPatch{op: 'add', path: '/data/' + "
                    "jsonpatch.escapeKey('a.b'), value: 'x'}]"
                },
            },
            {
                "patchType": "JSONPatch",
                "jsonPatch": {
                    "expression": "has(object.data) && 'a.b' in object.data ? "
                    "[JSONPatch{op: 'replace', path: '/data/a.b', value: 'y'}] : []"
                },
            },
        )
        assert rest.ok("POST", MAPS, config_map("b", {"k": "v"}))["data"] == {"k": "v", "a.b": "y"}

    def test_containers_merge_by_name(self, rest: Rest) -> None:
        self.mutate(
            rest,
            "sidecar",
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {
                    "expression": "Object{spec: Object.spec{template: Object.spec.template{spec: "
                    "Object.spec.template.spec{containers: ["
                    "Object.spec.template.spec.containers{name: 'side', image: 'proxy'}]}}}}"
                },
            },
            matchConstraints=rules("deployments", group="apps"),
        )
        made = rest.ok("POST", DEPLOYMENTS, deployment("c", 1))
        containers = made["spec"]["template"]["spec"]["containers"]
        assert {c["name"]: c["image"] for c in containers} == {"c": "busybox", "side": "proxy"}
        assert all(c["imagePullPolicy"] for c in containers)

    def test_what_cannot_be_done_refuses(self, rest: Rest) -> None:
        self.mutate(
            rest,
            "broken",
            {
                "patchType": "JSONPatch",
                "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/data/none'}]"},
            },
        )
        reply = rest("POST", MAPS, config_map("d"))
        assert reply.code == 422
        assert (
            "policy 'broken' with binding 'broken-binding' denied request: JSON Patch: remove"
            in (reply.message)
        )


class TestChecks:
    def test_an_expression_that_is_none_is_refused_at_once(self, rest: Rest) -> None:
        spec = {
            "matchConstraints": rules("configmaps"),
            "variables": [{"name": "a", "expression": "variables.b"}],
            "validations": [{"expression": "object."}, {"expression": "params.x == 1"}],
            "matchConditions": [{"name": "c", "expression": "nothing"}],
        }
        o = {"metadata": {"name": "wrong"}, "spec": spec}
        reply = rest("POST", f"{GROUP}/validatingadmissionpolicies", o)
        assert reply.code == 422
        causes = {cause["field"]: cause["message"] for cause in reply.body["details"]["causes"]}
        assert causes["spec.validations[0].expression"].startswith(
            'Invalid value: "object.": compilation failed: ERROR: <input>:1:8: Syntax error'
        )
        assert "undeclared reference to 'params'" in causes["spec.validations[1].expression"]
        assert "undefined field 'b'" in causes["spec.variables[0].expression"]
        assert "undeclared reference to 'nothing'" in causes["spec.matchConditions[0].expression"]

    def test_fields_that_a_kind_does_not_have_are_told_in_the_status(self, rest: Rest) -> None:
        policy(
            rest,
            "typo",
            {"expression": "object.spec.replicaz <= 5"},
            {"expression": "object.spec.template.spec.containers.all(c, c.imag != '')"},
            {"expression": "object.metadata.labels['x'] == 'y' && object.spec.replicas < 3"},
            matchConstraints=rules("deployments", group="apps"),
        )
        path = f"{GROUP}/validatingadmissionpolicies/typo"
        found = eventually(
            lambda: (
                (status := rest.ok("GET", path).get("status", {})).get("observedGeneration")
                and status
            )
        )
        warnings = found["typeChecking"]["expressionWarnings"]
        assert [w["fieldRef"] for w in warnings] == [
            "spec.validations[0].expression",
            "spec.validations[1].expression",
        ]
        assert warnings[0]["warning"].startswith(
            "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replicaz'"
        )
        assert found["observedGeneration"] == 1
