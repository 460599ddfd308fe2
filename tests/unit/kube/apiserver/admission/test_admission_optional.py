"""The plugins that are off until they are asked for."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from apiserver_harness import API, config, config_map, pod, service

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.admission import AdmissionOptions
from wherry.kube.apiserver.authn import known
from wherry.kube.apiserver.server import SELF, APIServer
from wherry.kube.store.sqlite import SQLiteStore


@asynccontextmanager
async def serving(
    store: SQLiteStore, directory: Path, *plugins: str, **configuration: Any
) -> AsyncIterator[API]:
    options = AdmissionOptions(enable=plugins, configuration=configuration)
    server = APIServer(config(directory, admission=options), store)
    await server.open()
    api = API(server.transport(SELF))
    api.server = server  # type: ignore[attr-defined]
    try:
        await api("POST", "serviceaccounts", {"metadata": {"name": "default"}})
        yield api
    finally:
        await server.close()


async def refusal(api: API, method: str, path: str, body: Any = None) -> str:
    with pytest.raises(StatusError) as failure:
        await api(method, path, body)
    return failure.value.message


async def test_images_are_always_pulled(store: SQLiteStore, tmp_path: Path) -> None:
    async with serving(store, tmp_path, "AlwaysPullImages") as api:
        made = await api("POST", "pods", pod())
        assert made["spec"]["containers"][0]["imagePullPolicy"] == "Always"


async def test_a_namespace_is_made_for_what_is_put_in_it(
    store: SQLiteStore, tmp_path: Path
) -> None:
    async with serving(store, tmp_path, "NamespaceAutoProvision") as api:
        await api("POST", "/api/v1/namespaces/fresh/configmaps", config_map())
        assert (await api("GET", "namespaces/fresh"))["status"]["phase"] == "Active"


async def test_services_take_no_external_addresses(store: SQLiteStore, tmp_path: Path) -> None:
    async with serving(store, tmp_path, "DenyServiceExternalIPs") as api:
        text = await refusal(api, "POST", "services", service(externalIPs=["192.0.2.7"]))
        assert text.endswith("Use of external IPs is denied by admission control.")
        await api("POST", "services", service())


async def test_who_asks_for_a_device_tolerates_its_taint(
    store: SQLiteStore, tmp_path: Path
) -> None:
    async with serving(store, tmp_path, "ExtendedResourceToleration") as api:
        body = pod()
        body["spec"]["containers"][0]["resources"] = {"limits": {"x.io/gpu": "1"}}
        made = await api("POST", "pods", body)
        wanted = {"key": "x.io/gpu", "operator": "Exists", "effect": "NoSchedule"}
        assert wanted in made["spec"]["tolerations"]


async def test_anti_affinity_is_about_hosts(store: SQLiteStore, tmp_path: Path) -> None:
    async with serving(store, tmp_path, "LimitPodHardAntiAffinityTopology") as api:
        term = {"topologyKey": "zone", "labelSelector": {}}
        rule = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        text = await refusal(api, "POST", "pods", pod(affinity={"podAntiAffinity": rule}))
        assert text == (
            'pods "web" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has '
            "TopologyKey zone but only key kubernetes.io/hostname is allowed"
        )


async def test_a_namespace_selects_nodes_for_its_pods(store: SQLiteStore, tmp_path: Path) -> None:
    selectors = {"clusterDefaultNodeSelector": "env=dev", "default": "env=dev,disk=ssd"}
    given = {"PodNodeSelector": {"podNodeSelectorPluginConfig": selectors}}
    async with serving(store, tmp_path, "PodNodeSelector", **given) as api:
        made = await api("POST", "pods", pod(nodeSelector={"disk": "ssd"}))
        assert made["spec"]["nodeSelector"] == {"env": "dev", "disk": "ssd"}
        text = await refusal(api, "POST", "pods", pod("b", nodeSelector={"env": "prod"}))
        assert "conflicts with its namespace node label selector" in text
        text = await refusal(api, "POST", "pods", pod("b", nodeSelector={"x": "y"}))
        assert "conflict with its namespace whitelist" in text
        note = {"scheduler.alpha.kubernetes.io/node-selector": "a"}
        await api.merge("namespaces/default", {"metadata": {"annotations": note}})
        assert "invalid selector: a" in await refusal(api, "POST", "pods", pod("b"))


async def test_tolerations_are_given_and_bounded(store: SQLiteStore, tmp_path: Path) -> None:
    async with serving(store, tmp_path, "PodTolerationRestriction") as api:
        prefix = "scheduler.alpha.kubernetes.io/"
        notes = {
            f"{prefix}defaultTolerations": '[{"key":"a","operator":"Exists"}]',
            f"{prefix}tolerationsWhitelist": '[{"key":"a","operator":"Exists"},'
            '{"operator":"Exists","effect":"NoExecute"}]',
        }
        await api.merge("namespaces/default", {"metadata": {"annotations": notes}})
        made = await api("POST", "pods", pod())
        assert {"key": "a", "operator": "Exists"} in made["spec"]["tolerations"]
        other = pod("b", tolerations=[{"key": "b", "operator": "Exists"}])
        assert "conflict with its namespace whitelist" in await refusal(api, "POST", "pods", other)
        bad = {f"{prefix}defaultTolerations": "{"}
        await api.merge("namespaces/default", {"metadata": {"annotations": bad}})
        assert "invalid annotation" in await refusal(api, "POST", "pods", pod("c"))


def event(name: str) -> dict[str, Any]:
    about = {"kind": "Pod", "namespace": "default", "name": "web"}
    return {"metadata": {"name": name}, "involvedObject": about, "reason": "x", "type": "Normal"}


async def test_events_are_limited(store: SQLiteStore, tmp_path: Path) -> None:
    limits = [{"type": "Namespace", "qps": 1, "burst": 2}, {"type": "Server", "qps": 1, "burst": 9}]
    given = {"EventRateLimit": {"limits": limits}}
    async with serving(store, tmp_path, "EventRateLimit", **given) as api:
        outcomes = []
        for number in range(5):
            try:
                outcomes.append(await api("POST", "events", event(f"e{number}")))
            except StatusError as error:
                assert error.code == 429
                assert error.message == "limit reached on type Namespace for key default"
                break
        assert len(outcomes) >= 2
    with pytest.raises(ValueError, match="must not be empty"):
        async with serving(store, tmp_path, "EventRateLimit"):
            pass


async def test_owners_are_named_by_who_may(store: SQLiteStore, tmp_path: Path) -> None:
    async with serving(store, tmp_path, "OwnerReferencesPermissionEnforcement") as api:
        role = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update"]}]
        await api("POST", role, {"metadata": {"name": "r"}, "rules": rules})
        subjects = [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]
        reference = {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}
        binding = {"metadata": {"name": "b"}, "subjects": subjects, "roleRef": reference}
        await api("POST", role.replace("roles", "rolebindings"), binding)
        server: APIServer = api.server  # type: ignore[attr-defined]
        bob = API(server.transport(known("bob")))
        await api("POST", "pods", pod())
        uid = (await api("GET", "pods/web"))["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid}
        owned = config_map()
        owned["metadata"]["ownerReferences"] = [owner]
        await bob("POST", "configmaps", owned)
        blocking = config_map("d")
        blocking["metadata"]["ownerReferences"] = [{**owner, "blockOwnerDeletion": True}]
        text = await refusal(bob, "POST", "configmaps", blocking)
        assert "a resource you can't set finalizers on" in text
        await api("POST", "configmaps", config_map("e"))
        moved = copy.deepcopy(await api("GET", "configmaps/e"))
        moved["metadata"]["ownerReferences"] = [owner]
        text = await refusal(bob, "PUT", "configmaps/e", moved)
        assert "cannot set an ownerRef on a resource you can't delete" in text
        await api("PUT", "configmaps/e", moved)
