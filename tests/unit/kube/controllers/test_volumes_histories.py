"""Claims and volumes over random histories: who is bound is bound to one that fits and knows it,
and nobody waits beside a volume that would do."""

from __future__ import annotations

import asyncio

from cluster import Cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from test_volumes import BINDER, claim, volume

from wherry.kube.api import meta
from wherry.kube.api.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from wherry.kube.api.volume_matching import find_volume, size
from wherry.kube.client.transport import Object

NUMBER, SIZE, CLASS = st.integers(0, 4), st.integers(1, 4), st.sampled_from(["", "fast"])
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("volume"), NUMBER, SIZE, CLASS),
        st.tuples(st.just("volume"), NUMBER, SIZE, CLASS),
        st.tuples(st.just("claim"), NUMBER, SIZE, CLASS),
        st.tuples(st.just("claim"), NUMBER, SIZE, CLASS),
        st.tuples(st.just("drop claim"), NUMBER, SIZE, CLASS),
        st.tuples(st.just("drop volume"), NUMBER, SIZE, CLASS),
        st.tuples(st.just("restart"), NUMBER, SIZE, CLASS),
    ),
    max_size=20,
)


def phase(found: Object) -> str:
    return str((found.get("status") or {}).get("phase") or "")


def check(claims: dict[str, Object], volumes: dict[str, Object]) -> str:
    """What is wrong, if anything."""
    named = [c["spec"]["volumeName"] for c in claims.values() if c["spec"].get("volumeName")]
    if len(set(named)) != len(named):
        return "two claims have one volume"
    for one in claims.values():
        held = volumes.get(one["spec"].get("volumeName") or "")
        if phase(one) == "Bound":
            if held is None or held["spec"].get("claimRef", {}).get("uid") != meta.uid(one):
                return f"{meta.name(one)} is bound to what does not know of it"
            wanted = one["spec"]
            if size(held) < size({"spec": {"capacity": wanted["resources"]["requests"]}}):
                return f"{meta.name(one)} got too little"
            if held["spec"]["storageClassName"] != wanted["storageClassName"]:
                return f"{meta.name(one)} got another class"
        elif phase(one) == "Lost":
            if held is not None and held["spec"].get("claimRef", {}).get("uid") == meta.uid(one):
                return f"{meta.name(one)} is not lost"
        elif phase(one) != "Pending" or find_volume(one, volumes.values()) is not None:
            return f"{meta.name(one)} waits beside a volume that fits"
    for each in volumes.values():
        reference = each["spec"].get("claimRef")
        owner = claims.get((reference or {}).get("name", ""))
        mine = owner is not None and reference["uid"] == meta.uid(owner)
        wanted = "Bound" if mine else "Released" if reference else "Available"
        if phase(each) != wanted:
            return f"{meta.name(each)} is {phase(each)}, not {wanted}"
    return ""


async def play(acts: list) -> None:
    async with Cluster(BINDER, kubelet=False) as cluster:
        api, client = cluster.api, cluster.client
        for name, number, amount, class_name in acts:
            v, c = f"v{number}", f"c{number}"
            if name == "volume" and api.get(PERSISTENT_VOLUMES, v) is None:
                body = volume(v, f"{amount}Gi", class_name)
                await client.create(PERSISTENT_VOLUMES, {**body, "status": {}})
            elif name == "claim" and api.get(PERSISTENT_VOLUME_CLAIMS, c, "default") is None:
                await client.create(
                    PERSISTENT_VOLUME_CLAIMS, claim(f"{amount}Gi", class_name, name=c)
                )
            elif name == "drop claim" and api.get(PERSISTENT_VOLUME_CLAIMS, c, "default"):
                await client.delete(PERSISTENT_VOLUME_CLAIMS, c, "default")
            elif name == "drop volume" and api.get(PERSISTENT_VOLUMES, v):
                await client.delete(PERSISTENT_VOLUMES, v)
            elif name == "restart":
                await cluster.stop()
                cluster.start()

        def wrong() -> str:
            return check(
                {meta.name(o): o for o in api.find(PERSISTENT_VOLUME_CLAIMS)},
                {meta.name(o): o for o in api.find(PERSISTENT_VOLUMES)},
            )

        await cluster.settle(0.02)
        await cluster.until(lambda: not wrong())
        await cluster.settle(0.02)
        assert not wrong()


@settings(max_examples=30, deadline=None)
@given(ACTS)
def test_claims_and_volumes_are_in_order_whatever_came_and_went(acts: list):
    asyncio.run(play(acts))
