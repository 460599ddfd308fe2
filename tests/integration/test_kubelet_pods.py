"""Pods on a real node, seen through kubectl and docker."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually
from pods_on_node import said

from ports import free_port

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def make(cluster: Instance, namespace: str, name: str, **spec: Any) -> None:
    """Create a pod; ``command`` and ``container`` describe its one container."""
    command = spec.pop("command", FOREVER)
    container = {"name": "main", "image": "hello:1", "command": ["sh", "-c", command]}
    container |= spec.pop("container", {})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"pod": name}},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": [container], **spec},
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))


def ready(cluster: Instance, namespace: str, name: str) -> dict[str, Any]:
    words = ("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=110s")
    cluster.kubectl("-n", namespace, *words)
    return cluster.get("pod", name, "-n", namespace)


def state(cluster: Instance, namespace: str, name: str) -> dict[str, Any]:
    status = cluster.get("pod", name, "-n", namespace)["status"]
    return (status.get("containerStatuses") or [{}])[0].get("state", {})


def reason(cluster: Instance, namespace: str, name: str) -> str:
    return state(cluster, namespace, name).get("waiting", {}).get("reason", "")


def events(cluster: Instance, namespace: str, name: str) -> str:
    return cluster.kubectl("-n", namespace, "events", "--for", f"pod/{name}").out


def run_in(cluster: Instance, namespace: str, name: str, script: str) -> str:
    return cluster.kubectl("-n", namespace, "exec", name, "--", "sh", "-c", script).out


def test_a_pod_has_the_volumes_variables_and_names_it_asks_for(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    cluster.kubectl("-n", namespace, "create", "configmap", "cm", "--from-literal=a=1")
    cluster.kubectl(
        "-n", namespace, "create", "secret", "generic", "sec", "--from-literal=k=geheim"
    )
    (tmp_path / "shared").mkdir()
    make(
        cluster,
        namespace,
        "rich",
        hostname="host",
        subdomain="sub",
        hostAliases=[{"ip": "192.0.2.77", "hostnames": ["alias.example"]}],
        securityContext={"fsGroup": 2000, "runAsUser": 1000},
        container={
            "env": [
                {"name": "A", "value": "x"},
                {"name": "B", "value": "$(A)-$(KEY)"},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
            "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}},
            "volumeMounts": [
                {"name": "data", "mountPath": "/data"},
                {"name": "data", "mountPath": "/deep", "subPath": "a/b"},
                {"name": "cm", "mountPath": "/cm"},
                {"name": "cm", "mountPath": "/one/file", "subPath": "a"},
                {"name": "sec", "mountPath": "/sec"},
                {"name": "mem", "mountPath": "/mem"},
                {"name": "down", "mountPath": "/down"},
                {"name": "host", "mountPath": "/host"},
            ],
        },
        volumes=[
            {"name": "data", "emptyDir": {}},
            {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
            {"name": "cm", "configMap": {"name": "cm"}},
            {"name": "sec", "secret": {"secretName": "sec"}},
            {"name": "host", "hostPath": {"path": str(tmp_path / "shared"), "type": "Directory"}},
            {
                "name": "down",
                "downwardAPI": {
                    "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
                },
            },
        ],
    )
    pod = ready(cluster, namespace, "rich")
    assert pod["status"]["qosClass"] == "Guaranteed"
    script = (
        'echo "$B $IP"; cat /cm/a /one/file /sec/k /down/labels; echo; hostname; id -G; '
        "df /mem | tail -1; cat /etc/hosts; echo x > /data/x && ls -ld /deep; "
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes 2>/dev/null || cat memory.max"
    )
    out = run_in(cluster, namespace, "rich", script)
    lines = out.splitlines()
    assert lines[0] == f"x-$(KEY) {pod['status']['podIP']}"
    assert lines[1] == '11geheimpod="rich"'
    assert lines[2] == "host"
    assert "2000" in lines[3].split()
    assert lines[4].startswith("tmpfs") and "8192" in lines[4]
    assert f"host.sub.{namespace}.svc.cluster.local\thost" in out
    assert "192.0.2.77\talias.example" in out
    assert lines[-1] == str(64 << 20)

    cluster.kubectl("-n", namespace, "patch", "cm", "cm", "-p", '{"data":{"a":"new"}}')
    cluster.kubectl("-n", namespace, "label", "pod", "rich", "pod=other", "--overwrite")
    eventually(
        lambda: run_in(cluster, namespace, "rich", "cat /cm/a /down/labels").startswith("new")
    )
    eventually(lambda: 'pod="other"' in run_in(cluster, namespace, "rich", "cat /down/labels"))
    assert run_in(cluster, namespace, "rich", "cat /one/file") == "1"

    uid = pod["metadata"]["uid"]
    cluster.kubectl("-n", namespace, "delete", "pod", "rich")
    assert not (cluster.data_dir / "kubelet" / "pods" / uid).exists()
    assert uid not in Path("/proc/self/mountinfo").read_text()
    assert (tmp_path / "shared").is_dir()


def test_init_containers_and_sidecars_come_first(cluster: Instance, namespace: str) -> None:
    mount = [{"name": "log", "mountPath": "/log"}]
    say = lambda word: ["sh", "-c", f"echo {word} >> /log/order"]  # noqa: E731
    make(
        cluster,
        namespace,
        "ordered",
        command=f"echo main >> /log/order; {FOREVER}",
        container={"volumeMounts": mount},
        volumes=[{"name": "log", "emptyDir": {}}],
        initContainers=[
            {"name": "a", "image": "hello:1", "command": say("a"), "volumeMounts": mount},
            {
                "name": "side",
                "image": "hello:1",
                "restartPolicy": "Always",
                "command": ["sh", "-c", f"echo side >> /log/order; {FOREVER}"],
                "startupProbe": {
                    "exec": {"command": ["grep", "side", "/log/order"]},
                    "periodSeconds": 1,
                    "timeoutSeconds": 20,
                    "failureThreshold": 60,
                },
                "volumeMounts": mount,
            },
            {"name": "b", "image": "hello:1", "command": say("b"), "volumeMounts": mount},
        ],
    )
    ready(cluster, namespace, "ordered")
    order = cluster.kubectl(
        "-n", namespace, "exec", "ordered", "-c", "main", "--", "cat", "/log/order"
    )
    assert order.out.split() == ["a", "side", "b", "main"]
    row = cluster.kubectl("-n", namespace, "get", "pod", "ordered", "--no-headers").out.split()
    assert row[1:3] == ["2/2", "Running"]


def test_each_way_to_fail_has_its_name(cluster: Instance, namespace: str) -> None:
    make(cluster, namespace, "never", container={"image": "no:1", "imagePullPolicy": "Never"})
    make(cluster, namespace, "pull", container={"image": "registry.invalid/no:1"})
    make(cluster, namespace, "name", container={"image": "Not A Name"})
    make(cluster, namespace, "config", container={"envFrom": [{"configMapRef": {"name": "no"}}]})
    make(cluster, namespace, "root", securityContext={"runAsNonRoot": True})
    make(cluster, namespace, "command", container={"command": ["nonsense"]})
    make(cluster, namespace, "mount", volumes=[{"name": "v", "secret": {"secretName": "no"}}])
    expected = {
        "never": "ErrImageNeverPull",
        "pull": "ImagePullBackOff",
        "name": "InvalidImageName",
        "config": "CreateContainerConfigError",
        "root": "CreateContainerConfigError",
        "command": "CrashLoopBackOff",
        "mount": "ContainerCreating",
    }
    for name, wanted in expected.items():
        eventually(lambda n=name, w=wanted: reason(cluster, namespace, n) == w)
    assert said(cluster, namespace, "never", "Error: ErrImageNeverPull")
    assert said(cluster, namespace, "pull", 'Failed to pull image "registry.invalid/no:1"')
    assert said(cluster, namespace, "mount", 'secret "no" not found')
    assert said(cluster, namespace, "config", 'configmap "no" not found')

    # What was missing comes, and the pods go on by themselves.
    cluster.kubectl("-n", namespace, "create", "configmap", "no", "--from-literal=a=1")
    cluster.kubectl("-n", namespace, "create", "secret", "generic", "no", "--from-literal=a=1")
    ready(cluster, namespace, "config")
    ready(cluster, namespace, "mount")


def test_a_container_that_fails_is_restarted_with_back_off_and_its_last_words_are_kept(
    cluster: Instance, namespace: str
) -> None:
    words = "echo $(hostname) says bye > /dev/termination-log; echo line; exit 3"
    make(cluster, namespace, "crash", command=words)
    eventually(lambda: reason(cluster, namespace, "crash") == "CrashLoopBackOff")
    status = cluster.get("pod", "crash", "-n", namespace)["status"]["containerStatuses"][0]
    ended = status["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")
    assert ended["message"] == "crash says bye\n"
    assert status["restartCount"] == 1
    assert cluster.kubectl("-n", namespace, "logs", "-p", "crash").out == "line\n"
    assert said(cluster, namespace, "crash", "Back-off restarting failed container main")


def test_memory_beyond_the_limit_is_told_as_such(cluster: Instance, namespace: str) -> None:
    make(
        cluster,
        namespace,
        "oom",
        restartPolicy="Never",
        command="x=a; while :; do x=$x$x; done",
        container={"resources": {"limits": {"memory": "16Mi"}}},
    )
    terminated = eventually(lambda: state(cluster, namespace, "oom").get("terminated"))
    assert (terminated["exitCode"], terminated["reason"]) == (137, "OOMKilled")


def test_probes_restart_and_hold_traffic_back(cluster: Instance, namespace: str) -> None:
    quick = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 20}
    alive = {"exec": {"command": ["cat", "/tmp/alive"]}}
    make(
        cluster,
        namespace,
        "probed",
        command=f"touch /tmp/alive; {FOREVER}",
        container={
            # (It runs before it has made the file.)
            "startupProbe": {**alive, **quick, "failureThreshold": 60},
            "livenessProbe": {**alive, **quick},
            "readinessProbe": {"exec": {"command": ["cat", "/tmp/ready"]}, **quick},
        },
    )
    eventually(lambda: "Readiness probe failed" in events(cluster, namespace, "probed"))
    run_in(cluster, namespace, "probed", "touch /tmp/ready")
    ready(cluster, namespace, "probed")
    run_in(cluster, namespace, "probed", "rm /tmp/alive")

    def restarted() -> bool:
        status = cluster.get("pod", "probed", "-n", namespace)["status"]["containerStatuses"][0]
        return status["restartCount"] == 1

    eventually(restarted)
    text = "Container main failed liveness probe, will be restarted"
    assert said(cluster, namespace, "probed", text)


def test_hooks_run_and_a_failing_post_start_hook_is_told(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    mount = [{"name": "h", "mountPath": "/h"}]
    volume = {"name": "h", "hostPath": {"path": str(tmp_path)}}
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo post > /h/post"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre > /h/pre"]}},
    }
    make(
        cluster,
        namespace,
        "hooked",
        container={"lifecycle": hooks, "volumeMounts": mount},
        volumes=[volume],
        terminationGracePeriodSeconds=60,
    )
    ready(cluster, namespace, "hooked")
    assert (tmp_path / "post").read_text() == "post\n"
    cluster.kubectl("-n", namespace, "delete", "pod", "hooked")
    assert (tmp_path / "pre").read_text() == "pre\n"
    bad = {"postStart": {"exec": {"command": ["false"]}}}
    make(cluster, namespace, "bad", container={"lifecycle": bad})
    eventually(lambda: "FailedPostStartHook" in events(cluster, namespace, "bad"))


def test_the_hosts_network_and_ports(cluster: Instance, namespace: str) -> None:
    make(cluster, namespace, "net", hostNetwork=True, command=f"hostname; {FOREVER}")
    pod = ready(cluster, namespace, "net")
    assert pod["status"]["podIP"] == pod["status"]["hostIP"]
    eventually(lambda: cluster.kubectl("-n", namespace, "logs", "net").out.strip() == os.uname()[1])


def test_killing_a_container_restarts_it_within_the_pod(cluster: Instance, namespace: str) -> None:
    make(cluster, namespace, "victim")
    before = ready(cluster, namespace, "victim")["status"]
    name = f"k8s_main_victim_{namespace}_"
    id_ = cluster.docker("ps", "-q", "--filter", f"name={name}").out.strip()
    cluster.docker("kill", id_)

    def again() -> bool:
        after = cluster.get("pod", "victim", "-n", namespace)["status"]["containerStatuses"][0]
        return after["restartCount"] == 1 and after["ready"]

    eventually(again)
    after = cluster.get("pod", "victim", "-n", namespace)["status"]
    assert after["podIP"] == before["podIP"]
    assert after["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 137


def test_a_pod_that_obeys_ends_quickly_and_one_that_does_not_after_its_grace(
    cluster: Instance, namespace: str
) -> None:
    # (It is Ready as soon as it runs, which may be before the shell has set its trap.)
    probe = {"readinessProbe": {"exec": {"command": ["test", "-e", "/set"]}, "periodSeconds": 1}}
    obeys = FOREVER.replace("; ", "; touch /set; ", 1)
    long = {"terminationGracePeriodSeconds": 600}
    make(cluster, namespace, "good", command=obeys, container=probe, **long)
    make(cluster, namespace, "deaf", command=obeys.replace("exit 0", ""), container=probe)
    ready(cluster, namespace, "good")
    ready(cluster, namespace, "deaf")
    cluster.kubectl("-n", namespace, "delete", "pod", "good", "--timeout=100s")
    begun = time.monotonic()
    cluster.kubectl("-n", namespace, "delete", "pod", "deaf", "--timeout=100s")
    assert time.monotonic() - begun > 1.9


@pytest.mark.parametrize("websockets", ["true", "false"])
@pytest.mark.parametrize("kubectl", ["kubectl", "kubectl-1.37"])
def test_streams_over_both_protocols(
    cluster: Instance, namespace: str, kubectl: str, websockets: str, tmp_path: Path
) -> None:
    environment = cluster.environment | {
        "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets,
        "KUBECTL_PORT_FORWARD_WEBSOCKETS": websockets,
    }

    def run(*words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [kubectl, "-n", namespace, *words]
        return subprocess.run(
            command, env=environment, input=data, capture_output=True, timeout=300, check=False
        )

    if run("version", "--client").returncode != 0:
        pytest.skip(f"{kubectl} is not here")
    make(cluster, namespace, "web", container={"command": None})
    ready(cluster, namespace, "web")
    payload = random.randbytes(3 << 20)
    assert run("exec", "-i", "web", "--", "cat", data=payload).stdout == payload
    done = run("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.returncode) == (b"out\n", 7)
    # (Some clients may say first that they discard a message, which is empty.)
    assert b"err\n" in done.stderr, done.stderr
    missing = run("exec", "web", "--", "nonsense")
    assert b"executable file not found" in missing.stderr and missing.returncode == 1
    (tmp_path / "file").write_bytes(payload)
    assert run("cp", str(tmp_path / "file"), "web:/tmp/file").returncode == 0
    assert run("exec", "web", "--", "cat", "/tmp/file").stdout == payload
    tty = ["script", "-qec", f"{kubectl} -n {namespace} exec -it web -- sh -c 'tty; exit 5'"]
    terminal = subprocess.run(
        [*tty, "/dev/null"], env=environment, capture_output=True, timeout=60, check=False
    )
    assert b"/dev/pts/" in terminal.stdout and terminal.returncode == 5

    port = free_port()
    forward = subprocess.Popen(
        [kubectl, "-n", namespace, "port-forward", "web", f"{port}:8080"],
        env=environment,
        stdout=subprocess.PIPE,
    )
    try:
        assert forward.stdout is not None
        forward.stdout.readline()
        fetch = ["curl", "-s", "--max-time", "60", f"http://127.0.0.1:{port}"]
        pages = [subprocess.Popen(fetch, stdout=subprocess.PIPE) for _ in range(5)]
        for page in pages:
            assert b"Hello from web" in page.communicate(timeout=90)[0]
    finally:
        forward.kill()
        forward.wait()


def test_logs_are_followed_until_the_container_ends(cluster: Instance, namespace: str) -> None:
    make(
        cluster,
        namespace,
        "talker",
        restartPolicy="Never",
        command="for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done",
    )
    eventually(lambda: cluster.kubectl("-n", namespace, "logs", "talker", ok=False).code == 0)
    followed = cluster.kubectl("-n", namespace, "logs", "-f", "talker").out
    assert followed == "".join(f"line {i}\n" for i in range(1, 6))
    log = lambda *words: cluster.kubectl("-n", namespace, "logs", "talker", *words).out  # noqa: E731
    assert log("--tail=2") == "line 4\nline 5\n"
    assert log("--limit-bytes=6") == "line 1"
    stamped = log("--timestamps", "--tail=1").split()
    assert stamped[0].endswith("Z") and stamped[1:] == ["line", "5"]
    assert log("--since-time", stamped[0]).endswith("line 5\n")
    assert log("--since-time", "2099-01-01T00:00:00Z") == ""


def process_of(cluster: Instance, namespace: str, name: str) -> Path:
    """The first process of a pod's container, as a directory that goes with it."""
    status = cluster.get("pod", name, "-n", namespace)["status"]["containerStatuses"][0]
    id_ = status["containerID"].removeprefix("docker://")
    return Path("/proc", cluster.docker("inspect", "-f", "{{.State.Pid}}", id_).out.strip())


