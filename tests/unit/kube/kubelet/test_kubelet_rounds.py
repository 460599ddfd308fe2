"""Pods all of whose containers begin anew when one ends in a way that a rule names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_under_test import NodeUnderTest, condition, container, make_pod, state
from pod_pieces import EXITED, RUNNING, one, pod, runtime, sandbox, status

from wherry.engine.cri.types import PodSandboxState
from wherry.kube.kubelet.actions import Health, compute_pod_actions
from wherry.kube.kubelet.status import Findings, pod_status

NOW = "2026-03-01T12:00:00Z"
RULE = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}


def ruled(name="web", **fields):
    return one(name, restartPolicy="Never", restartPolicyRules=[RULE], **fields)


POD = pod("main", ruled("watch"), policy="Never", init=("setup",))
DONE = status("setup", EXITED)


def act(pod_, runtime_):
    health = Health({c.id for c in runtime_.running()}, {})
    return compute_pod_actions(pod_, runtime_, health)


def told(pod_, runtime_, **findings):
    made = pod_status(pod_, runtime_, Findings(**findings), NOW)
    return made, {c["type"]: c for c in made["conditions"]}


def test_all_that_runs_is_killed_at_once_first():
    seen = runtime(DONE, status("main"), status("watch", EXITED, 88), status("debugger"))
    actions = act(POD, seen)
    assert {kill.name for kill in actions.kill} == {"main", "debugger"}
    assert all(kill.at_once for kill in actions.kill) and not actions.start
    made, conditions = told(POD, seen)
    assert made["phase"] == "Pending"
    assert conditions["AllContainersRestarting"]["status"] == "True"
    assert conditions["AllContainersRestarting"]["reason"] == "RestartAllContainersStarted"


def test_then_the_pod_starts_with_its_first_init_container():
    seen = runtime(DONE, status("main", EXITED, 137), status("watch", EXITED, 88))
    actions = act(POD, seen)
    assert actions.start == ("setup",) and not actions.create_sandbox and not actions.finish
    made, conditions = told(POD, seen)
    assert made["phase"] == "Pending"
    assert conditions["AllContainersRestarting"]["status"] == "False"
    (setup,) = made["initContainerStatuses"]
    assert setup["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert setup["lastState"]["terminated"]["exitCode"] == 0
    main, watch = made["containerStatuses"]
    assert main["lastState"]["terminated"]["exitCode"] == 137
    assert watch["lastState"]["terminated"]["exitCode"] == 88


def test_what_is_of_an_earlier_round_counts_as_not_begun():
    before = (DONE, status("main", EXITED), status("watch", EXITED, 88))
    again = status("setup", EXITED, attempt=1, in_round=1)
    seen = runtime(*before, again)
    assert act(POD, seen).start == ("main", "watch")
    assert told(POD, seen)[0]["phase"] == "Pending"
    one_more = runtime(*before, again, status("main", attempt=1, in_round=1))
    assert act(POD, one_more).start == ("watch",)
    whole = runtime(
        *before,
        again,
        status("main", attempt=1, in_round=1),
        status("watch", attempt=1, in_round=1),
    )
    assert act(POD, whole) == type(act(POD, whole))()
    assert told(POD, whole)[0]["phase"] == "Running"


def test_an_init_container_that_fails_in_the_new_round_ends_the_pod():
    before = (DONE, status("main", EXITED, 137), status("watch", EXITED, 88))
    seen = runtime(*before, status("setup", EXITED, 1, attempt=1, in_round=1))
    assert act(POD, seen).finish
    assert told(POD, seen)[0]["phase"] == "Failed"


def test_other_codes_restart_nobody_else():
    seen = runtime(DONE, status("main"), status("watch", EXITED, 1))
    assert not act(POD, seen).kill
    made, conditions = told(POD, seen)
    assert made["phase"] == "Running"
    assert conditions["AllContainersRestarting"]["status"] == "False"
    assert "AllContainersRestarting" not in told(pod("web"), runtime(status("web")))[1]


def test_a_pod_stays_initialized_while_it_begins_anew():
    seen = runtime(DONE, status("main", EXITED, 137), status("watch", EXITED, 88))
    known = {**POD, "status": {"conditions": [{"type": "Initialized", "status": "True"}]}}
    assert told(known, seen)[1]["Initialized"]["status"] == "True"


def test_a_sandbox_that_is_lost_meanwhile_is_made_anew():
    dead = sandbox(0, PodSandboxState.NOTREADY)
    ended = (DONE, status("main", EXITED, 137), status("watch", EXITED, 88))
    actions = act(POD, runtime(*ended, sandboxes=(dead,)))
    assert actions.create_sandbox and actions.start == ("setup",)


@given(
    st.lists(
        st.tuples(st.sampled_from([RUNNING, EXITED]), st.sampled_from([0, 1, 88])),
        min_size=3,
        max_size=3,
    ),
    st.integers(0, 2),
)
def test_a_pod_that_is_due_is_never_finished_and_starts_nothing_while_anything_runs(
    states, in_round
):
    names = ("setup", "main", "watch")
    seen = runtime(
        *(
            status(name, state_, code, attempt=in_round, in_round=in_round)
            for name, (state_, code) in zip(names, states, strict=True)
        )
    )
    actions = act(POD, seen)
    if states[2] == (EXITED, 88):
        assert not actions.finish
        assert bool(actions.kill) != bool(actions.start)
        assert told(POD, seen)[0]["phase"] == "Pending"
    else:
        assert not any(kill.at_once for kill in actions.kill)


@pytest.mark.parametrize("killed", [False, True])
async def test_the_kubelet_restarts_them_all(tmp_path, killed):
    """Also one that was killed before the new round began."""
    async with NodeUnderTest(tmp_path) as node:
        watch = container("watch", restartPolicy="Never", restartPolicyRules=[RULE])
        init = [container("setup")]
        node.runtime.exits_at_once["setup"] = 0
        await node.run(
            make_pod(restartPolicy="Never", containers=[container(), watch], initContainers=init)
        )
        pod_ = await node.until_ready()
        old = state(pod_)["containerID"]
        if killed:
            await node.stop()
        (id_,) = [i for i, c in node.runtime.containers.items() if c.metadata.name == "watch"]
        node.runtime.exit(id_, 88)
        if killed:
            await node.start()
        await node.until(lambda: state(node.pod())["containerID"] != old)
        pod_ = await node.until_ready()
        assert [s["restartCount"] for s in pod_["status"]["containerStatuses"]] == [1, 1]
        (setup,) = pod_["status"]["initContainerStatuses"]
        assert setup["restartCount"] == 1
        assert len(pod_["status"]["podIPs"]) == 1
        assert condition(pod_, "AllContainersRestarting") == "False"
