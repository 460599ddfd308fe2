"""Who is left after random histories of owners and dependents, and of namespaces that go: exactly
those that one of their owners keeps, or whom nobody asked to go."""

from __future__ import annotations

import asyncio
import contextlib

from cluster import Cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from test_garbage_collector import GC, make

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import CONFIG_MAPS, NAMESPACES
from wherry.kube.client.transport import Object

QUIET = 0.03

MAKE = st.tuples(st.just("make"), st.lists(st.integers(0, 30), max_size=3), st.booleans())
DELETE = st.tuples(
    st.just("delete"),
    st.integers(0, 30),
    st.sampled_from(["Background", "Background", "Foreground", "Orphan"]),
)
ACTS = st.lists(st.one_of(MAKE, MAKE, DELETE, st.just(("restart",))), max_size=25)


class Model:
    """What there must be once everybody has come to rest."""

    def __init__(self) -> None:
        self.owners: dict[int, set[int]] = {}

    def make(self, number: int, owners: set[int]) -> None:
        self.owners[number] = owners
        self._clean({number} if owners and not owners & self.owners.keys() else set())

    def delete(self, number: int, orphan: bool) -> None:
        if orphan:
            for owners in self.owners.values():
                owners.discard(number)
        self._clean({number})

    def _clean(self, going: set[int]) -> None:
        while going:
            for number in going:
                self.owners.pop(number, None)
            before = going
            going = {
                number
                for number, owners in self.owners.items()
                if owners & before and not owners & self.owners.keys()
            }
        for owners in self.owners.values():
            owners.intersection_update(self.owners)


async def collect(acts: list) -> None:
    model, made = Model(), list[Object]()
    async with Cluster(GC) as cluster:
        for name, *how in acts:
            if name == "restart":
                await cluster.stop()
                cluster.start()
            elif name == "make":
                owners = {n % len(made) for n in how[0]} if made else set()
                model.make(len(made), set(owners))
                bodies = [made[n] for n in sorted(owners)]
                made.append(await make(cluster, f"o{len(made)}", *bodies, block=how[1]))
            elif model.owners:
                number = sorted(model.owners)[how[0] % len(model.owners)]
                if how[1] == "Orphan":  # whether it is in time depends on who else is at work
                    await cluster.settle(QUIET)
                model.delete(number, how[1] == "Orphan")
                with contextlib.suppress(StatusError):  # the collector was quicker
                    await cluster.client.delete(
                        CONFIG_MAPS, f"o{number}", "default", propagation=how[1]
                    )
                if how[1] == "Orphan":
                    await cluster.settle(QUIET)

        def there() -> dict[str, set[str]]:
            return {
                meta.name(o): {r["name"] for r in meta.owner_references(o)}
                for o in cluster.api.find(CONFIG_MAPS)
            }

        wanted = {f"o{n}": {f"o{m}" for m in owners} for n, owners in model.owners.items()}
        await cluster.until(lambda: there() == wanted)
        await cluster.settle(QUIET)
        assert there() == wanted
        assert not any(meta.is_deleting(o) for o in cluster.api.find(CONFIG_MAPS))


@settings(max_examples=25, deadline=None)
@given(ACTS)
def test_what_is_left_is_what_somebody_keeps(acts: list):
    asyncio.run(collect(acts))


async def empty(acts: list) -> None:
    async with Cluster("namespace-controller", GC) as cluster:
        client, wanted = cluster.client, set[tuple[str, str]]()
        gone, held = set[str](), dict[tuple[str, str], None]()
        for space in ("s0", "s1"):
            await client.create(NAMESPACES, {"metadata": {"name": space}})
        for number, (act, which, finalizer) in enumerate(acts):
            space, name = f"s{which}", f"o{number}"
            if act == "delete" and space not in gone:
                await client.delete(NAMESPACES, space)
                gone.add(space)
            elif act == "make" and space not in gone:
                metadata = {"name": name, "namespace": space}
                if finalizer:
                    metadata["finalizers"] = ["example.com/hold"]
                    held[space, name] = None
                await client.create(CONFIG_MAPS, {"metadata": metadata})
                wanted.add((space, name))
            elif act == "release" and held:
                (space, name), _ = held.popitem()
                release = {"metadata": {"finalizers": None}}
                await client.patch(CONFIG_MAPS, name, release, space)
        await cluster.settle(QUIET)
        waiting = {space for space, _ in held}
        for space in gone & waiting:
            assert cluster.api.get(NAMESPACES, space) is not None, "it goes last"
        for space, name in held:
            await client.patch(CONFIG_MAPS, name, {"metadata": {"finalizers": None}}, space)
        await cluster.until(
            lambda: {meta.name(n) for n in cluster.api.find(NAMESPACES)} == {"s0", "s1"} - gone
        )
        left = {(meta.namespace(o), meta.name(o)) for o in cluster.api.find(CONFIG_MAPS)}
        assert left == {(space, name) for space, name in wanted if space not in gone}


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["make", "make", "make", "delete", "release"]),
            st.integers(0, 1),
            st.booleans(),
        ),
        max_size=15,
    )
)
def test_a_namespace_goes_after_the_last_of_its_content_and_takes_nothing_else(acts: list):
    asyncio.run(empty(acts))