def restarted(cluster: Instance, namespace: str, name: str) -> tuple[int, int]:
    """How often, and with which code it ended the last time."""
    status = cluster.get("pod", name, "-n", namespace)["status"]["containerStatuses"][0]
    return status["restartCount"], status["lastState"].get("terminated", {}).get("exitCode", -1)


def test_a_killed_node_daemon_takes_everything_up_again(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    def until_told(name: str, code: int, **spec: Any) -> None:
        command = f"echo run; until [ -e /h/{name} ]; do sleep 0.1; done; rm /h/{name}; exit {code}"
        mounts = {"volumeMounts": [{"name": "h", "mountPath": "/h"}]}
        volumes = [{"name": "h", "hostPath": {"path": str(tmp_path)}}]
        make(
            cluster, namespace, name, command=command, container=mounts, volumes=volumes, **spec
        )  # fmt: skip

    make(cluster, namespace, "survivor")
    make(cluster, namespace, "ending", terminationGracePeriodSeconds=30, command="sleep 1000")
    until_told("short", 0, restartPolicy="OnFailure")
    until_told("crash", 3)
    for name in ("survivor", "ending", "short", "crash"):
        ready(cluster, namespace, name)
    processes = [process_of(cluster, namespace, name) for name in ("short", "crash")]
    before = cluster.get("pod", "survivor", "-n", namespace)
    cluster.kubectl("-n", namespace, "delete", "pod", "ending", "--wait=false")
    os.kill(cluster.pid("node"), signal.SIGKILL)
    for name in ("short", "crash"):  # they end while nobody looks
        (tmp_path / name).touch()
    eventually(lambda: not any(process.exists() for process in processes))
    cluster.wherry("up")
    eventually(
        lambda: cluster.get("pod", "short", "-n", namespace)["status"]["phase"] == "Succeeded"
    )
    eventually(lambda: restarted(cluster, namespace, "crash") == (1, 3))
    after = cluster.get("pod", "survivor", "-n", namespace)
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]
    assert after["status"]["conditions"] == before["status"]["conditions"]
    cluster.kubectl("-n", namespace, "delete", "pod", "ending", "--grace-period=1")
    assert run_in(cluster, namespace, "survivor", "echo still here") == "still here\n"


