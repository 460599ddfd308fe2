"""Who goes so that a critical pod finds room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_under_test import NodeUnderTest, condition, container, make_pod

from wherry.kube.kubelet.admission import judge
from wherry.kube.kubelet.preemption import NoRoom, requested, victims, without
from wherry.kube.kubelet.resources import BEST_EFFORT, GUARANTEED, qos_class

CRITICAL = 2 * 10**9
NODE = {"metadata": {"name": "one", "labels": {}}, "spec": {}}
ROOM = {"cpu": "2", "memory": "1Gi", "pods": "10"}


def pod(name, *, cpu=0, memory=0, guaranteed=False, priority=0, **spec):
    asked = {"cpu": f"{cpu}m", "memory": str(memory)}
    asked = {key: text for key, text in asked.items() if text not in ("0m", "0")}
    resources = {"requests": asked, "limits": asked if guaranteed else {}}
    return {
        "metadata": {"name": name, "namespace": "d", "uid": name},
        "spec": {"containers": [{"name": "x", "resources": resources}], "priority": priority}
        | spec,
    }


def names(pods):
    return [p["metadata"]["name"] for p in pods]


def test_the_nearest_request_goes_and_not_more_than_that():
    others = [pod("small", cpu=100), pod("fits", cpu=500), pod("large", cpu=1500)]
    assert names(victims(pod("vip", priority=CRITICAL), others, {"cpu": 400})) == ["fits"]
    assert names(victims(pod("vip", priority=CRITICAL), others, {"cpu": 600})) == ["large"]
    # Where two are as near, the smaller one.
    others = [pod("b", cpu=500, memory=9), pod("a", cpu=500, memory=8)]
    assert names(victims(pod("vip", priority=CRITICAL), others, {"cpu": 400})) == ["a"]


def test_humbler_classes_go_first_and_others_only_for_what_is_left():
    others = [
        pod("guaranteed", cpu=500, memory=1000, guaranteed=True),
        pod("burstable", cpu=500),
        pod("none"),
    ]
    vip = pod("vip", priority=CRITICAL)
    assert names(victims(vip, others, {"cpu": 400})) == ["burstable"]
    assert names(victims(vip, others, {"pods": 1})) == ["none"]
    assert names(victims(vip, others, {"memory": 400})) == ["guaranteed"]
    assert names(victims(vip, others, {"cpu": 900})) == ["burstable", "guaranteed"]


def test_who_is_as_critical_stays_unless_its_priority_is_less():
    vip = pod("vip", priority=CRITICAL + 1000)
    assert names(victims(vip, [pod("a", cpu=1, priority=CRITICAL)], {"cpu": 1})) == ["a"]
    with pytest.raises(NoRoom) as fault:
        victims(vip, [pod("a", cpu=1, priority=CRITICAL + 1000)], {"cpu": 1})
    assert str(fault.value) == (
        "no set of running pods found to reclaim resources: [(res: cpu, q: 1), ]"
    )


def test_a_critical_pod_is_not_refused_for_want_of_resources():
    other = pod("a", cpu=1500)
    verdict = judge(pod("vip", cpu=1000, priority=CRITICAL), [other], NODE, ROOM)
    assert verdict.refusal is None
    assert (names(verdict.preempted), verdict.scarce) == (["a"], "cpu")
    static = pod("static", cpu=1000)
    static["metadata"]["annotations"] = {"kubernetes.io/config.source": "file"}
    assert names(judge(static, [other], NODE, ROOM).preempted) == ["a"]
    # What nobody can make room for.
    refusal = judge(pod("vip", cpu=2500, priority=CRITICAL), [other], NODE, ROOM).refusal
    assert refusal is not None and refusal.reason == "UnexpectedAdmissionError"
    assert refusal.message == (
        "Unexpected error while attempting to recover from admission failure: preemption: error "
        "finding a set of pods to preempt: no set of running pods found to reclaim resources: "
        "[(res: cpu, q: 500), ]"
    )
    # Nobody goes for a pod that cannot be here anyway.
    lost = pod("vip", cpu=1000, priority=CRITICAL, nodeSelector={"place": "moon"})
    verdict = judge(lost, [other], NODE, ROOM)
    assert verdict.refusal is not None and verdict.refusal.reason == "NodeAffinity"
    assert not verdict.preempted


@st.composite
def crowds(draw):
    made = []
    for number in range(draw(st.integers(0, 8))):
        made.append(
            pod(
                f"p{number}",
                cpu=draw(st.sampled_from([0, 0, 100, 300, 700])),
                memory=draw(st.sampled_from([0, 0, 50, 400])),
                guaranteed=draw(st.booleans()),
                priority=draw(st.sampled_from([0, 5, CRITICAL])),
            )
        )
    return made


@given(
    crowds(),
    st.fixed_dictionaries(
        {},
        optional={
            "cpu": st.integers(1, 1500),
            "memory": st.integers(1, 900),
            "pods": st.integers(1, 3),
        },
    ),
)
def test_who_goes_is_enough_of_the_lower_ones_and_nobody_goes_for_nothing(others, missing):
    vip = pod("vip", priority=CRITICAL)
    lower = [p for p in others if p["spec"]["priority"] < CRITICAL]
    try:
        gone = victims(vip, others, missing)
    except NoRoom:
        assert without(missing, lower)
        return
    assert not without(missing, gone)
    assert all(p in lower for p in gone) and len({*names(gone)}) == len(gone)
    assert all(any(requested(p, name) for name in missing) for p in gone)
    # No guaranteed pod goes where all others would have been enough.
    humbler = [p for p in lower if qos_class(p) != GUARANTEED]
    if not without(missing, humbler):
        assert all(qos_class(p) != GUARANTEED for p in gone)
    # No best-effort pod goes for what it has not.
    if "pods" not in missing:
        assert all(qos_class(p) != BEST_EFFORT for p in gone)


async def test_the_critical_pod_starts_when_the_others_have_ended(tmp_path):
    async with NodeUnderTest(tmp_path) as node:
        many = {"requests": {"cpu": str(node_cpus(node))}}
        await node.run(make_pod("large", containers=[container(resources=many)]))
        await node.until_ready("large")
        vip = make_pod("vip", containers=[container(resources=many)], priority=CRITICAL)
        await node.run(vip)
        await node.until_ready("vip")
        await node.until(lambda: node.pod("large")["status"]["phase"] == "Failed")
        status = node.pod("large")["status"]
        assert status["reason"] == "Preempting"
        assert status["message"] == "Preempted in order to admit critical pod"
        assert condition(node.pod("large"), "DisruptionTarget") == "True"
        told = "Preempted in order to admit critical pod"
        await node.until(lambda: ("Preempting", told) in node.events())


def node_cpus(node):
    return int(node.node()["status"]["allocatable"]["cpu"])
