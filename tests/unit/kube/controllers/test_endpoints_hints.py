"""For whom endpoints are meant."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cluster import Cluster, ready
from hypothesis import given
from hypothesis import strategies as st
from test_endpoints_controllers import pod, service

from wherry.kube.api.resources import ENDPOINT_SLICES, EVENTS, NODES, PODS, SERVICES
from wherry.kube.client.transport import Object
from wherry.kube.controllers.endpoints import hints


def endpoint(zone: str, node: str = "n1", *, is_ready: bool = True) -> Object:
    return {"conditions": {"ready": is_ready}, "zone": zone, "nodeName": node}


def given_hints(endpoints: list[Object], **spec: Any) -> list[Object | None]:
    hints.give(service(**spec), endpoints, {})
    return [e.get("hints") for e in endpoints]


def test_what_is_close_is_the_zone_or_the_node():
    zone = {"forZones": [{"name": "a"}]}
    for wanted in ("PreferClose", "PreferSameZone"):
        ends = [endpoint("a"), endpoint("a", is_ready=False)]
        assert given_hints(ends, trafficDistribution=wanted) == [zone, None]
    found = given_hints([endpoint("a")], trafficDistribution="PreferSameNode")
    assert found == [{**zone, "forNodes": [{"name": "n1"}]}]
    assert given_hints([endpoint("a")]) == [None]


ZONES = st.lists(st.sampled_from("abc"), min_size=1, max_size=40)


@given(ZONES, st.dictionaries(st.sampled_from("abc"), st.integers(1, 64), min_size=1))
def test_no_zone_has_a_fifth_more_to_bear_than_its_part_or_nobody_gets_hints(zones, cpus):
    shares = hints.shares([endpoint(zone) for zone in zones], cpus)
    if not shares:
        return
    assert len(shares) == len(zones)
    count = Counter(shares)
    for zone, cpu in cpus.items():
        part = len(zones) * cpu / sum(cpus.values())
        assert count[zone] and part / count[zone] <= 1.2 + 1e-9


async def test_slices_have_them_as_nodes_come():
    async with Cluster("endpointslice-controller", kubelet=False) as cluster:
        for name, zone in (("n1", "a"), ("n2", "b")):
            labels = {"topology.kubernetes.io/zone": zone}
            state: Object = {"conditions": [{"type": "Ready", "status": "True"}]}
            state["allocatable"] = {"cpu": "2"}
            made = {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": state}
            await cluster.client.create(NODES, made)
        wanted = service()
        wanted["metadata"]["annotations"] = {hints.TOPOLOGY_MODE: "Auto"}
        await cluster.client.create(SERVICES, wanted)
        for number in range(2):
            await cluster.client.create(PODS, pod(f"p{number}", f"10.0.0.{number + 1}"))

        def meant_for() -> list[str]:
            return sorted(
                e["hints"]["forZones"][0]["name"]
                for s in cluster.api.find(ENDPOINT_SLICES)
                for e in s["endpoints"]
                if "hints" in e
            )

        await cluster.until(lambda: meant_for() == ["a", "b"])

        def told() -> set[tuple[str, str]]:
            return {(e["reason"], e["message"]) for e in cluster.api.find(EVENTS)}

        on = ("TopologyAwareHintsEnabled", "Topology Aware Hints has been enabled")
        await cluster.until(lambda: (on[0], f"{on[1]}, addressType: IPv4") in told())
        nowhere = {**made, "metadata": {"name": "n3"}}
        await cluster.client.create(NODES, nowhere)
        await cluster.until(lambda: meant_for() == [])
        why = "Insufficient Node information: allocatable CPU or zone not specified on one or more "
        off = ("TopologyAwareHintsDisabled", f"{why}nodes, addressType: IPv4")
        await cluster.until(lambda: off in told())
        control = {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}
        await cluster.client.patch(NODES, "n3", control)
        await cluster.until(lambda: meant_for() == ["a", "b"])
        gone = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        await cluster.client.patch(NODES, "n2", gone, subresource="status")
        await cluster.until(lambda: meant_for() == [])
        assert all(ready(p) for p in cluster.pods())
