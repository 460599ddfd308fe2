"""What is newer in containers: who they run as, variables from files, rules of their restarts."""

from __future__ import annotations

import json
from typing import Any

from conftest import Instance, eventually
from pods_on_node import FOREVER, container, events, first_status, make, ready

PATIENCE = 60.0


def status(cluster: Instance, namespace: str, name: str) -> dict[str, Any]:
    return dict(cluster.get("pod", name, "-n", namespace)["status"])


def by_name(cluster: Instance, namespace: str, name: str) -> dict[str, dict[str, Any]]:
    """What is told of each container; of each before the kubelet tells of any."""
    pod = cluster.get("pod", name, "-n", namespace)
    told = pod.get("status", {})
    every = (*told.get("initContainerStatuses", ()), *told.get("containerStatuses", ()))
    named = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    nothing = {each["name"]: {"state": {}, "restartCount": 0} for each in named}
    return nothing | {each["name"]: each for each in every}


def ended(cluster: Instance, namespace: str, name: str) -> str:
    """The phase in which the pod has ended, when it has."""

    def phase() -> str:
        found = str(status(cluster, namespace, name)["phase"])
        return found if found in ("Succeeded", "Failed") else ""

    return str(eventually(phase, seconds=PATIENCE))


def test_the_status_says_whom_a_container_runs_as(cluster: Instance, namespace: str) -> None:
    security = {"runAsUser": 1000, "runAsGroup": 3000, "supplementalGroups": [4000]}
    make(cluster, namespace, "plain")
    make(cluster, namespace, "other", securityContext=security)
    ready(cluster, namespace, "plain", "other")
    for name in ("plain", "other"):
        told = first_status(cluster, namespace, name)["user"]["linux"]
        words = cluster.kubectl("-n", namespace, "exec", name, "--", "id", "-G").out.split()
        assert told["supplementalGroups"] == [int(word) for word in words], name
    user = first_status(cluster, namespace, "other")["user"]
    assert user == {"linux": {"uid": 1000, "gid": 3000, "supplementalGroups": [3000, 4000]}}


def from_file(path: str, key: str, **more: Any) -> dict[str, Any]:
    return {"valueFrom": {"fileKeyRef": {"volumeName": "v", "path": path, "key": key, **more}}}


def writing(script: str) -> dict[str, Any]:
    """A pod's volume and the init container that fills it; nobody else mounts it."""
    mounts = [{"name": "v", "mountPath": "/v"}]
    return {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "initContainers": [container("write", script, volumeMounts=mounts)],
    }


def test_variables_come_from_a_file_that_an_init_container_wrote(
    cluster: Instance, namespace: str
) -> None:
    script = "mkdir /v/d; printf \"# all\\nADDRESS='here'\\nLONG='a\\nb'  # two\\n\" > /v/d/a.env"
    environment = [
        {"name": "WHERE", **from_file("d/a.env", "ADDRESS")},
        {"name": "LINES", **from_file("d/a.env", "LONG")},
        {"name": "NOT", **from_file("d/a.env", "OTHER", optional=True)},
        {"name": "NONE", **from_file("none.env", "OTHER", optional=True)},
        {"name": "BUILT", "value": "from $(WHERE)"},
    ]
    show = 'echo "$WHERE|$LINES|${NOT-unset}|${NONE-unset}|$BUILT"'
    make(
        *(cluster, namespace, "reads", container(command=show, env=environment)),
        restartPolicy="Never",
        **writing(script),
    )
    assert ended(cluster, namespace, "reads") == "Succeeded"
    said = cluster.kubectl("-n", namespace, "logs", "reads").out
    assert said == "here|a\nb|unset|unset|from here\n"


def test_a_file_that_does_not_tell_a_variable_is_told(cluster: Instance, namespace: str) -> None:
    script = (
        "echo \"A='1'\" > /v/a.env; echo A=1 > /v/bad.env; mkfifo /v/pipe; "
        "ln -s /proc/1/environ /v/out.env"
    )
    faults = {
        "key": ("a.env", 'environment variable key "B" not found in file "a.env"'),
        "form": ("bad.env", "at line 1: value must be enclosed in single quotes"),
        "none": ("none.env", "couldn't parse env file: no file"),
        "pipe": ("pipe", "is no regular file"),
        "out": ("out.env", "leads out of its volume"),
    }
    for name, (path, _) in faults.items():
        variables = [{"name": "X", **from_file(path, "B")}]
        main = container(env=variables)
        make(cluster, namespace, name, main, **writing(script))
    for name, (_, text) in faults.items():

        def is_told(name: str = name, text: str = text) -> bool:
            state = first_status(cluster, namespace, name).get("state") or {}
            waiting = state.get("waiting") or {}
            return (
                waiting.get("reason") == "CreateContainerConfigError"
                and text in waiting["message"]
                and text in events(cluster, namespace, name)
            )

        eventually(is_told, seconds=PATIENCE)


