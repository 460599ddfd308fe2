"""Which containers are started again."""

import pytest

from wherry.kube.api.kinds import pod_status
from wherry.kube.api.restarts import is_restarted, may_restart_all, policy_of


def rule(action, operator="In", *codes):
    return {"action": action, "exitCodes": {"operator": operator, "values": list(codes)}}


@pytest.mark.parametrize(
    ("pod", "own", "code", "again"),
    [
        ("Always", None, 0, True),
        ("OnFailure", None, 0, False),
        ("OnFailure", None, 1, True),
        ("Never", None, 1, False),
        ("Never", "Always", 0, True),
        ("Never", "OnFailure", 1, True),
        ("Always", "Never", 1, False),
        (None, None, 0, True),
    ],
)
def test_a_containers_policy_goes_before_its_pods(pod, own, code, again):
    assert is_restarted({"restartPolicy": pod}, {"restartPolicy": own}, code) is again


def test_the_first_rule_that_knows_the_code_goes_before_all():
    ruled = {
        "restartPolicy": "Never",
        "restartPolicyRules": [rule("Restart", "In", 1, 2), rule("RestartAllContainers", "In", 3)],
    }
    assert [is_restarted({}, ruled, code) for code in range(5)] == [False, True, True, True, False]
    but = {"restartPolicy": "Never", "restartPolicyRules": [rule("Restart", "NotIn", 0)]}
    assert [is_restarted({}, but, code) for code in range(3)] == [False, True, True]
    assert may_restart_all({"containers": [ruled]}) and may_restart_all({"initContainers": [ruled]})
    assert not may_restart_all({"containers": [but, {}]})
    assert policy_of({"restartPolicy": "OnFailure"}, {}) == "OnFailure"


def said(name, **state):
    return {"containerStatuses": [{"name": name, "state": state}]}


@pytest.mark.parametrize(
    ("container", "refused"),
    [
        ({}, True),
        ({"restartPolicy": "Always"}, False),
        ({"restartPolicy": "OnFailure"}, True),
        ({"restartPolicy": "Never", "restartPolicyRules": [rule("Restart", "In", 0)]}, False),
        (
            {"restartPolicy": "Never", "restartPolicyRules": [rule("RestartAllContainers", "In")]},
            False,
        ),
    ],
)
def test_a_status_may_begin_anew_where_the_container_may(container, refused):
    spec = {"restartPolicy": "Never", "containers": [{"name": "c", **container}]}
    old = {"spec": spec, "status": said("c", terminated={"exitCode": 0})}
    faults = []
    pod_status.check({"spec": spec, "status": said("c", running={})}, old, faults)
    assert bool(faults) is refused
