"""Roles and bindings as objects, in the whole chain: what they allow, and what is said."""

from __future__ import annotations

from typing import Any

import pytest
from apiserver_harness import API, Object, config_map, pod

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.authn import known
from wherry.kube.apiserver.request import NO_QUERY, User, parse_request
from wherry.kube.apiserver.server import APIServer

RBAC = "/apis/rbac.authorization.k8s.io/v1"
BOB = known("bob", ("dev",))


def role(name: str, *rules: Object, namespace: str = "default") -> Object:
    kind = "Role" if namespace else "ClusterRole"
    return {"kind": kind, "metadata": {"name": name}, "rules": list(rules)}


def binding(name: str, of: str, *subjects: Object) -> Object:
    kind, _, which = of.partition("/")
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": which},
        "subjects": list(subjects),
    }


def rule(verbs: str, resources: str, group: str = "", *names: str) -> Object:
    made: Object = {
        "verbs": verbs.split(","),
        "resources": resources.split(","),
        "apiGroups": [group],
    }
    return {**made, "resourceNames": list(names)} if names else made


USER = {"kind": "User", "name": "bob"}
GROUP = {"kind": "Group", "name": "dev"}
ROLES = f"{RBAC}/namespaces/default/roles"
BINDINGS = f"{RBAC}/namespaces/default/rolebindings"


def as_(server: APIServer, user: User | str) -> API:
    return API(server.transport(user))


async def refusal(call: Any) -> str:
    with pytest.raises(StatusError) as failure:
        await call
    assert (failure.value.code, failure.value.reason) == (403, "Forbidden")
    return failure.value.message


