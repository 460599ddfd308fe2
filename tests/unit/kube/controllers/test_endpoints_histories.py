"""Endpoints and EndpointSlices after random histories are what one who sees only the end would
make of it."""

from __future__ import annotations

import asyncio
import contextlib

from cluster import Cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from test_endpoints_controllers import BOTH, pod, service

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES
from wherry.kube.client.transport import Object
from wherry.kube.controllers.endpoints import backends, legacy, slices

PORTS = (
    [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
    [{"port": 80, "targetPort": "http", "protocol": "TCP"}],
    [{"name": n, "port": p, "protocol": "TCP"} for n, p in (("a", 80), ("b", 81))],
)
NUMBER = st.integers(0, 5)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("pod"), NUMBER, st.booleans()),
        st.tuples(st.just("pod"), NUMBER, st.booleans()),
        st.tuples(st.just("ready"), NUMBER, st.booleans()),
        st.tuples(st.just("delete"), NUMBER, st.sampled_from([None, 0])),
        st.tuples(st.just("label"), NUMBER, st.sampled_from(["web", "other"])),
        st.tuples(st.just("ports"), st.integers(0, 2), st.none()),
        st.tuples(st.just("publish"), st.booleans(), st.none()),
        st.tuples(st.just("break"), NUMBER, st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=25,
)


def flat(found: list[Object]) -> list[str]:
    """What slices say together, in whichever of them it is."""
    return sorted(
        str((s["addressType"], sorted(map(str, s.get("ports") or ())), sorted(e.items(), key=str)))
        for s in found
        for e in s.get("endpoints") or ()
    )


async def act(cluster: Cluster, name: str, what: object, how: object) -> None:
    client, api = cluster.client, cluster.api
    key = f"p{what}"
    there = api.get(PODS, key, "default")
    if name == "pod" and there is None:
        port = {"name": "http", "containerPort": 8000 + int(str(what)) % 2}
        containers = [{"name": "c", "ports": [port]}]
        body = pod(key, f"10.0.0.{what}", bool(how), containers=containers)
        await client.create(PODS, body)
    elif name == "ready" and there is not None:
        status = pod(key, f"10.0.0.{what}", bool(how))["status"]
        await client.update_status(PODS, {**there, "status": status})
    elif name == "delete" and there is not None:
        await client.delete(PODS, key, "default", grace=how)  # type: ignore[arg-type]
    elif name == "label" and there is not None:
        await client.patch(PODS, key, {"metadata": {"labels": {"app": how}}}, "default")
    elif name == "ports":
        await client.patch(SERVICES, "web", {"spec": {"ports": PORTS[int(str(what))]}}, "default")
    elif name == "publish":
        spec = {"spec": {"publishNotReadyAddresses": what}}
        await client.patch(SERVICES, "web", spec, "default")
    elif name == "break":
        for found in api.find(ENDPOINT_SLICES)[:1]:
            with contextlib.suppress(StatusError):  # its controller may have removed it just now
                if int(str(what)) % 2:
                    await client.delete(ENDPOINT_SLICES, meta.name(found), "default")
                else:
                    empty = {"endpoints": []}
                    await client.patch(ENDPOINT_SLICES, meta.name(found), empty, "default")
    elif name == "restart":
        await cluster.stop()
        cluster.start()


async def play(acts: list) -> None:
    async with Cluster(*BOTH, kubelet=False) as cluster:
        api = cluster.api
        await cluster.client.create(SERVICES, service())
        for each in acts:
            await act(cluster, *each)

        def right() -> bool:
            held = api.get(SERVICES, "web", "default")
            assert held is not None
            taken = [p for p in api.find(PODS) if backends.takes(held, p)]
            fresh = slices.reconcile(held, taken, {}, [], "").create
            stored = api.get(ENDPOINTS, "web", "default")
            if stored is None or flat(api.find(ENDPOINT_SLICES)) != flat(fresh):
                return False
            return legacy.reconcile(held, taken, stored, "") is None

        await cluster.until(right)
        await cluster.settle(0.02)
        assert right()
        settled = api.revision
        await cluster.stop()
        cluster.start()
        await cluster.settle(0.02)
        assert api.revision == settled, "nothing is left to write"


@settings(max_examples=30, deadline=None)
@given(ACTS)
def test_endpoints_are_those_of_the_end_whatever_came_before(acts: list):
    asyncio.run(play(acts))
