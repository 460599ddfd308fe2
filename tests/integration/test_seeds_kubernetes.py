"""The manifests of a well-known introduction to Kubernetes, with images made by our builder.

The images have the names that the book's have, and do what those do, in a busybox.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually

_KUBIA = r"""FROM hello:1
RUN mkdir -p /www/cgi-bin && printf '#!/bin/sh\nprintf "Content-Type: text/plain\\n\\n"\n\
echo "This is VERSION running in pod $(hostname)"\n' > /www/cgi-bin/index.cgi && \
chmod +x /www/cgi-bin/index.cgi
ENTRYPOINT ["sh", "-c", "echo Kubia server starting...; exec httpd -f -p 8080 -h /www"]
"""
_UNHEALTHY = r"""FROM hello:1
ENTRYPOINT ["sh", "-c", "mkdir /www; echo hi > /www/index.html; httpd -p 8080 -h /www; sleep 2; \
rm /www/index.html; sleep 100000"]
"""
_FORTUNE = r"""FROM hello:1
ENTRYPOINT ["sh", "-c", "mkdir -p /var/htdocs; while :; do echo fortune cookie > \
/var/htdocs/index.html; sleep ${INTERVAL:-10}; done"]
"""
_NGINX = r"""FROM hello:1
ENTRYPOINT ["sh", "-c", "mkdir -p /usr/share/nginx/html; exec httpd -f -p 80 -h \
/usr/share/nginx/html"]
"""
_BATCH = r"""FROM hello:1
ENTRYPOINT ["sh", "-c", "echo Batch job starting; sleep 1; echo Finished succesfully"]
"""
IMAGES = {
    "luksa/kubia": _KUBIA.replace("VERSION", "v1"),
    "luksa/kubia:v1": _KUBIA.replace("VERSION", "v1"),
    "luksa/kubia:v3": _KUBIA.replace("VERSION", "v3"),
    "luksa/kubia-unhealthy": _UNHEALTHY,
    "luksa/fortune": _FORTUNE,
    "luksa/fortune:env": _FORTUNE,
    "luksa/batch-job": _BATCH,
    "nginx:alpine": _NGINX,
}


@pytest.fixture(scope="module")
def seeded(cluster: Instance) -> Instance:
    for name, dockerfile in IMAGES.items():
        cluster.docker("build", "-q", "-t", name, "-", stdin=dockerfile)
    return cluster


def apply(
    cluster: Instance, namespace: str, version: str, kind: str, name: str, **body: Any
) -> None:
    o = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **body}
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(o))


def kubia(image: str = "luksa/kubia", **container: Any) -> dict[str, Any]:
    """A template of the pod that most of them have."""
    one = {"name": "kubia", "image": image, "ports": [{"containerPort": 8080}], **container}
    spec = {"containers": [one], "terminationGracePeriodSeconds": 1}
    return {"metadata": {"labels": {"app": "kubia"}}, "spec": spec}


def test_a_pod_its_logs_and_its_probes(seeded: Instance, namespace: str) -> None:
    apply(seeded, namespace, "v1", "Pod", "kubia-manual", spec=kubia()["spec"])
    seeded.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/kubia-manual")
    logs = ("-n", namespace, "logs", "kubia-manual", "-c", "kubia")
    assert eventually(lambda: seeded.kubectl(*logs).out) == "Kubia server starting...\n"
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    unhealthy = kubia("luksa/kubia-unhealthy", livenessProbe=probe)["spec"]
    apply(seeded, namespace, "v1", "Pod", "kubia-liveness", spec=unhealthy)

    def restarts() -> int:
        status = seeded.get("pod", "kubia-liveness", "-n", namespace)["status"]
        return int((status.get("containerStatuses") or [{}])[0].get("restartCount") or 0)

    eventually(restarts)


def test_controllers_keep_as_many_as_they_should(seeded: Instance, namespace: str) -> None:
    ready = {"exec": {"command": ["ls", "/var/ready"]}}
    spec = {
        "replicas": 3,
        "selector": {"app": "kubia"},
        "template": kubia(readinessProbe={**ready, "periodSeconds": 1}),
    }
    apply(seeded, namespace, "v1", "ReplicationController", "kubia", spec=spec)

    def rows() -> list[list[str]]:
        out = seeded.kubectl("-n", namespace, "get", "pods", "--no-headers").out
        return [line.split() for line in out.splitlines()]

    eventually(lambda: [row[1:3] for row in rows()] == [["0/1", "Running"]] * 3)
    name = rows()[0][0]
    seeded.kubectl("-n", namespace, "exec", name, "--", "touch", "/var/ready")
    seeded.kubectl("-n", namespace, "wait", "--for=condition=Ready", f"pod/{name}")
    seeded.kubectl("-n", namespace, "label", "pod", name, "app=other", "--overwrite")
    eventually(lambda: len(rows()) == 4)


def test_jobs_run_to_their_end(seeded: Instance, namespace: str) -> None:
    main = {"name": "main", "image": "luksa/batch-job"}
    template = {
        "metadata": {"labels": {"app": "batch-job"}},
        "spec": {"restartPolicy": "OnFailure", "containers": [main]},
    }
    spec = {"completions": 5, "parallelism": 2, "template": template}
    apply(seeded, namespace, "batch/v1", "Job", "batch-job", spec=spec)
    seeded.kubectl("-n", namespace, "wait", "--for=condition=Complete", "job/batch-job")
    row = seeded.kubectl("-n", namespace, "get", "job", "batch-job", "--no-headers").out.split()
    assert "5/5" in row


def test_a_deployment_its_service_and_its_update(seeded: Instance, namespace: str) -> None:
    ports = [
        {"port": 80, "name": "http", "targetPort": 8080},
        {"port": 443, "name": "https", "targetPort": 8443},
    ]
    service = {"selector": {"app": "kubia"}, "ports": ports}
    apply(seeded, namespace, "v1", "Service", "kubia", spec=service)
    spec = {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "kubia"}},
        "template": kubia("luksa/kubia:v1"),
    }
    apply(seeded, namespace, "apps/v1", "Deployment", "kubia", spec=spec)
    seeded.kubectl("-n", namespace, "rollout", "status", "deployment", "kubia")
    ask = ["-n", namespace, "exec", "deploy/kubia", "--", "sh", "-c"]

    def answer() -> str:
        fetch = "wget -qO- http://$KUBIA_SERVICE_HOST:$KUBIA_PORT_80_TCP_PORT/cgi-bin/index.cgi"
        return seeded.kubectl(*ask, fetch, ok=False).out

    eventually(lambda: answer().startswith("This is v1 running in pod kubia-"))
    seeded.kubectl("-n", namespace, "set", "image", "deployment", "kubia", "kubia=luksa/kubia:v3")
    seeded.kubectl("-n", namespace, "rollout", "status", "deployment", "kubia")
    eventually(lambda: answer().startswith("This is v3 "))
    seeded.kubectl("-n", namespace, "rollout", "undo", "deployment", "kubia")
    seeded.kubectl("-n", namespace, "rollout", "status", "deployment", "kubia")
    eventually(lambda: answer().startswith("This is v1 "))


def served(cluster: Instance, namespace: str) -> str:
    """What the web server of the pod "fortune" says, asked from inside."""
    fetch = ("exec", "fortune", "-c", "web-server", "--", "wget", "-qO-", "http://127.0.0.1/")
    return cluster.kubectl("-n", namespace, *fetch, ok=False).out


def test_two_containers_share_a_volume(seeded: Instance, namespace: str) -> None:
    html = lambda path: [{"name": "html", "mountPath": path}]  # noqa: E731
    containers = [
        {
            "name": "html-generator",
            "image": "luksa/fortune",
            "volumeMounts": html("/var/htdocs"),
        },
        {
            "name": "web-server",
            "image": "nginx:alpine",
            "volumeMounts": html("/usr/share/nginx/html"),
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
        },
    ]
    spec = {"containers": containers, "volumes": [{"name": "html", "emptyDir": {}}]}
    apply(seeded, namespace, "v1", "Pod", "fortune", spec=spec)
    seeded.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/fortune")
    eventually(lambda: served(seeded, namespace) == "fortune cookie\n")
    forward = seeded.start("kubectl", "-n", namespace, "port-forward", "fortune", ":80")
    try:
        assert forward.stdout is not None
        port = forward.stdout.readline().split("127.0.0.1:")[1].split()[0]
        fetch = ["curl", "-s", "--max-time", "60", f"http://127.0.0.1:{port}/"]
        page = subprocess.run(fetch, capture_output=True, check=True, text=True).stdout
        assert page == "fortune cookie\n"
    finally:
        forward.kill()
        forward.wait()


def test_what_is_on_a_path_of_the_node_is_seen_there(
    seeded: Instance, namespace: str, tmp_path: Path
) -> None:
    html = lambda path: [{"name": "html", "mountPath": path}]  # noqa: E731
    containers = [
        {"name": "html-generator", "image": "luksa/fortune", "volumeMounts": html("/var/htdocs")},
        {
            "name": "web-server",
            "image": "nginx:alpine",
            "volumeMounts": html("/usr/share/nginx/html"),
        },
    ]
    volumes = [{"name": "html", "hostPath": {"path": str(tmp_path)}}]
    apply(
        *(seeded, namespace, "v1", "Pod", "fortune"),
        spec={"containers": containers, "volumes": volumes},
    )
    seeded.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/fortune")
    page = tmp_path / "index.html"
    eventually(lambda: page.exists() and page.read_text() == "fortune cookie\n")
    eventually(lambda: served(seeded, namespace) == "fortune cookie\n")


def test_a_claim_is_bound_to_the_volume_that_an_administrator_made(
    seeded: Instance, namespace: str
) -> None:
    volume = f"pv0003-{namespace}"
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Recycle",
        "nfs": {"path": "/public", "server": "127.0.0.1"},
    }
    apply(seeded, namespace, "v1", "PersistentVolume", volume, spec=spec)
    try:
        claim = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "",
        }
        apply(seeded, namespace, "v1", "PersistentVolumeClaim", "myclaim", spec=claim)

        def row(*words: str) -> list[str]:
            return seeded.kubectl("-n", namespace, "get", *words, "--no-headers").out.split()

        bound = ["myclaim", "Bound", volume, "1Gi", "RWO"]
        eventually(lambda: row("pvc", "myclaim")[:5] == bound)
        claimed = [volume, "1Gi", "RWO", "Recycle", "Bound", f"{namespace}/myclaim"]
        eventually(lambda: row("pv", volume)[:6] == claimed)

        mounts = [{"name": "pvc-vol", "mountPath": "/data/db"}]
        pod = kubia(volumeMounts=mounts)["spec"]
        source = {"persistentVolumeClaim": {"claimName": "myclaim"}}
        pod["volumes"] = [{"name": "pvc-vol", **source}]
        apply(seeded, namespace, "v1", "Pod", "kubia-pvc", spec=pod)
        # There is no such server: the pod waits, and says for what.
        ask = ["-n", namespace, "events", "--for", "pod/kubia-pvc"]

        def told() -> str:
            return seeded.kubectl(*ask).out

        eventually(lambda: f'MountVolume.SetUp failed for volume "{volume}"' in told())
        path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
        ask = ["get", "pod", "kubia-pvc", "-n", namespace, "-o", path]
        eventually(lambda: seeded.kubectl(*ask).out == "ContainerCreating")
    finally:
        seeded.kubectl("-n", namespace, "delete", "pod", "kubia-pvc", "--now", ok=False)
        seeded.kubectl("-n", namespace, "delete", "pvc", "myclaim", "--wait=false", ok=False)
        seeded.kubectl("delete", "pv", volume, "--wait=false", ok=False)


def test_a_pod_keeps_its_files_in_a_claim(seeded: Instance, namespace: str, tmp_path: Path) -> None:
    volume = f"pv0003-{namespace}"
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": str(tmp_path)},
    }
    apply(seeded, namespace, "v1", "PersistentVolume", volume, spec=spec)
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "",
        "volumeName": volume,
    }
    apply(seeded, namespace, "v1", "PersistentVolumeClaim", "myclaim", spec=claim)
    pod = kubia(volumeMounts=[{"name": "pvc-vol", "mountPath": "/data/db"}])["spec"]
    pod["volumes"] = [{"name": "pvc-vol", "persistentVolumeClaim": {"claimName": "myclaim"}}]
    for words in (("sh", "-c", "echo kept > /data/db/file"), ("cat", "/data/db/file")):
        apply(seeded, namespace, "v1", "Pod", "kubia-pvc", spec=pod)
        seeded.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/kubia-pvc")
        last = seeded.kubectl("-n", namespace, "exec", "kubia-pvc", "--", *words).out
        seeded.kubectl("-n", namespace, "delete", "pod", "kubia-pvc")
    assert last == "kept\n"
    seeded.kubectl("-n", namespace, "delete", "pvc", "myclaim")
    seeded.kubectl("delete", "pv", volume)


def test_sets_choose_by_expressions_and_daemons_by_the_nodes_labels(
    seeded: Instance, namespace: str
) -> None:
    expression = {"key": "app", "operator": "In", "values": ["kubia"]}
    spec = {
        "replicas": 2,
        "selector": {"matchExpressions": [expression]},
        "template": kubia(),
    }
    apply(seeded, namespace, "apps/v1", "ReplicaSet", "kubia", spec=spec)

    def ready(kind: str, field: str) -> int:
        one = seeded.get(kind, "-n", namespace)["items"][0]
        return int(one["status"].get(field) or 0)

    eventually(lambda: ready("replicaset", "readyReplicas") == 2)
    label = f"disk-{namespace}"
    monitor = kubia()
    monitor["metadata"]["labels"] = {"app": "ssd-monitor"}
    monitor["spec"]["nodeSelector"] = {label: "ssd"}
    spec = {"selector": {"matchLabels": {"app": "ssd-monitor"}}, "template": monitor}
    apply(seeded, namespace, "apps/v1", "DaemonSet", "ssd-monitor", spec=spec)
    node = seeded.get("nodes")["items"][0]["metadata"]["name"]
    seeded.kubectl("label", "node", node, f"{label}=ssd")
    eventually(lambda: ready("daemonset", "numberReady") == 1)
    seeded.kubectl("label", "node", node, f"{label}=hdd", "--overwrite")
    gone = "-n", namespace, "get", "pods", "-l", "app=ssd-monitor", "-o", "name"
    eventually(lambda: not seeded.kubectl(*gone).out)
    seeded.kubectl("label", "node", node, f"{label}-")


def test_a_config_map_is_variables_and_files(seeded: Instance, namespace: str) -> None:
    data = {"sleep-interval": "3", "res-type": "configmap", "record": "100"}
    apply(seeded, namespace, "v1", "ConfigMap", "fortune-config", data=data)
    name = "fortune-config"
    one = {"configMapKeyRef": {"name": name, "key": "sleep-interval"}}
    mounts = [{"name": "config", "mountPath": "/data"}]
    for pod, how in (
        ("one", {"env": [{"name": "INTERVAL", "valueFrom": one}]}),
        ("all", {"envFrom": [{"configMapRef": {"name": name}}]}),
        ("files", {"volumeMounts": mounts}),
    ):
        container = {"name": "configmap-demo", "image": "luksa/fortune:env", **how}
        spec = {
            "containers": [container],
            "volumes": [{"name": "config", "configMap": {"name": name}}],
        }
        apply(seeded, namespace, "v1", "Pod", pod, spec=spec)
        seeded.kubectl("-n", namespace, "wait", "--for=condition=Ready", f"pod/{pod}")

    def run(pod: str, *words: str) -> list[str]:
        return seeded.kubectl("-n", namespace, "exec", pod, "--", *words).out.split()

    assert "INTERVAL=3" in run("one", "env")
    assert {"record=100", "res-type=configmap", "sleep-interval=3"} <= set(run("all", "env"))
    assert run("files", "ls", "/data") == ["record", "res-type", "sleep-interval"]
