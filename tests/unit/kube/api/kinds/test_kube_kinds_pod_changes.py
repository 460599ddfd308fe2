"""What may be changed of a pod, and what its kubelet may report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  tolerations: [{key: a, operator: Exists}]
  containers:
  - {name: web, image: hello:1, env: [{name: A, value: b}]}
"""
ONLY = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"


@pytest.mark.parametrize(
    "change",
    [
        lambda o: o["metadata"].update(labels={"a": "b"}),
        lambda o: o["spec"]["containers"][0].update(image="hello:2"),
        lambda o: o["spec"]["tolerations"].append({"key": "b", "operator": "Exists"}),
        lambda o: o["spec"].update(activeDeadlineSeconds=5),
        lambda o: o["spec"].update(hostNetwork=False),  # says nothing new
        lambda o: o["spec"].pop("securityContext"),  # comes back as a default
    ],
)
def test_a_few_things_may_change(api: Any, change: Callable[[Any], Any]) -> None:
    _, faults = api.update(api.create(POD), change)
    assert faults == []


def test_all_else_may_not_and_the_difference_is_shown(api: Any) -> None:
    def change(o: Any) -> None:
        o["spec"]["containers"][0]["env"][0]["value"] = "c"
        o["spec"]["hostname"] = "h"

    _, (fault,) = api.update(api.create(POD), change)
    assert fault.startswith(ONLY)
    assert '\n-  containers[0].env[0].value: "b"\n+  containers[0].env[0].value: "c"\n' in fault
    assert '\n+  hostname: "h"\n' in fault


def test_containers_are_neither_added_nor_removed(api: Any) -> None:
    def change(o: Any) -> None:
        o["spec"]["containers"].append({"name": "b", "image": "b"})

    _, faults = api.update(api.create(POD), change)
    assert faults == ["spec.containers: Forbidden: pod updates may not add or remove containers"]


def test_tolerations_are_only_added(api: Any) -> None:
    _, faults = api.update(api.create(POD), lambda o: o["spec"].pop("tolerations"))
    assert faults == [
        "spec.tolerations: Forbidden: existing toleration can not be modified except its "
        "tolerationSeconds"
    ]


def test_a_deadline_only_comes_closer(api: Any) -> None:
    old, _ = api.update(api.create(POD), lambda o: o["spec"].update(activeDeadlineSeconds=5))
    _, faults = api.update(old, lambda o: o["spec"].update(activeDeadlineSeconds=6))
    assert faults == [
        "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"
    ]
    _, faults = api.update(old, lambda o: o["spec"].pop("activeDeadlineSeconds"))
    assert faults[0] == (
        "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer "
        "to nil value"
    )


def test_generation_counts_the_changes_of_the_spec(api: Any) -> None:
    old = api.create(POD)
    new, _ = api.update(old, lambda o: o["metadata"].update(labels={"a": "b"}))
    assert new["metadata"]["generation"] == 1
    new, _ = api.update(old, lambda o: o["spec"]["containers"][0].update(image="x:1"))
    assert new["metadata"]["generation"] == 2


def test_an_update_leaves_the_status_alone_and_a_status_update_all_else(api: Any) -> None:
    old = api.create(POD)
    new, faults = api.update(old, lambda o: o["status"].update(phase="Running"))
    assert (new["status"], faults) == (old["status"], [])

    def change(o: Any) -> None:
        o["status"] = {"phase": "Running", "podIP": "10.0.0.1", "hostIP": "10.0.0.2"}
        o["spec"]["hostname"] = "h"
        o["metadata"]["ownerReferences"] = []

    new, faults = api.update_status(old, change)
    assert faults == []
    assert new["spec"] == old["spec"]
    assert new["metadata"] == old["metadata"]
    assert new["status"] == {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
        "hostIP": "10.0.0.2",
        "hostIPs": [{"ip": "10.0.0.2"}],
        "qosClass": "BestEffort",
    }


