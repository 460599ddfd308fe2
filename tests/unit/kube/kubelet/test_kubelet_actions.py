"""What to do next for a pod."""

import pytest
from pod_pieces import CREATED, EXITED, one, pod, runtime, sandbox, status

from wherry.engine.cri.types import PodSandboxState
from wherry.kube.kubelet.actions import Health, compute_pod_actions


def act(pod_, runtime_, *, started=None, unhealthy=None, restarting=(), stranded=False):
    if started is None:
        started = {c.id for c in runtime_.running()}
    health = Health(started, unhealthy or {})
    return compute_pod_actions(pod_, runtime_, health, restarting=restarting, stranded=stranded)


def test_a_new_pod_gets_a_sandbox_and_all_its_containers():
    actions = act(pod("a", "b"), runtime(sandboxes=()))
    assert actions.create_sandbox and actions.attempt == 0
    assert actions.start == ("a", "b")


def test_a_new_pod_with_init_containers_starts_with_the_first_of_them():
    actions = act(pod("a", init=("i", "j")), runtime(sandboxes=()))
    assert actions.start == ("i",)


def test_a_pod_that_runs_needs_nothing():
    actions = act(pod("web"), runtime(status("web")))
    assert actions == type(actions)()


def test_a_sandbox_that_died_is_replaced_with_the_next_number():
    dead = sandbox(2, PodSandboxState.NOTREADY)
    actions = act(pod("web"), runtime(status("web", EXITED), sandboxes=(dead,)))
    assert actions.create_sandbox and actions.attempt == 3
    assert actions.start == ("web",)


def test_a_sandbox_without_an_address_is_replaced_unless_the_network_is_the_hosts():
    bare = sandbox(ips=())
    assert act(pod("web"), runtime(sandboxes=(bare,))).create_sandbox
    host = pod("web")
    host["spec"]["hostNetwork"] = True
    assert not act(host, runtime(sandboxes=(bare,))).create_sandbox


def test_a_sandbox_whose_address_is_none_of_the_nodes_any_more_is_replaced():
    actions = act(pod("web"), runtime(status("web")), stranded=True)
    assert [kill.name for kill in actions.kill] == ["web"]
    assert actions.create_sandbox and actions.attempt == 1
    assert act(pod("web", policy="Never"), runtime(status("web")), stranded=True).finish


def test_a_pod_that_never_restarts_gets_no_second_sandbox_once_it_has_run():
    dead = sandbox(0, PodSandboxState.NOTREADY)
    ran = runtime(status("web", EXITED, 1), sandboxes=(dead,))
    actions = act(pod("web", policy="Never"), ran)
    assert actions.finish and not actions.create_sandbox


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_whether_an_ended_container_is_started_again_is_the_policys_to_say(policy, code, again):
    actions = act(pod("web", policy=policy), runtime(status("web", EXITED, code)))
    assert actions.start == (("web",) if again else ())
    assert actions.finish == (not again)


def test_a_container_may_have_a_policy_of_its_own():
    mixed = pod(one("a", restartPolicy="Never"), one("b", restartPolicy="Always"), policy="Never")
    actions = act(mixed, runtime(status("a", EXITED, 1), status("b", EXITED, 1)))
    assert actions.start == ("b",)


def test_a_pod_is_not_finished_while_one_of_its_containers_runs():
    actions = act(pod("a", "b", policy="Never"), runtime(status("a", EXITED), status("b")))
    assert not actions.finish and not actions.start


def test_a_container_that_was_made_but_not_started_is_made_anew():
    assert act(pod("web"), runtime(status("web", CREATED))).start == ("web",)


def test_init_containers_follow_one_another():
    wanted = pod("web", init=("i", "j"))
    assert act(wanted, runtime(status("i"))).start == ()
    assert act(wanted, runtime(status("i", EXITED))).start == ("j",)
    assert act(wanted, runtime(status("i", EXITED), status("j"))).start == ()
    done = runtime(status("i", EXITED), status("j", EXITED))
    assert act(wanted, done).start == ("web",)


