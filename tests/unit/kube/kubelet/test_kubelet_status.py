"""What is told of a pod."""

from pod_pieces import CREATED, EXITED, one, pod, runtime, sandbox, status

from wherry.engine.cri.types import PodSandboxState
from wherry.kube.kubelet.status import Findings, pod_status, status_changes
from wherry.kube.kubelet.view import PodRuntime

NOW = "2026-03-01T12:00:00Z"
LATER = "2026-03-01T12:00:05Z"
READY = Findings(ready={"web-0", "web-1"}, started={"web-0", "web-1"})


def told(pod_, runtime_, findings=READY, now=NOW):
    return pod_status(pod_, runtime_, findings, now)


def conditions(status_):
    return {c["type"]: c for c in status_["conditions"]}


def test_a_pod_that_was_just_bound_is_pending():
    result = told(pod("web"), PodRuntime("u"))
    assert result["phase"] == "Pending"
    assert result["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    found = conditions(result)
    assert found["PodReadyToStartContainers"]["status"] == "False"
    assert found["PodScheduled"]["status"] == "True"
    assert found["Ready"]["message"] == "containers with unready status: [web]"


def test_a_pod_whose_containers_run_is_ready():
    result = told(pod("web"), runtime(status("web")))
    assert result["phase"] == "Running"
    assert {c["status"] for c in result["conditions"]} == {"True"}
    assert result["podIP"] == "10.0.0.1"


def test_readiness_and_start_are_the_probes_to_say():
    result = told(pod("web"), runtime(status("web")), Findings(started={"web-0"}))
    (web,) = result["containerStatuses"]
    assert web["started"] and not web["ready"]
    assert conditions(result)["ContainersReady"]["reason"] == "ContainersNotReady"


def test_a_container_that_waits_for_its_restart_shows_why_and_how_it_ended():
    findings = Findings(waiting={"web": ("CrashLoopBackOff", "back-off 10s")})
    result = told(pod("web"), runtime(status("web", EXITED, 3)), findings)
    (web,) = result["containerStatuses"]
    assert web["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    assert web["lastState"]["terminated"]["exitCode"] == 3
    assert result["phase"] == "Running"


def test_a_container_that_ended_for_good_does_not_wait():
    findings = Findings(waiting={"web": ("RunContainerError", "no such command")})
    result = told(pod("web", policy="Never"), runtime(status("web", EXITED, 127)), findings)
    assert result["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 127
    assert result["phase"] == "Failed"


def test_the_last_words_are_the_message():
    ended = runtime(status("web", EXITED, 1))
    spoken = PodRuntime("u", ended.sandboxes, ended.containers, {"web-0": "farewell"})
    (web,) = told(pod("web"), spoken)["containerStatuses"]
    assert web["state"]["terminated"]["message"] == "farewell"
    assert web["state"]["terminated"]["reason"] == "Error"


def test_restarts_are_counted_by_the_incarnation():
    containers = (status("web", attempt=1), status("web", EXITED, 9))
    (web,) = told(pod("web"), runtime(*containers))["containerStatuses"]
    assert web["restartCount"] == 1
    assert web["lastState"]["terminated"]["exitCode"] == 9


def test_phases_of_pods_that_end():
    good, bad = runtime(status("web", EXITED)), runtime(status("web", EXITED, 1))
    assert told(pod("web", policy="Never"), good)["phase"] == "Succeeded"
    assert told(pod("web", policy="Never"), bad)["phase"] == "Failed"
    assert told(pod("web", policy="OnFailure"), good)["phase"] == "Succeeded"
    assert told(pod("web", policy="OnFailure"), bad)["phase"] == "Running"
    assert told(pod("web"), good)["phase"] == "Running"
    assert conditions(told(pod("web", policy="Never"), good))["Ready"]["reason"] == "PodCompleted"
    assert conditions(told(pod("web", policy="Never"), bad))["Ready"]["reason"] == "PodFailed"


def test_a_pod_that_was_ended_has_failed_or_succeeded():
    ended = Findings(ended=True)
    assert told(pod("web"), runtime(status("web", EXITED)), ended)["phase"] == "Succeeded"
    assert told(pod("web"), runtime(status("web", EXITED, 137)), ended)["phase"] == "Failed"
    assert told(pod("web"), PodRuntime("u"), ended)["phase"] == "Failed"


def test_a_phase_that_is_final_stays():
    final = pod("web")
    final["status"] = {"phase": "Succeeded"}
    assert told(final, runtime(status("web")))["phase"] == "Succeeded"


def test_init_containers_that_are_not_done_are_named():
    waiting = pod("web", init=("i", "j"))
    result = told(waiting, runtime(status("i", EXITED), status("j")))
    assert result["phase"] == "Pending"
    found = conditions(result)["Initialized"]
    assert found["reason"] == "ContainersNotInitialized"
    assert found["message"] == "containers with incomplete status: [j]"
    assert result["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"


def test_a_sidecar_counts_for_readiness():
    wanted = pod("web", init=(one("log", restartPolicy="Always"),))
    running = runtime(status("log"), status("web"))
    result = told(wanted, running, Findings(ready={"web-0"}, started={"web-0", "log-0"}))
    assert conditions(result)["Ready"]["message"] == "containers with unready status: [log]"
    assert conditions(result)["Initialized"]["status"] == "True"


def test_transitions_keep_their_time_until_they_happen():
    before = pod("web")
    before["status"] = told(before, runtime(status("web")))
    same = told(before, runtime(status("web")), now=LATER)
    assert {c["lastTransitionTime"] for c in same["conditions"]} == {NOW}
    assert same["startTime"] == NOW
    changed = conditions(told(before, runtime(status("web", EXITED, 1)), now=LATER))
    assert changed["Ready"]["lastTransitionTime"] == LATER
    assert changed["Initialized"]["lastTransitionTime"] == NOW


def test_conditions_of_others_stay():
    before = pod("web")
    other = {"type": "example.com/gate", "status": "True", "lastTransitionTime": NOW}
    before["status"] = {"conditions": [other]}
    before["spec"]["readinessGates"] = [
        {"conditionType": "example.com/gate"},
        {"conditionType": "missing"},
    ]
    found = conditions(told(before, runtime(status("web"))))
    assert found["example.com/gate"] == other
    assert found["Ready"]["reason"] == "ReadinessGatesNotReady"
    assert '"missing" does not exist' in found["Ready"]["message"]


def test_a_container_that_vanished_is_remembered():
    before = pod("web")
    before["status"] = told(before, runtime(status("web")))
    lost = told(before, PodRuntime("u"))["containerStatuses"][0]
    assert lost["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    ended = told(before, PodRuntime("u"), Findings(ended=True))["containerStatuses"][0]
    assert ended["state"]["terminated"]["exitCode"] == 137


def test_a_container_that_was_made_but_never_started_is_still_waiting():
    (web,) = told(pod("web"), runtime(status("web", CREATED)))["containerStatuses"]
    assert "waiting" in web["state"]


def test_the_address_outlives_the_sandbox():
    before = pod("web", policy="Never")
    before["status"] = told(before, runtime(status("web")))
    stopped = sandbox(state=PodSandboxState.NOTREADY)
    after = told(before, runtime(status("web", EXITED), sandboxes=(stopped,)))
    assert after["podIP"] == "10.0.0.1"


def test_only_what_changed_is_written():
    old = told(pod("web"), PodRuntime("u"))
    new = told({**pod("web"), "status": old}, runtime(status("web")))
    changes = status_changes(old, new)
    assert "startTime" not in changes and "qosClass" not in changes
    kinds = {c["type"] for c in changes["conditions"]}
    assert kinds == {"PodReadyToStartContainers", "Ready", "ContainersReady"}
    assert status_changes(new, new) == {}
    assert status_changes({**new, "reason": "Evicted"}, new) == {"reason": None}


def test_whom_a_container_runs_as_is_told():
    result = told(pod("web"), runtime(status("web", user=(1000, 3000, 3000, 4000))))
    assert result["containerStatuses"][0]["user"] == {
        "linux": {"uid": 1000, "gid": 3000, "supplementalGroups": [3000, 4000]}
    }
    assert "user" not in told(pod("web"), runtime(status("web")))["containerStatuses"][0]