def test_the_class_of_service_is_settled_at_creation(api: Any) -> None:
    _, faults = api.update_status(
        api.create(POD), lambda o: o["status"].update(qosClass="Guaranteed")
    )
    assert faults == ['status.qosClass: Invalid value: "Guaranteed": field is immutable']


@pytest.mark.parametrize(
    ("policy", "code", "refused"),
    [("Never", 1, True), ("OnFailure", 0, True), ("OnFailure", 1, False), ("Always", 0, False)],
)
def test_a_container_that_ended_for_good_stays_ended(
    api: Any, with_: Any, policy: str, code: int, refused: bool
) -> None:
    old = api.create(with_(POD, **{"spec.restartPolicy": policy}))
    ended = {"name": "web", "state": {"terminated": {"exitCode": code}}}
    old["status"]["containerStatuses"] = [ended]
    running = {"name": "web", "state": {"running": {}}}
    _, faults = api.update_status(old, lambda o: o["status"].update(containerStatuses=[running]))
    text = (
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated "
        "state"
    )
    assert faults == ([text] if refused else [])


def test_addresses_are_one_of_each_family(api: Any) -> None:
    def change(o: Any) -> None:
        o["status"]["podIPs"] = [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]

    _, faults = api.update_status(api.create(POD), change)
    assert faults == [
        'status.podIPs: Invalid value: [{"IP":"10.0.0.1"},{"IP":"10.0.0.2"}]: may specify no more '
        "than one IP for each IP family"
    ]


def test_a_gated_pod_may_be_narrowed_but_not_widened(api: Any, with_: Any) -> None:
    gates = [{"name": "x.io/g"}]
    old = api.create(with_(POD, **{"spec.schedulingGates": gates, "spec.nodeSelector": {"a": "b"}}))
    _, faults = api.update(old, lambda o: o["spec"]["nodeSelector"].update(c="d"))
    assert faults == []
    _, faults = api.update(old, lambda o: o["spec"].update(nodeSelector={"a": "x"}))
    assert faults == [
        'spec.nodeSelector: Invalid value: {"a":"x"}: only additions to spec.nodeSelector are '
        "allowed (no mutations or deletions)"
    ]
    _, faults = api.update(old, lambda o: o["spec"].update(schedulingGates=[]))
    assert faults == []
    _, faults = api.update(old, lambda o: o["spec"]["schedulingGates"].append({"name": "x.io/h"}))
    assert faults == [
        "spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new "
        "scheduling gate 'x.io/h'"
    ]


def test_a_gated_pod_that_may_go_anywhere_is_let_go_or_narrowed(api: Any, with_: Any) -> None:
    old = api.create(with_(POD, **{"spec.schedulingGates": [{"name": "x.io/g"}]}))
    expression = {"key": "a", "operator": "Exists"}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    near = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    for change in ({"schedulingGates": []}, {"nodeSelector": {"a": "b"}}, {"affinity": near}):
        _, faults = api.update(old, lambda o, change=change: o["spec"].update(change))
        assert faults == [], change
    term = {"topologyKey": "a", "labelSelector": {}}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    _, faults = api.update(old, lambda o: o["spec"].update(affinity=apart))
    assert faults[0].startswith("spec: Forbidden: pod updates may not change fields other than")


@pytest.mark.parametrize(
    ("node", "phase", "options", "grace"),
    [
        ("n", "Running", {}, 30),
        ("n", "Running", {"gracePeriodSeconds": 5}, 5),
        ("n", "Running", {"gracePeriodSeconds": 0}, 0),
        ("n", "Running", {"gracePeriodSeconds": -1}, 1),
        ("", "Pending", {}, 0),
        ("n", "Succeeded", {}, 0),
        ("n", "Failed", {"gracePeriodSeconds": 5}, 0),
    ],
)
def test_only_a_pod_that_runs_is_given_time_to_end(
    api: Any, with_: Any, node: str, phase: str, options: Any, grace: int
) -> None:
    o = api.create(with_(POD, **{"spec.nodeName": node}))
    o["status"]["phase"] = phase
    assert api.kind_of(o).deletion_grace(o, options) == grace