def test_nothing_is_left_of_pods_made_and_deleted_while_the_daemon_is_killed(
    cluster: Instance, namespace: str
) -> None:
    chance = random.Random(7)
    alive: list[str] = []
    for number in range(30):
        name = f"p{number}"
        make(
            cluster,
            namespace,
            name,
            terminationGracePeriodSeconds=1,
            volumes=[{"name": "m", "emptyDir": {"medium": "Memory"}}],
            container={"volumeMounts": [{"name": "m", "mountPath": "/m"}]},
        )
        alive.append(name)
        if len(alive) > 3:
            victim = alive.pop(chance.randrange(len(alive)))
            force = ["--force", "--grace-period=0"] if chance.random() < 0.3 else []
            cluster.kubectl("-n", namespace, "delete", "pod", victim, "--wait=false", *force)
        if number % 6 == 5:
            os.kill(cluster.pid("node"), signal.SIGKILL)
            cluster.wherry("up")
    for name in alive:
        ready(cluster, namespace, name)
    cluster.kubectl("-n", namespace, "delete", "pods", "--all", "--grace-period=1")

    def clean() -> bool:
        containers = cluster.docker("ps", "-aq", "--filter", f"name=_{namespace}_").out
        return not containers

    eventually(clean)
    live = {p["metadata"]["uid"] for p in cluster.get("pods", "-A")["items"]}
    directory = cluster.data_dir / "kubelet" / "pods"
    eventually(lambda: {entry.name for entry in directory.iterdir()} <= live)
    mounted = [
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(directory) in line and not any(uid in line for uid in live)
    ]
    assert mounted == []


def test_purge_unmounts_volumes_and_never_touches_what_lies_behind_them(
    new_instance: Callable[[], Instance], tmp_path: Path
) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "precious").write_text("keep")
    instance = new_instance()
    instance.wherry("up", "--sample")
    make(
        instance,
        "default",
        "mounted",
        container={
            "volumeMounts": [
                {"name": "host", "mountPath": "/whole"},
                {"name": "host", "mountPath": "/part", "subPath": "inside"},
                {"name": "memory", "mountPath": "/memory"},
            ]
        },
        volumes=[
            {"name": "host", "hostPath": {"path": str(tmp_path)}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
    )
    ready(instance, "default", "mounted")
    instance.wherry("down", "--purge", "--grace", "1")
    assert str(instance.data_dir) not in Path("/proc/self/mountinfo").read_text()
    assert not instance.data_dir.exists()
    assert (tmp_path / "inside" / "precious").read_text() == "keep"
