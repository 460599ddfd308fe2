"""Whom a node takes and whom it puts off, and in which order."""

from wherry.kube.kubelet.admission import judge
from wherry.kube.kubelet.config import ShutdownPriority
from wherry.kube.kubelet.eviction.ranking import Use, message, over_limit, ranked
from wherry.kube.kubelet.eviction.thresholds import (
    Amount,
    Observation,
    Pressure,
    Threshold,
    look,
)
from wherry.kube.kubelet.housekeeping import in_order
from wherry.kube.kubelet.resizing import decide

NODE = {"metadata": {"name": "one", "labels": {}}, "spec": {}}
ROOM = {"cpu": "2", "memory": "1Gi", "pods": "3"}
GI, MI = 1 << 30, 1 << 20
LOW = Threshold("memory.available", Amount(100 * MI))


def refuse(*arguments, **known):
    return judge(*arguments, **known).refusal


def pod(uid, *, requests=None, limits=None, priority=0, **spec):
    resources = {"requests": requests or {}, "limits": limits or {}}
    return {
        "metadata": {"name": uid, "namespace": "d", "uid": uid},
        "spec": {
            "containers": [{"name": "x", "resources": resources}],
            "priority": priority,
            **spec,
        },
    }


def test_there_is_room_or_a_reason():
    other = pod("a", requests={"cpu": "1500m"})
    assert refuse(pod("b", requests={"cpu": "500m"}), [other], NODE, ROOM) is None
    refusal = refuse(pod("b", requests={"cpu": "501m"}), [other], NODE, ROOM)
    assert refusal is not None and refusal.reason == "OutOfcpu"
    assert refusal.message == (
        "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"
    )
    full = refuse(pod("d"), [pod("a"), pod("b"), pod("c")], NODE, ROOM)
    assert full is not None and full.reason == "OutOfpods"


def test_pressure_of_memory_keeps_only_best_effort_pods_away():
    under = {"pressure": {"MemoryPressure"}}
    assert refuse(pod("a", requests={"cpu": "1"}), [], NODE, ROOM, **under) is None
    refusal = refuse(pod("a"), [], NODE, ROOM, **under)
    assert refusal is not None
    assert refusal.message == "The node had condition: [MemoryPressure]. "
    assert refuse(pod("a", priority=2 * 10**9), [], NODE, ROOM, **under) is None


def test_who_is_over_its_request_goes_first_then_by_priority_then_by_excess():
    uses = {"in": Use(memory=1), "vip": Use(memory=9), "small": Use(memory=5), "big": Use(memory=6)}
    pods = [
        pod("in", requests={"memory": "10"}, priority=-5),
        pod("vip", priority=7),
        pod("small"),
        pod("big"),
    ]
    order = [p["metadata"]["uid"] for p in ranked(pods, uses, "memory.available")]
    assert order == ["big", "small", "vip", "in"]


def test_the_message_says_who_used_how_much():
    use = Use(memory=GI, containers={"x": Use(memory=GI)})
    assert message(pod("a"), use, LOW, Observation(50 * MI, 8 * GI)) == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container x was using 1Gi, request is 0, has larger consumption of memory. "
    )


def test_limits_on_storage_are_the_pods_own():
    limited = pod("a", limits={"ephemeral-storage": "10Mi"})
    assert over_limit(limited, Use(disk=10 * MI), {}) == ""
    assert over_limit(limited, Use(disk=11 * MI), {}) == (
        "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "
    )


def test_a_soft_threshold_waits_and_a_condition_stays_a_while():
    soft = Threshold("memory.available", Amount(100 * MI), grace=30, soft=True)
    short, fine = ({"memory.available": Observation(n * MI, GI)} for n in (50, 500))
    state = look(Pressure.none(), [soft], short, 0, 300)
    assert state.conditions == {"MemoryPressure"} and not state.active
    state = look(state, [soft], short, 30, 300)
    assert state.active == [soft]
    state = look(state, [soft], fine, 40, 300)
    assert not state.active and state.conditions == {"MemoryPressure"}
    assert not look(state, [soft], fine, 331, 300).conditions


def test_a_resize_is_granted_deferred_or_infeasible():
    other = pod("a", requests={"cpu": "1"})
    assert decide(pod("b", requests={"cpu": "1"}), [other], ROOM).reason == ""
    assert decide(pod("b", requests={"cpu": "1500m"}), [other], ROOM).reason == "Deferred"
    assert decide(pod("b", requests={"cpu": "3"}), [other], ROOM).reason == "Infeasible"


def test_pods_go_down_by_priority():
    classes = [ShutdownPriority(100, 5), ShutdownPriority(0, 20)]
    groups = in_order(
        [pod("a", priority=5), pod("b", priority=100), pod("c", priority=-1)], classes
    )
    named = [([p["metadata"]["uid"] for p in group], seconds) for group, seconds in groups]
    assert named == [(["a", "c"], 20), (["b"], 5)]