RULE = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}


def test_a_rule_restarts_all_containers_of_the_pod_in_place(
    cluster: Instance, namespace: str
) -> None:
    mounts = [{"name": "v", "mountPath": "/v"}]
    watch = "until [ -e /v/go ]; do sleep 0.1; done; rm /v/go; exit 88"
    deaf = "trap '' TERM; echo main >> /v/log; while :; do sleep 0.1; done"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /v/log"]}}}
    make(
        cluster,
        namespace,
        "anew",
        container("main", deaf, volumeMounts=mounts, lifecycle=hook),
        container("once", "echo once >> /v/log", volumeMounts=mounts),
        restartPolicy="Never",
        terminationGracePeriodSeconds=600,
        volumes=[{"name": "v", "emptyDir": {}}],
        initContainers=[
            container("setup", "echo setup >> /v/log", volumeMounts=mounts),
            container(
                "watch",
                watch,
                volumeMounts=mounts,
                restartPolicy="Always",
                restartPolicyRules=[RULE],
            ),
        ],
    )

    def log() -> list[str]:
        done = cluster.kubectl(
            *("-n", namespace, "exec", "anew", "-c", "main", "--", "cat", "/v/log"), ok=False
        )
        return done.out.split()

    def runs(times: int) -> bool:
        told = by_name(cluster, namespace, "anew")
        return (
            "running" in told["main"]["state"]
            and "running" in told["watch"]["state"]
            and told["once"]["restartCount"] == times
            and "terminated" in told["once"]["state"]
        )

    eventually(lambda: runs(0), seconds=PATIENCE)
    first = ["main", "once", "setup"]
    eventually(lambda: sorted(log()) == first, seconds=PATIENCE)
    before = cluster.get("pod", "anew", "-n", namespace)
    run = ("-n", namespace, "exec", "anew", "-c", "main", "--", "touch", "/v/go")
    cluster.kubectl(*run)
    eventually(lambda: runs(1), seconds=PATIENCE)
    # All of them ran a second time, in order, and neither a hook nor a grace period held them up.
    eventually(lambda: len(log()) == 6, seconds=PATIENCE)
    written = log()
    assert sorted(written) == sorted([*first, *first])
    assert written[0] == "setup" and written[3] == "setup"
    after = cluster.get("pod", "anew", "-n", namespace)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["podIPs"] == before["status"]["podIPs"]
    told = by_name(cluster, namespace, "anew")
    assert {name: each["restartCount"] for name, each in told.items()} == {
        "setup": 1,
        "watch": 1,
        "main": 1,
        "once": 1,
    }
    assert told["watch"]["lastState"]["terminated"]["exitCode"] == 88
    assert told["main"]["lastState"]["terminated"]["exitCode"] == 137
    conditions = {c["type"]: c["status"] for c in after["status"]["conditions"]}
    assert conditions["AllContainersRestarting"] == "False"
    cluster.kubectl("-n", namespace, "delete", "pod", "anew", "--now")


def test_each_container_may_have_a_policy_of_its_own(cluster: Instance, namespace: str) -> None:
    """The pod never restarts; of what it consists, one does always and one when it fails."""
    mounts = [{"name": "v", "mountPath": "/v"}]
    failing = "echo x >> /v/fails; [ $(wc -l < /v/fails) -ge 2 ]"
    make(
        cluster,
        namespace,
        "mixed",
        container("never", "exit 7"),
        container("fails", failing, volumeMounts=mounts, restartPolicy="OnFailure"),
        container("always", "exit 0", restartPolicy="Always"),
        container("main", FOREVER),
        restartPolicy="Never",
        volumes=[{"name": "v", "emptyDir": {}}],
    )

    def settled() -> bool:
        told = by_name(cluster, namespace, "mixed")
        return (
            told["never"]["state"].get("terminated", {}).get("exitCode") == 7
            and told["fails"]["state"].get("terminated", {}).get("exitCode") == 0
            and told["always"]["restartCount"] >= 1
        )

    eventually(settled, seconds=PATIENCE)
    told = by_name(cluster, namespace, "mixed")
    assert told["never"]["restartCount"] == 0
    assert told["fails"]["restartCount"] == 1
    assert status(cluster, namespace, "mixed")["phase"] == "Running"
    cluster.kubectl("-n", namespace, "delete", "pod", "mixed", "--now")


def test_rules_without_a_policy_are_refused(cluster: Instance, namespace: str) -> None:
    spec = {"containers": [container(restartPolicyRules=[RULE])]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bad", "namespace": namespace},
        "spec": spec,
    }
    refused = cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod), ok=False)
    assert refused.code != 0
    assert "must specify restartPolicy when restart rules are used" in refused.err