def test_an_init_container_whose_record_was_lost_is_not_run_again_behind_a_later_one():
    wanted = pod("web", init=("i", "j"))
    assert act(wanted, runtime(status("j", EXITED))).start == ("web",)


def test_a_failed_init_container_is_tried_again_or_fails_the_pod():
    failed = runtime(status("i", EXITED, 1))
    assert act(pod("web", init=("i",)), failed).start == ("i",)
    assert act(pod("web", init=("i",), policy="OnFailure"), failed).start == ("i",)
    assert act(pod("web", init=("i",), policy="Never"), failed).finish


def test_init_containers_of_a_former_sandbox_do_not_count():
    new = runtime(status("i", EXITED), sandboxes=(sandbox(1),))
    assert act(pod("web", init=("i",)), new).start == ("i",)


def test_a_sidecar_must_have_started_before_what_follows_it():
    wanted = pod("web", init=(one("log", restartPolicy="Always"), "i"))
    assert act(wanted, runtime()).start == ("log",)
    assert act(wanted, runtime(status("log")), started=set()).start == ()
    assert act(wanted, runtime(status("log"))).start == ("i",)


def test_a_sidecar_is_restarted_beside_the_app_containers():
    wanted = pod("web", init=(one("log", restartPolicy="Always"),), policy="Never")
    actions = act(wanted, runtime(status("log", EXITED, 0), status("web")))
    assert actions.start == ("log",)


def test_a_sidecar_does_not_keep_a_finished_pod_alive():
    wanted = pod("web", init=(one("log", restartPolicy="Always"),), policy="OnFailure")
    actions = act(wanted, runtime(status("log"), status("web", EXITED, 0)))
    assert actions.finish
    assert not actions.start


def test_a_failed_liveness_probe_kills_and_says_so():
    actions = act(pod("web"), runtime(status("web")), unhealthy={"web-0": "liveness"})
    (kill,) = actions.kill
    assert kill.restart
    assert kill.message == "Container web failed liveness probe, will be restarted"
    never = act(pod("web", policy="Never"), runtime(status("web")), unhealthy={"web-0": "startup"})
    assert never.kill[0].message == "Container web failed startup probe"
    assert never.finish


def test_a_container_killed_to_be_restarted_is_restarted_even_if_it_ended_well():
    ended = runtime(status("web", EXITED, 0))
    wanted = pod("web", policy="OnFailure")
    assert act(wanted, ended, restarting={"web-0"}).start == ("web",)


def test_a_changed_image_replaces_the_container():
    actions = act(pod(one("web", image="i:2")), runtime(status("web")))
    (kill,) = actions.kill
    assert kill.message == "Container web definition changed, will be restarted"


def test_an_ephemeral_container_is_started_once():
    wanted = pod("web")
    wanted["spec"]["ephemeralContainers"] = [one("debug")]
    assert act(wanted, runtime(status("web"))).start == ("debug",)
    assert act(wanted, runtime(status("web"), status("debug", EXITED, 1))).start == ()


def test_rules_of_a_container_decide_by_its_exit_code():
    rules = [
        {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}},
        {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0, 1]}},
    ]
    ruled = one("web", restartPolicy="Never", restartPolicyRules=rules)
    for code, restarted in ((42, True), (7, True), (1, False), (0, False)):
        actions = act(pod(ruled, policy="Never"), runtime(status("web", EXITED, code)))
        assert (actions.start == ("web",), actions.finish) == (restarted, not restarted)


def test_an_init_container_with_a_policy_of_its_own_is_tried_again():
    wanted = pod("web", init=(one("a", restartPolicy="OnFailure"),), policy="Never")
    assert act(wanted, runtime(status("a", EXITED, 1))).start == ("a",)


def test_who_debugs_does_not_wait_for_init_containers():
    wanted = pod("web", init=("a",))
    wanted["spec"]["ephemeralContainers"] = [one("debugger")]
    assert act(wanted, runtime(status("a"))).start == ("debugger",)
