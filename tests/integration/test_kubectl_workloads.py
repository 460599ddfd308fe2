"""StatefulSets and DaemonSets as a user drives them, with kubectl on a live cluster."""

from __future__ import annotations

import re

from conftest import Instance, eventually

TEMPLATE = """
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: hello, image: "hello:1", ports: [{containerPort: 8080}]}
"""

STATEFUL = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:""" + TEMPLATE.replace("NAME", "db")

DAEMON = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:""" + TEMPLATE.replace("NAME", "agent")


def test_a_stateful_set_from_apply_to_delete(cluster: Instance, namespace: str) -> None:
    run = lambda *words, **more: cluster.kubectl("-n", namespace, *words, **more).out  # noqa: E731
    run("apply", "-f", "-", stdin=STATEFUL)
    done = run("rollout", "status", "sts/db", "--timeout=110s")
    assert "partitioned roll out complete" in done or "rolling update complete" in done
    listed = run("get", "pods", "-l", "app=db", "--no-headers")
    assert [line.split()[0] for line in listed.splitlines()] == ["db-0", "db-1", "db-2"]
    assert re.search(r"db\s+3/3", run("get", "sts"))
    assert run("exec", "db-1", "--", "hostname").strip() == "db-1"
    run("set", "image", "sts/db", "hello=hello:2")
    run("rollout", "status", "sts/db", "--timeout=110s")
    history = run("rollout", "history", "sts/db")
    assert [line.split()[0] for line in history.splitlines()[2:4]] == ["1", "2"]
    run("rollout", "undo", "sts/db", "--to-revision=1")
    run("rollout", "status", "sts/db", "--timeout=110s")
    images = run("get", "pods", "-l", "app=db", "-o", "jsonpath={..spec.containers[0].image}")
    assert images.split() == ["hello:1"] * 3
    run("scale", "sts/db", "--replicas=1")
    eventually(lambda: len(cluster.get("pods", "-n", namespace, "-l", "app=db")["items"]) == 1)
    described = lambda: run("describe", "sts", "db")  # noqa: E731
    eventually(lambda: "create Pod db-0 in StatefulSet db successful" in described())
    eventually(lambda: "delete Pod db-2 in StatefulSet db successful" in described())
    run("delete", "sts", "db")
    eventually(lambda: not cluster.get("pods", "-n", namespace, "-l", "app=db")["items"])


def test_a_daemon_set_follows_the_nodes_labels(cluster: Instance, namespace: str) -> None:
    run = lambda *words, **more: cluster.kubectl("-n", namespace, *words, **more).out  # noqa: E731
    run("apply", "-f", "-", stdin=DAEMON)
    assert "successfully rolled out" in run("rollout", "status", "ds/agent", "--timeout=110s")
    assert re.search(r"agent\s+1\s+1\s+1\s+1\s+1\s+<none>", run("get", "ds"))
    run("set", "image", "ds/agent", "hello=hello:2")
    run("rollout", "status", "ds/agent", "--timeout=110s")
    run("rollout", "undo", "ds/agent")
    run("rollout", "status", "ds/agent", "--timeout=110s")
    images = run("get", "pods", "-l", "app=agent", "-o", "jsonpath={..spec.containers[0].image}")
    assert images.split() == ["hello:1"]
    selector = '{"spec": {"template": {"spec": {"nodeSelector": {"example.com/agent": "yes"}}}}}'
    run("patch", "ds", "agent", "--type=merge", "-p", selector)
    eventually(lambda: not cluster.get("pods", "-n", namespace, "-l", "app=agent")["items"])
    (node,) = [n["metadata"]["name"] for n in cluster.get("nodes")["items"]]
    cluster.kubectl("label", "node", node, "example.com/agent=yes")
    try:
        eventually(lambda: len(cluster.get("pods", "-n", namespace, "-l", "app=agent")["items"]))
        eventually(lambda: "Created pod: agent-" in run("describe", "ds", "agent"))
    finally:
        cluster.kubectl("label", "node", node, "example.com/agent-")


JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: NAME}
spec:
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: "hello:1", command: [sh, -c, "echo done"]}]
"""

CRON = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: OnFailure
          containers: [{name: c, image: "hello:1", command: [sh, -c, "echo tick"]}]
"""


def test_a_job_runs_to_completion(cluster: Instance, namespace: str) -> None:
    run = lambda *words, **more: cluster.kubectl("-n", namespace, *words, **more).out  # noqa: E731
    run("apply", "-f", "-", stdin=JOB.replace("NAME", "sum"))
    run("wait", "--for=condition=Complete", "job/sum", "--timeout=110s")
    assert re.search(r"sum\s+Complete\s+3/3", run("get", "jobs"))
    assert run("logs", "job/sum").strip().endswith("done")
    eventually(lambda: "Job completed" in run("describe", "job", "sum"))
    assert "3 Succeeded / 0 Failed" in run("describe", "job", "sum")
    pods = cluster.get("pods", "-n", namespace, "-l", "job-name=sum")["items"]
    assert not any("finalizers" in pod["metadata"] for pod in pods)
    run("delete", "job", "sum")
    eventually(lambda: not cluster.get("pods", "-n", namespace, "-l", "job-name=sum")["items"])


def test_a_job_that_fails_says_why_and_goes_when_its_time_is_over(
    cluster: Instance, namespace: str
) -> None:
    run = lambda *words, **more: cluster.kubectl("-n", namespace, *words, **more).out  # noqa: E731
    failing = JOB.replace("NAME", "bad").replace("echo done", "exit 3")
    run("apply", "-f", "-", stdin=failing.replace("  completions: 3", "  backoffLimit: 0"))
    run("wait", "--for=condition=Failed", "job/bad", "--timeout=110s")
    described = lambda: run("describe", "job", "bad")  # noqa: E731
    eventually(lambda: "BackoffLimitExceeded" in described())
    assert "Job has reached the specified backoff limit" in described()
    run("patch", "job", "bad", "--type=merge", "-p", '{"spec": {"ttlSecondsAfterFinished": 0}}')
    eventually(lambda: not cluster.get("jobs", "-n", namespace)["items"])


def test_a_cron_job_is_run_by_hand(cluster: Instance, namespace: str) -> None:
    run = lambda *words, **more: cluster.kubectl("-n", namespace, *words, **more).out  # noqa: E731
    run("apply", "-f", "-", stdin=CRON)
    run("create", "job", "now", "--from=cronjob/tick")
    told = "Saw a job that the controller did not create or forgot: now"
    eventually(lambda: told in run("describe", "cronjob/tick"))
    run("wait", "--for=condition=Complete", "job/now", "--timeout=110s")
    assert run("logs", "job/now") == "tick\n"
    assert re.search(r"tick\s+0 0 1 1 \*\s+<none>\s+False", run("get", "cronjobs"))
