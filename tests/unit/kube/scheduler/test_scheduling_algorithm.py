from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_parts import idle_informers

from wherry.kube.scheduler.algorithm import Algorithm, Unfit
from wherry.kube.scheduler.config import DEFAULT_PLUGINS, Profile, Use
from wherry.kube.scheduler.framework import Filter
from wherry.kube.scheduler.snapshot import PodInfo, Snapshot


def pod(name: str, cpu: int = 100, **spec: Any) -> PodInfo:
    container = {"resources": {"requests": {"cpu": f"{cpu}m"}}}
    metadata = {"name": name, "namespace": "default", "uid": name}
    return PodInfo({"metadata": metadata, "spec": {"containers": [container], **spec}})


def node(name: str, cpu: int = 1000, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "status": {"allocatable": {"cpu": f"{cpu}m", "memory": "8Gi", "pods": "110"}},
    }


class Counting(Filter):
    name = "Counting"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked = 0

    def signature(self, pod):
        return self.arguments.get("signature")

    def filter(self, cycle, pod, node):
        self.asked += 1


def algorithm(snapshot: Snapshot, signature: str | None = "") -> tuple[Algorithm, Counting]:
    use = Use(f"{__name__}:Counting", arguments={"signature": signature})
    found = Algorithm(Profile(plugins=(*DEFAULT_PLUGINS, use)), None, snapshot, idle_informers())
    return found, next(p for p in found.plugins if p.name == "Counting")


def cluster(count: int) -> Snapshot:
    snapshot = Snapshot()
    for number in range(count):
        snapshot.set_node(node(f"n{number}"))
    return snapshot


def test_equal_pods_ask_only_about_the_node_that_changed():
    snapshot = cluster(50)
    decide, counting = algorithm(snapshot)
    for number in range(10):
        chosen = pod(f"p{number}")
        found, _ = decide.choose(chosen)
        snapshot.put(chosen, found.name)
    assert counting.asked == 50 + 9


def test_a_plugin_that_looks_at_more_than_the_node_is_always_asked():
    snapshot = cluster(50)
    decide, counting = algorithm(snapshot, None)
    for number in range(3):
        decide.choose(pod(f"p{number}"))
    assert counting.asked == 150


def test_what_is_remembered_is_forgotten_when_the_node_changes():
    snapshot = cluster(1)
    decide, _ = algorithm(snapshot)
    decide.choose(pod("p", 800))
    snapshot.set_node(node("n0", 500))
    with pytest.raises(Unfit, match="1 Insufficient cpu"):
        decide.choose(pod("q", 800))
    snapshot.set_node(node("n0", 900))
    assert decide.choose(pod("r", 800))[0].name == "n0"


def test_with_many_nodes_a_part_of_them_is_enough_and_the_next_search_goes_on_behind_it():
    snapshot = cluster(400)
    decide, counting = algorithm(snapshot, None)
    first, _ = decide.choose(pod("a"))
    assert counting.asked == 400 * (50 - 400 // 125) // 100
    names = {first.name}
    for number in range(6):
        found, _ = decide.choose(pod(f"p{number}"))
        names.add(found.name)
    assert any(int(name[1:]) > 200 for name in names)


def test_a_pod_that_waits_for_room_keeps_it_from_less_important_ones():
    snapshot = cluster(1)
    decide, _ = algorithm(snapshot)
    high = pod("high", 800, priority=10)
    decide.nominations.put(high, "n0")
    with pytest.raises(Unfit):
        decide.choose(pod("low", 800, priority=1))
    assert decide.choose(pod("higher", 800, priority=20))[0].name == "n0"
    assert decide.choose(high)[0].name == "n0"


def test_a_pod_that_names_its_node_by_affinity_is_told_of_all_the_others():
    snapshot = cluster(3)
    decide, _ = algorithm(snapshot)
    field = "requiredDuringSchedulingIgnoredDuringExecution"
    fields = [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]
    affinity = {"nodeAffinity": {field: {"nodeSelectorTerms": [{"matchFields": fields}]}}}
    assert decide.choose(pod("a", affinity=affinity))[0].name == "n1"
    with pytest.raises(Unfit) as caught:
        decide.choose(pod("b", 5000, affinity=affinity))
    assert str(caught.value) == (
        "0/3 nodes are available: 1 Insufficient cpu, "
        "2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    )


events = st.lists(
    st.tuples(st.sampled_from(["pod", "gone", "node", "lost", "resize"]), st.integers(0, 5)),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(events)
def test_no_node_is_ever_given_more_than_it_has(history: list[tuple[str, int]]):
    snapshot = Snapshot()
    decide, _ = algorithm(snapshot)
    sizes: dict[str, int] = {}
    places: dict[str, tuple[str, int]] = {}
    for number, (what, which) in enumerate(history):
        name = f"n{which}"
        if what in ("node", "resize"):
            used = sum(cpu for place, cpu in places.values() if place == name)
            sizes[name] = max(used, 200 * (1 + which + number % 3))
            snapshot.set_node(node(name, sizes[name]))
        elif what == "lost":
            snapshot.remove_node(name)
            sizes.pop(name, None)
        elif what == "gone" and places:
            uid = sorted(places)[which % len(places)]
            snapshot.remove(uid)
            del places[uid]
        elif what == "pod":
            asked = pod(f"p{number}", 100 * (which + 1))
            try:
                found, _ = decide.choose(asked)
            except Unfit:
                free = {
                    n: size - sum(cpu for place, cpu in places.values() if place == n)
                    for n, size in sizes.items()
                }
                assert all(room < 100 * (which + 1) for room in free.values())
                continue
            snapshot.put(asked, found.name)
            places[asked.uid] = (found.name, 100 * (which + 1))
        for n, size in sizes.items():
            assert sum(cpu for place, cpu in places.values() if place == n) <= size