async def test_a_role_holds_from_its_binding_on_until_it_goes(api: API, server: APIServer) -> None:
    bob = as_(server, BOB)
    await api("POST", "configmaps", config_map())
    text = (
        'configmaps "c" is forbidden: User "bob" cannot get resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    assert await refusal(bob("GET", "configmaps/c")) == text
    await api("POST", BINDINGS, binding("b", "Role/r", USER))
    missing = f'{text}: RBAC: role.rbac.authorization.k8s.io "r" not found'
    assert await refusal(bob("GET", "configmaps/c")) == missing
    await api("POST", ROLES, role("r", rule("get", "configmaps")))
    await bob("GET", "configmaps/c")
    await refusal(bob("GET", "/api/v1/namespaces/kube-system/configmaps/c"))
    await refusal(bob("GET", "/api/v1/configmaps"))
    await api.merge(f"{ROLES}/r", {"rules": [rule("list", "configmaps")]})
    assert await refusal(bob("GET", "configmaps/c")) == text
    await bob("GET", "configmaps")
    await api("DELETE", f"{BINDINGS}/b")
    await refusal(bob("GET", "configmaps"))


async def test_a_cluster_role_is_bound_in_a_namespace_or_everywhere(
    api: API, server: APIServer
) -> None:
    bob = as_(server, BOB)
    await api("POST", f"{RBAC}/clusterroles", role("reader", rule("list", "pods"), namespace=""))
    await api("POST", BINDINGS, binding("b", "ClusterRole/reader", GROUP))
    await bob("GET", "pods")
    await refusal(bob("GET", "/api/v1/pods"))
    await api("POST", f"{RBAC}/clusterrolebindings", binding("b", "ClusterRole/reader", GROUP))
    await bob("GET", "/api/v1/pods")
    await bob("GET", "/api/v1/namespaces/kube-system/pods")


async def test_a_service_account_is_a_subject_of_its_namespace(api: API, server: APIServer) -> None:
    account = {"kind": "ServiceAccount", "name": "robot"}
    await api("POST", ROLES, role("r", rule("list", "pods")))
    await api("POST", BINDINGS, binding("b", "Role/r", {**account, "namespace": "kube-system"}))
    await as_(server, "system:serviceaccount:kube-system:robot")("GET", "pods")
    await refusal(as_(server, "system:serviceaccount:default:robot")("GET", "pods"))
    group = {"kind": "Group", "name": "system:serviceaccounts:default"}
    await api("POST", BINDINGS, binding("g", "Role/r", group))
    await as_(server, "system:serviceaccount:default:robot")("GET", "pods")


async def test_names_count_where_there_is_one(api: API, server: APIServer) -> None:
    bob = as_(server, BOB)
    await api("POST", ROLES, role("r", rule("get,list,create,update", "configmaps", "", "c")))
    await api("POST", BINDINGS, binding("b", "Role/r", USER))
    await api("POST", "configmaps", config_map())
    await bob("GET", "configmaps/c")
    await bob("GET", "configmaps", fieldSelector="metadata.name=c")
    await refusal(bob("GET", "configmaps/d"))
    await refusal(bob("GET", "configmaps"))
    await refusal(bob("POST", "configmaps", config_map()))


async def test_an_update_that_creates_is_a_create(api: API, server: APIServer) -> None:
    bob = as_(server, BOB)
    await api("POST", ROLES, role("r", rule("patch", "configmaps")))
    await api("POST", BINDINGS, binding("b", "Role/r", USER))
    apply = {"content_type": "application/apply-patch+yaml", "fieldManager": "m"}
    body = {"apiVersion": "v1", **config_map()}
    await refusal(bob("PATCH", "configmaps/c", body, **apply))
    await api("POST", "configmaps", config_map())
    await bob("PATCH", "configmaps/c", body, **apply)


async def test_masters_may_everything_and_strangers_learn_the_version(server: APIServer) -> None:
    from wherry.kube.apiserver.authn import ANONYMOUS

    stranger, bob = as_(server, ANONYMOUS), as_(server, known("eve"))
    await stranger("GET", "/version")
    text = 'forbidden: User "system:anonymous" cannot get path "/apis"'
    assert await refusal(stranger("GET", "/apis")) == text
    await bob("GET", "/apis")
    await refusal(bob("POST", "pods", pod()))
    await as_(server, User("root", ("system:masters",)))("GET", "/api/v1/nodes")


async def test_a_websocket_into_a_pod_is_no_reading(api: API, server: APIServer) -> None:
    await api("POST", ROLES, role("r", rule("get", "pods/exec,pods/log")))
    await api("POST", BINDINGS, binding("b", "Role/r", USER))
    await api("POST", "pods", pod())
    info = parse_request("GET", "/api/v1/namespaces/default/pods/web/exec", NO_QUERY)
    await server._chain.authorize(BOB, info)
    text = await refusal(server._chain.connect(BOB, info, NO_QUERY))
    assert 'User "bob" cannot create resource "pods/exec"' in text
    await api("PUT", f"{ROLES}/r", role("r", rule("get,create", "pods/exec")))
    await server._chain.connect(BOB, info, NO_QUERY)


# --- escalation ---------------------------------------------------------------------------------


async def grant(api: API, *rules: Object) -> None:
    await api("POST", f"{RBAC}/clusterroles", role("granted", *rules, namespace=""))
    await api("POST", f"{RBAC}/clusterrolebindings", binding("g", "ClusterRole/granted", USER))


WRITES = rule("create,update,patch", "roles,rolebindings,clusterroles", "rbac.authorization.k8s.io")


async def test_nobody_writes_rules_he_does_not_have(api: API, server: APIServer) -> None:
    await grant(api, WRITES, rule("get", "pods"))
    bob = as_(server, BOB)
    await bob("POST", ROLES, role("fine", rule("get", "pods")))
    assert await refusal(bob("POST", ROLES, role("more", rule("get,list", "pods,secrets")))) == (
        'roles.rbac.authorization.k8s.io "more" is forbidden: user "bob" (groups=["dev" '
        '"system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
        '{APIGroups:[""], Resources:["pods"], Verbs:["list"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}'
    )
    await refusal(bob.merge(f"{ROLES}/fine", {"rules": [rule("list", "pods")]}))
    await bob.merge(f"{ROLES}/fine", {"metadata": {"labels": {"a": "b"}}})


async def test_who_may_escalate_writes_any_rule(api: API, server: APIServer) -> None:
    await grant(api, WRITES, rule("escalate", "roles", "rbac.authorization.k8s.io"))
    bob = as_(server, BOB)
    await bob("POST", ROLES, role("more", rule("get", "secrets")))
    await refusal(
        bob("POST", f"{RBAC}/clusterroles", role("more", rule("get", "secrets"), namespace=""))
    )


async def test_nobody_binds_a_role_he_does_not_have(api: API, server: APIServer) -> None:
    await grant(api, WRITES)
    bob = as_(server, BOB)
    await api("POST", ROLES, role("r", rule("get", "secrets")))
    assert await refusal(bob("POST", BINDINGS, binding("b", "Role/r", USER))) == (
        'rolebindings.rbac.authorization.k8s.io "b" is forbidden: user "bob" (groups=["dev" '
        '"system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}'
    )
    with pytest.raises(StatusError, match='"none" not found') as failure:
        await bob("POST", BINDINGS, binding("b", "Role/none", USER))
    assert failure.value.code == 404


async def test_who_may_bind_a_role_gives_it_away(api: API, server: APIServer) -> None:
    await grant(api, WRITES, rule("bind", "roles", "rbac.authorization.k8s.io", "r"))
    await api("POST", ROLES, role("r", rule("get", "secrets")))
    await api("POST", ROLES, role("s", rule("get", "secrets")))
    bob = as_(server, BOB)
    await bob("POST", BINDINGS, binding("b", "Role/r", GROUP | {"name": "others"}))
    await refusal(bob("POST", BINDINGS, binding("c", "Role/s", USER)))


async def test_only_who_may_everything_aggregates(api: API, server: APIServer) -> None:
    await grant(api, WRITES)
    made = role("all", namespace="")
    made["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    text = await refusal(as_(server, BOB)("POST", f"{RBAC}/clusterroles", made))
    assert text.endswith("must have cluster-admin privileges to use the aggregationRule")
