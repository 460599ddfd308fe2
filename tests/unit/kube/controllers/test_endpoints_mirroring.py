"""Endpoints written by hand show as slices."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from cluster import Cluster
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.api.resources import ENDPOINT_SLICES, ENDPOINTS, EVENTS, SERVICES
from wherry.kube.client.transport import Object
from wherry.kube.controllers.endpoints import mirrored

NAME = "endpointslice-mirroring-controller"


def service(**spec: Any) -> Object:
    return {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 5432}], **spec},
    }


def endpoints(*subsets: Object, **metadata: Any) -> Object:
    return {
        "metadata": {"name": "db", "namespace": "default", **metadata},
        "subsets": list(subsets),
    }


def subset(*ips: str, unready: tuple[str, ...] = (), port: int = 5432) -> Object:
    result: Object = {"ports": [{"port": port}]}
    result["addresses"] = [{"ip": ip} for ip in ips]
    result["notReadyAddresses"] = [{"ip": ip} for ip in unready]
    return result


def shown(slices: list[Object]) -> dict[tuple[str, int], bool]:
    return {
        (endpoint["addresses"][0], port["port"]): endpoint["conditions"]["ready"]
        for slice in slices
        for endpoint in slice["endpoints"]
        for port in slice["ports"]
    }


async def test_they_follow_the_object_and_go_with_it():
    async with Cluster(NAME, kubelet=False) as cluster:
        mine = endpoints(
            subset("192.0.2.1", "2001:db8::1", unready=("192.0.2.2",)),
            labels={"tier": "data"},
            annotations={"note": "kept", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
        )
        await cluster.client.create(ENDPOINTS, mine)
        await cluster.settle()
        assert cluster.api.find(ENDPOINT_SLICES) == [], "there is no Service yet"
        await cluster.client.create(SERVICES, service())
        await cluster.until(lambda: len(cluster.api.find(ENDPOINT_SLICES)) == 2)
        slices = cluster.api.find(ENDPOINT_SLICES)
        assert {s["addressType"] for s in slices} == {"IPv4", "IPv6"}
        for slice in slices:
            assert meta.labels(slice) == {
                "tier": "data",
                "kubernetes.io/service-name": "db",
                "endpointslice.kubernetes.io/managed-by": mirrored.MANAGER,
            }
            assert meta.annotations(slice) == {"note": "kept"}
            assert meta.controller_of(slice)["kind"] == "Endpoints"
        assert shown(slices) == {
            ("192.0.2.1", 5432): True,
            ("192.0.2.2", 5432): False,
            ("2001:db8::1", 5432): True,
        }
        changed = cluster.api.get(ENDPOINTS, "db", "default")
        changed = {**changed, "subsets": [subset("192.0.2.3")]}
        await cluster.client.update(ENDPOINTS, changed)
        await cluster.until(
            lambda: shown(cluster.api.find(ENDPOINT_SLICES)) == {("192.0.2.3", 5432): True}
        )
        (slice,) = cluster.api.find(ENDPOINT_SLICES)
        await cluster.client.delete(ENDPOINT_SLICES, meta.name(slice), "default")
        await cluster.until(lambda: cluster.api.find(ENDPOINT_SLICES))
        await cluster.client.delete(SERVICES, "db", "default")
        await cluster.until(lambda: not cluster.api.find(ENDPOINT_SLICES))


async def test_what_is_selected_or_says_so_is_not_mirrored():
    for made, of in (
        (endpoints(subset("192.0.2.1")), service(selector={"app": "db"})),
        (endpoints(subset("192.0.2.1"), labels={mirrored.SKIP: "true"}), service()),
    ):
        async with Cluster(NAME, kubelet=False) as cluster:
            await cluster.client.create(SERVICES, of)
            await cluster.client.create(ENDPOINTS, made)
            await cluster.settle()
            assert cluster.api.find(ENDPOINT_SLICES) == []


async def test_addresses_beyond_what_a_slice_holds_are_told_of():
    async with Cluster(NAME, kubelet=False) as cluster:
        many = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(1003)]
        await cluster.client.create(SERVICES, service())
        await cluster.client.create(ENDPOINTS, endpoints(subset(*many)))
        await cluster.until(lambda: cluster.api.find(EVENTS))
        (slice,) = await cluster.until(lambda: cluster.api.find(ENDPOINT_SLICES))
        assert len(slice["endpoints"]) == 1000
        (event,) = cluster.api.find(EVENTS)
        assert event["reason"] == "TooManyAddressesToMirror"
        assert event["message"].endswith("3 addresses were skipped")


ADDRESSES = st.lists(st.integers(1, 30).map(lambda n: f"192.0.2.{n}"), unique=True, max_size=20)
SUBSETS = st.lists(st.tuples(ADDRESSES, st.sampled_from((1, 2, 3))), max_size=4)


@given(st.lists(SUBSETS, min_size=1, max_size=5))
def test_after_any_history_slices_show_what_the_object_says_and_nothing_is_left_to_do(history):
    slices: dict[str, Object] = {}
    numbers = itertools.count()
    for step in history:
        parts = {port: ips for ips, port in step}
        wanted = endpoints(*(subset(*ips, port=port) for port, ips in parts.items()), uid="e")
        for again in (False, True):
            changes = mirrored.reconcile(wanted, mirrored.Mirror(wanted), list(slices.values()))
            done = (changes.create, changes.update, changes.delete)
            assert not again or done == ([], [], [])
            for slice in changes.delete:
                del slices[meta.name(slice)]
            for slice in changes.update:
                slices[meta.name(slice)] = slice
            for slice in changes.create:
                made = copy.deepcopy(slice)
                made["metadata"]["name"] = f"s{next(numbers)}"
                slices[meta.name(made)] = made
        expected = {(ip, port) for port, ips in parts.items() for ip in ips}
        assert set(shown(list(slices.values()))) == expected
