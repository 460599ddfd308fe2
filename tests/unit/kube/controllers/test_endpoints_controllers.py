from __future__ import annotations

import itertools

from cluster import READY, Cluster
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.api.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES
from wherry.kube.client.transport import Object
from wherry.kube.controllers.endpoints import legacy, slices

BOTH = ("endpoints-controller", "endpointslice-controller")
NUMBERS = itertools.count()


def service(name: str = "web", **spec: object) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": "s1"},
        "spec": {
            "clusterIP": "10.96.0.7",
            "ipFamilies": ["IPv4"],
            "selector": {"app": name},
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
            **spec,
        },
    }


def pod(name: str, ip: str, ready: bool = True, **spec: object) -> Object:
    state = "True" if ready else "False"
    condition = {"type": "Ready", "status": state, "lastTransitionTime": meta.now()}
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"app": "web"},
            "uid": f"uid-{name}",
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}], **spec},
        "status": READY(podIP=ip, podIPs=[{"ip": ip}], conditions=[condition]),
    }


def shown(cluster: Cluster) -> dict[str, tuple[bool, bool, bool]]:
    """Address to (ready, serving, terminating)."""
    return {
        endpoint["addresses"][0]: tuple(
            endpoint["conditions"][c] for c in ("ready", "serving", "terminating")
        )
        for slice in cluster.api.find(ENDPOINT_SLICES)
        for endpoint in slice["endpoints"]
    }


async def test_a_service_shows_its_pods_as_they_come_and_go():
    async with Cluster(*BOTH, kubelet=False) as cluster:
        client = cluster.client
        made = await client.create(SERVICES, service())
        await cluster.until(lambda: cluster.api.find(ENDPOINT_SLICES))
        await client.create(PODS, pod("a", "10.0.0.1"))
        await client.create(PODS, pod("b", "10.0.0.2", ready=False))
        await cluster.until(lambda: len(shown(cluster)) == 2)
        await cluster.settle()
        assert shown(cluster) == {
            "10.0.0.1": (True, True, False),
            "10.0.0.2": (False, False, False),
        }
        (slice,) = cluster.api.find(ENDPOINT_SLICES)
        assert slice["metadata"]["name"].startswith("web-")
        assert slice["metadata"]["labels"] == {
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }
        assert slice["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
        assert (
            "endpoints.kubernetes.io/last-change-trigger-time" in slice["metadata"]["annotations"]
        )
        assert slice["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
        assert slice["endpoints"][0]["targetRef"]["kind"] == "Pod"
        (subset,) = cluster.api.get(ENDPOINTS, "web", "default")["subsets"]
        assert [a["ip"] for a in subset["addresses"]] == ["10.0.0.1"]
        assert [a["ip"] for a in subset["notReadyAddresses"]] == ["10.0.0.2"]
        assert subset["ports"] == [{"port": 8080, "protocol": "TCP"}]
        await client.delete(PODS, "a", "default")
        await cluster.until(lambda: shown(cluster).get("10.0.0.1") == (False, True, True))
        await client.delete(PODS, "a", "default", grace=0)
        await cluster.until(lambda: set(shown(cluster)) == {"10.0.0.2"})
        patch = {"metadata": {"labels": {"app": "other"}}}
        await client.patch(PODS, "b", patch, "default")
        await cluster.until(lambda: shown(cluster) == {})
        assert len(cluster.api.find(ENDPOINT_SLICES)) == 1
        await client.delete(SERVICES, "web", "default")
        await cluster.until(lambda: not cluster.api.find(ENDPOINTS))


async def test_status_that_does_not_concern_endpoints_causes_no_writes():
    async with Cluster(*BOTH, kubelet=False) as cluster:
        await cluster.client.create(SERVICES, service())
        made = await cluster.client.create(PODS, pod("a", "10.0.0.1"))
        await cluster.until(lambda: len(shown(cluster)) == 1)
        await cluster.settle()
        before = len(cluster.api.requests)
        status = {**made["status"], "containerStatuses": [{"name": "c", "restartCount": 3}]}
        await cluster.client.update_status(PODS, {**made, "status": status})
        await cluster.settle()
        assert len(cluster.api.requests) == before + 1


async def test_a_service_without_selector_is_the_users():
    async with Cluster(*BOTH, kubelet=False) as cluster:
        own = {"metadata": {"name": "web", "namespace": "default"}, "subsets": []}
        await cluster.client.create(ENDPOINTS, own)
        await cluster.settle()
        await cluster.client.create(SERVICES, service(selector=None))
        await cluster.settle()
        assert cluster.api.find(ENDPOINT_SLICES) == []
        assert cluster.api.get(ENDPOINTS, "web", "default") is not None


async def test_slices_and_endpoints_that_were_changed_are_put_right():
    async with Cluster(*BOTH, kubelet=False) as cluster:
        client = cluster.client
        await client.create(SERVICES, service())
        await client.create(PODS, pod("a", "10.0.0.1"))
        await cluster.until(lambda: len(shown(cluster)) == 1)
        await cluster.until(lambda: cluster.api.get(ENDPOINTS, "web", "default"))
        (slice,) = cluster.api.find(ENDPOINT_SLICES)
        await client.patch(ENDPOINT_SLICES, meta.name(slice), {"endpoints": []}, "default")
        await cluster.until(lambda: len(shown(cluster)) == 1)
        (slice,) = cluster.api.find(ENDPOINT_SLICES)
        await client.delete(ENDPOINT_SLICES, meta.name(slice), "default")
        await cluster.until(lambda: len(shown(cluster)) == 1)
        await client.patch(ENDPOINTS, "web", {"subsets": None}, "default")
        await cluster.until(lambda: cluster.api.get(ENDPOINTS, "web", "default").get("subsets"))
        await client.delete(ENDPOINTS, "web", "default")
        await cluster.until(lambda: cluster.api.get(ENDPOINTS, "web", "default"))


async def test_zones_follow_the_nodes():
    async with Cluster("endpointslice-controller", kubelet=False) as cluster:
        client = cluster.client
        await client.create(SERVICES, service())
        await client.create(PODS, pod("a", "10.0.0.1"))
        labels = {"topology.kubernetes.io/zone": "z1"}
        await client.create(NODES, {"metadata": {"name": "n1", "labels": labels}})
        await cluster.until(
            lambda: [
                e
                for s in cluster.api.find(ENDPOINT_SLICES)
                for e in s["endpoints"]
                if e.get("zone") == "z1"
            ]
        )


def test_named_ports_are_those_of_each_pod():
    def with_port(name: str, ip: str, number: int) -> Object:
        ports = [{"name": "http", "containerPort": number}]
        return pod(name, ip, containers=[{"name": "c", "ports": ports}])

    named = service(ports=[{"port": 80, "targetPort": "http"}])
    pods = [with_port("a", "10.0.0.1", 80), with_port("b", "10.0.0.2", 81), pod("c", "10.0.0.3")]
    changes = slices.reconcile(named, pods, {}, [], "")
    found = {s["ports"][0]["port"]: s["endpoints"][0]["addresses"] for s in changes.create}
    assert found == {80: ["10.0.0.1"], 81: ["10.0.0.2"]}
    assert len(legacy.subsets(named, pods)[0]) == 2


def test_a_headless_service_without_ports_has_addresses_all_the_same():
    headless = service(clusterIP="None", ports=None)
    (slice,) = slices.reconcile(headless, [pod("a", "10.0.0.1")], {}, [], "").create
    assert slice["endpoints"][0]["addresses"] == ["10.0.0.1"]
    assert slice["ports"] == []
    assert slice["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


def test_hostnames_are_published_under_the_service_of_their_subdomain():
    named = pod("a", "10.0.0.1", hostname="first", subdomain="web")
    (slice,) = slices.reconcile(service(), [named], {}, [], "").create
    assert slice["endpoints"][0]["hostname"] == "first"
    foreign = pod("a", "10.0.0.1", hostname="first", subdomain="other")
    (slice,) = slices.reconcile(service(), [foreign], {}, [], "").create
    assert "hostname" not in slice["endpoints"][0]


def test_publishing_not_ready_addresses_makes_all_ready():
    changes = slices.reconcile(
        service(publishNotReadyAddresses=True), [pod("a", "10.0.0.1", ready=False)], {}, [], ""
    )
    assert changes.create[0]["endpoints"][0]["conditions"] == {
        "ready": True,
        "serving": False,
        "terminating": False,
    }


def test_families_have_slices_of_their_own():
    both = service(ipFamilies=["IPv4", "IPv6"])
    dual = pod("a", "10.0.0.1")
    dual["status"]["podIPs"] = [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]
    made = slices.reconcile(both, [dual], {}, [], "").create
    found = {s["addressType"]: s["endpoints"][0]["addresses"] for s in made}
    assert found == {"IPv4": ["10.0.0.1"], "IPv6": ["fd00::1"]}


def apply(existing: list[Object], changes: slices.Changes) -> list[Object]:
    state = {meta.name(s): s for s in existing}
    for slice in changes.delete:
        del state[meta.name(slice)]
    for slice in changes.update:
        state[meta.name(slice)] = slice
    for slice in changes.create:
        name = f"web-{next(NUMBERS)}"
        state[name] = {**slice, "metadata": {**slice["metadata"], "name": name}}
    return list(state.values())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(1, 400), max_size=350), min_size=1, max_size=4))
