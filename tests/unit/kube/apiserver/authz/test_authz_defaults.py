"""The roles every cluster has, and what becomes of them at a start."""

from __future__ import annotations

from pathlib import Path

from apiserver_harness import API, Object, config

from wherry.kube.api.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES
from wherry.kube.apiserver.authz.defaults import mended, node_rules, objects
from wherry.kube.apiserver.server import SELF, APIServer
from wherry.kube.store.sqlite import SQLiteStore

RBAC = "/apis/rbac.authorization.k8s.io/v1"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
ALL = {
    (resource, o["metadata"].get("namespace", ""), o["metadata"]["name"]): o
    for resource, o in objects()
}


def of(name: str) -> Object:
    return ALL[CLUSTER_ROLES, "", name]


def test_each_is_there_once_and_bound_to_a_role_that_is() -> None:
    assert len(ALL) == len(list(objects()))
    for (resource, namespace, _), o in ALL.items():
        assert o["metadata"]["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults"
        assert o["metadata"]["annotations"] == {AUTOUPDATE: "true"}
        if resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            role = o["roleRef"]
            where = (ROLES, namespace) if role["kind"] == "Role" else (CLUSTER_ROLES, "")
            assert (*where, role["name"]) in ALL


def test_a_line_is_a_rule() -> None:
    assert of("cluster-admin")["rules"] == [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]
    assert of("system:kube-scheduler")["rules"][2] == {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["kube-scheduler"],
        "verbs": ["get", "list", "update", "watch"],
    }
    assert (
        of("edit")["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"] == "true"
    )
    label = {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}
    assert of("edit")["aggregationRule"] == {"clusterRoleSelectors": [{"matchLabels": label}]}
    assert ALL[CLUSTER_ROLE_BINDINGS, "", "system:node"]["subjects"] == []
    assert any("nodes/status" in rule.resources for rule in node_rules())


def test_what_is_missing_is_added_and_what_was_added_stays() -> None:
    wanted = of("system:node-problem-detector")
    assert mended(wanted, wanted) is None
    found = {**wanted, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}
    made = mended(wanted, found)
    assert made is not None and made["rules"][0] == found["rules"][0]
    assert mended(wanted, made) is None
    wider = {**wanted, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
    assert mended(wanted, wider) is None
    off = {**found, "metadata": {**found["metadata"], "annotations": {AUTOUPDATE: "false"}}}
    assert mended(wanted, off) is None


async def test_a_start_mends_roles_and_bindings(store: SQLiteStore, tmp_path: Path) -> None:
    first = APIServer(config(tmp_path), store)
    await first.open()
    api = API(first.transport(SELF))
    await api("DELETE", f"{RBAC}/clusterroles/system:discovery")
    await api.merge(f"{RBAC}/clusterroles/system:basic-user", {"rules": []})
    off = {"metadata": {"annotations": {AUTOUPDATE: "false"}}, "rules": []}
    await api.merge(f"{RBAC}/clusterroles/system:heapster", off)
    await api.merge(f"{RBAC}/clusterrolebindings/system:monitoring", {"subjects": []})
    await api("DELETE", f"{RBAC}/clusterrolebindings/system:kube-dns")
    turned = ALL[CLUSTER_ROLE_BINDINGS, "", "system:kube-dns"]
    turned = {**turned, "roleRef": {**turned["roleRef"], "name": "view"}}
    await api("POST", f"{RBAC}/clusterrolebindings", turned)
    await first.close()
    second = APIServer(config(tmp_path), store)
    await second.open()
    api = API(second.transport(SELF))
    assert (await api("GET", f"{RBAC}/clusterroles/system:discovery"))["rules"]
    assert len((await api("GET", f"{RBAC}/clusterroles/system:basic-user"))["rules"]) == 3
    assert not (await api("GET", f"{RBAC}/clusterroles/system:heapster")).get("rules")
    binding = await api("GET", f"{RBAC}/clusterrolebindings/system:monitoring")
    assert binding["subjects"][0]["name"] == "system:monitoring"
    binding = await api("GET", f"{RBAC}/clusterrolebindings/system:kube-dns")
    assert binding["roleRef"]["name"] == "system:kube-dns"
    await second.close()