def test_slices_hold_exactly_the_pods_each_once_a_hundred_at_most(history: list[set[int]]):
    state: list[Object] = []
    for numbers in history:
        pods = [pod(f"p{n}", f"10.0.{n // 250}.{n % 250}") for n in sorted(numbers)]
        state = apply(state, slices.reconcile(service(), pods, {}, state, ""))
        held = [e["targetRef"]["name"] for s in state for e in s["endpoints"]]
        assert sorted(held) == sorted(meta.name(p) for p in pods)
        assert all(len(s["endpoints"]) <= 100 for s in state)
        assert state, "a service has one slice at least"
        assert sum(not s["endpoints"] for s in state) <= (0 if pods else 1)
        settled = slices.reconcile(service(), pods, {}, state, "later")
        assert (settled.create, settled.update, settled.delete) == ([], [], [])


def test_one_pods_change_writes_one_slice():
    pods = [pod(f"p{n}", f"10.0.{n // 250}.{n % 250}") for n in range(250)]
    state = apply([], slices.reconcile(service(), pods, {}, [], ""))
    assert len(state) == 3
    pods[7] = pod("p7", "10.0.0.7", ready=False)
    changes = slices.reconcile(service(), pods, {}, state, "")
    assert (len(changes.create), len(changes.update), len(changes.delete)) == (0, 1, 0)


def test_more_addresses_than_endpoints_can_hold_are_cut():
    pods = [pod(f"p{n:04}", f"10.{n // 60000}.{n // 250}.{n % 250}") for n in range(1100)]
    found = legacy.reconcile(service(), pods, None, "")
    assert len(found["subsets"][0]["addresses"]) == 1000
    annotations = found["metadata"]["annotations"]
    assert annotations["endpoints.kubernetes.io/over-capacity"] == "truncated"
    stored = {**found, "metadata": {**found["metadata"], "uid": "u"}}
    assert legacy.reconcile(service(), pods, stored, "") is None
