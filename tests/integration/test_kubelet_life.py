"""The life of pods: restarts by rule, ends in order, debugging, identity, who may run how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually
from pods_on_node import said
from test_kubelet_pods import FOREVER, events, make, ready, reason, run_in, state


def phase(cluster: Instance, namespace: str, name: str) -> str:
    return str(cluster.get("pod", name, "-n", namespace)["status"]["phase"])


def logs(cluster: Instance, namespace: str, name: str, container: str = "main") -> str:
    return cluster.kubectl("-n", namespace, "logs", name, "-c", container).out


def test_rules_of_a_container_go_before_the_pods_policy(cluster: Instance, namespace: str) -> None:
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    counted = "echo x >> /d/n; [ $(wc -l < /d/n) -ge 2 ] && exit 3; exit 42"
    make(
        cluster,
        namespace,
        "ruled",
        restartPolicy="Never",
        command=counted,
        container={
            "restartPolicy": "Never",
            "restartPolicyRules": rules,
            "volumeMounts": [{"name": "d", "mountPath": "/d"}],
        },
        volumes=[{"name": "d", "emptyDir": {}}],
    )
    eventually(lambda: phase(cluster, namespace, "ruled") == "Failed")
    status = cluster.get("pod", "ruled", "-n", namespace)["status"]["containerStatuses"][0]
    assert status["restartCount"] == 1
    assert status["state"]["terminated"]["exitCode"] == 3
    assert status["lastState"]["terminated"]["exitCode"] == 42


def test_sidecars_end_after_what_they_serve_and_do_not_hold_a_job(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    mount = [{"name": "h", "mountPath": "/h"}]

    def side(name: str) -> dict[str, Any]:
        script = f"trap 'echo {name} >> /h/ends; exit 0' TERM; touch /h/{name}; "
        script += "while :; do sleep 0.1; done"
        return {
            "name": name,
            "image": "hello:1",
            "restartPolicy": "Always",
            "command": ["sh", "-c", script],
            "volumeMounts": mount,
        }

    spec = {
        "restartPolicy": "Never",
        # (They get little of a busy machine.)
        "terminationGracePeriodSeconds": 60,
        "initContainers": [side("one"), side("two")],
        "containers": [
            {
                "name": "main",
                "image": "hello:1",
                # (Until the others listen to signals.)
                "command": [
                    *("sh", "-c"),
                    "until [ -e /h/one -a -e /h/two ]; do sleep 0.1; done; echo main >> /h/ends",
                ],
                "volumeMounts": mount,
            }
        ],
        "volumes": [{"name": "h", "hostPath": {"path": str(tmp_path)}}],
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "sided", "namespace": namespace},
        "spec": {"template": {"spec": spec}},
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(job))
    cluster.kubectl(
        "-n", namespace, "wait", "--for=condition=Complete", "job/sided", "--timeout=110s"
    )
    assert (tmp_path / "ends").read_text().split() == ["main", "two", "one"]

    # The same order where the pod is deleted.
    for file in tmp_path.iterdir():
        file.unlink()
    spec["containers"][0]["command"][2] = (  # type: ignore[index]
        "trap 'sleep 0.5; echo main >> /h/ends; exit 0' TERM; touch /h/main; "
        "while :; do sleep 0.1; done"
    )
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sided"}, "spec": spec}
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(pod))
    ready(cluster, namespace, "sided")
    # (They run, which may be before they listen to signals.)
    eventually(lambda: all((tmp_path / name).exists() for name in ("main", "one", "two")))
    cluster.kubectl("-n", namespace, "delete", "pod", "sided")
    assert (tmp_path / "ends").read_text().split() == ["main", "two", "one"]


def test_kubectl_debug_looks_into_a_container_a_copy_and_the_node(
    cluster: Instance, namespace: str
) -> None:
    make(cluster, namespace, "app", command=f"MARK=app; {FOREVER}")
    ready(cluster, namespace, "app")
    debug = ["-n", namespace, "debug", "--image=hello:1", "--attach=false"]
    look = ["--", "sh", "-c", "grep -a MARK=app /proc/1/cmdline >/dev/null && echo seen"]
    cluster.kubectl(*debug, "app", "--target=main", "-c", "dbg", *look)

    def debugged() -> dict[str, Any]:
        status = cluster.get("pod", "app", "-n", namespace)["status"]
        (told,) = status.get("ephemeralContainerStatuses") or [{}]
        return status if "terminated" in told.get("state", {}) else {}

    status = eventually(debugged)
    assert logs(cluster, namespace, "app", "dbg").strip() == "seen"
    assert status["phase"] == "Running" and status["containerStatuses"][0]["ready"]

    cluster.kubectl(*debug, "app", "--copy-to=copy", "--share-processes", "-c", "dbg")
    ready(cluster, namespace, "copy")
    assert len(cluster.get("pod", "copy", "-n", namespace)["spec"]["containers"]) == 2

    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    made = cluster.kubectl(*debug, f"node/{node}", "--", "sh", "-c", "ls /host; sleep 1000").out
    name = next(word for word in made.split() if word.startswith("node-debugger"))
    ready(cluster, namespace, name)
    container = cluster.get("pod", name, "-n", namespace)["spec"]["containers"][0]["name"]
    eventually(lambda: "etc" in logs(cluster, namespace, name, container).split())
    # Its command does not hear of signals, being the first process.
    cluster.kubectl("-n", namespace, "delete", "pod", name, "--grace-period=1")


def test_containers_of_a_pod_share_what_they_should(cluster: Instance, namespace: str) -> None:
    two = [
        {"name": name, "image": "hello:1", "command": ["sh", "-c", FOREVER]} for name in ("a", "b")
    ]
    make(cluster, namespace, "apart", containers=two)
    make(cluster, namespace, "together", containers=two, shareProcessNamespace=True)
    make(cluster, namespace, "host", hostPID=True, hostIPC=True, hostNetwork=True)
    for name in ("apart", "together", "host"):
        ready(cluster, namespace, name)

    def spaces(pod: str, container: str) -> dict[str, str]:
        script = "cd /proc/self/ns; for n in net ipc uts pid mnt; do echo $n $(readlink $n); done"
        words = ["-n", namespace, "exec", pod, "-c", container, "--", "sh", "-c", script]
        return dict(line.split() for line in cluster.kubectl(*words).out.splitlines())

    a, b = spaces("apart", "a"), spaces("apart", "b")
    assert {n for n in a if a[n] == b[n]} == {"net", "ipc", "uts"}
    a, b = spaces("together", "a"), spaces("together", "b")
    assert {n for n in a if a[n] == b[n]} == {"net", "ipc", "uts", "pid"}
    assert "pause" in run_in(cluster, namespace, "together", "cat /proc/1/cmdline")
    ours = {n: str(Path(f"/proc/self/ns/{n}").readlink()) for n in ("net", "ipc", "pid")}
    assert {n: spaces("host", "main")[n] for n in ours} == ours


def test_names_and_resolvers_are_the_pods_own(cluster: Instance, namespace: str) -> None:
    make(
        cluster,
        namespace,
        "none",
        dnsPolicy="None",
        dnsConfig={
            "nameservers": ["192.0.2.53"],
            "searches": ["a.example", "_b.example", "."],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        },
    )
    make(cluster, namespace, "full", hostname="h", subdomain="s", setHostnameAsFQDN=True)
    make(cluster, namespace, "over", hostnameOverride="over.example")
    long = {"hostname": "h" * 40, "subdomain": "s" * 40, "setHostnameAsFQDN": True}
    make(cluster, namespace, "long", **long)
    for name in ("none", "full", "over"):
        ready(cluster, namespace, name)
    assert run_in(cluster, namespace, "none", "cat /etc/resolv.conf").splitlines() == [
        "nameserver 192.0.2.53",
        "search a.example _b.example .",
        "options ndots:2 edns0",
    ]
    fqdn = f"h.s.{namespace}.svc.cluster.local"
    assert run_in(cluster, namespace, "full", "hostname").strip() == fqdn
    assert run_in(cluster, namespace, "over", "hostname").strip() == "over.example"
    eventually(lambda: "failed to construct FQDN" in events(cluster, namespace, "long"))


def test_who_a_container_runs_as(cluster: Instance, namespace: str) -> None:
    cluster.docker(
        "build",
        "-t",
        "grouped:1",
        "-",
        stdin="FROM hello:1\nRUN echo 'app:x:1000:1000::/:/bin/sh' > /etc/passwd; "
        "printf 'app:x:1000:\\nmore:x:5000:app\\n' > /etc/group\nUSER 1000\n",
    )
    image = {"image": "grouped:1"}

    def groups(name: str, context: dict[str, Any]) -> str:
        make(cluster, namespace, name, container=image, securityContext=context)
        ready(cluster, namespace, name)
        return run_in(cluster, namespace, name, "id -u; id -g; id -G | tr ' ' ,").replace("\n", " ")

    assert groups("image", {"runAsNonRoot": True}) == "1000 1000 1000,5000 "
    assert groups("merge", {"supplementalGroups": [7]}) == "1000 1000 1000,7,5000 "
    strict = {"supplementalGroups": [7], "supplementalGroupsPolicy": "Strict"}
    assert groups("strict", strict) == "1000 1000 1000,7 "
    assert groups("group", {"runAsGroup": 9}).startswith("1000 9 ")
    assert groups("both", {"runAsUser": 77, "runAsGroup": 9}).startswith("77 9 9 ")
    make(cluster, namespace, "zero", securityContext={"runAsNonRoot": True, "runAsUser": 0})
    make(cluster, namespace, "root", securityContext={"runAsNonRoot": True})
    for name, why in (
        ("zero", "container's runAsUser breaks non-root policy (pod: "),
        ("root", "container has runAsNonRoot and image will run as root (pod: "),
    ):
        told = eventually(lambda n=name: state(cluster, namespace, n).get("waiting"))
        eventually(lambda n=name: reason(cluster, namespace, n) == "CreateContainerConfigError")
        told = state(cluster, namespace, name)["waiting"]
        assert told["message"].startswith(why)
        assert said(cluster, namespace, name, why)


def test_what_a_container_may_do(cluster: Instance, namespace: str) -> None:
    profiles = cluster.data_dir / "kubelet" / "seccomp"
    profiles.mkdir(exist_ok=True)
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    (profiles / "nodirs.json").write_text(json.dumps(profile))

    def pod(name: str, *, wait: bool = True, **own: Any) -> None:
        of_pod = own.pop("pod", {})
        make(cluster, namespace, name, container={"securityContext": own}, securityContext=of_pod)
        if wait:
            ready(cluster, namespace, name)

    def status_of(name: str, field: str) -> str:
        return run_in(cluster, namespace, name, f"grep {field}: /proc/1/status").split()[1]

    pod("plain")
    pod("default", pod={"seccompProfile": {"type": "RuntimeDefault"}})
    assert (status_of("plain", "Seccomp"), status_of("default", "Seccomp")) == ("0", "2")
    pod("local", seccompProfile={"type": "Localhost", "localhostProfile": "nodirs.json"})
    assert "Operation not permitted" in run_in(
        cluster, namespace, "local", "mkdir /tmp/d 2>&1 || true"
    )
    absent = {"type": "Localhost", "localhostProfile": "no.json"}
    pod("absent", wait=False, seccompProfile=absent)
    eventually(lambda: reason(cluster, namespace, "absent") == "CreateContainerError")
    assert said(cluster, namespace, "absent", "cannot load seccomp profile")

    pod("bare", capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})
    assert int(status_of("bare", "CapEff"), 16) == 1 << 10
    pod("mighty", privileged=True)
    assert int(status_of("mighty", "CapEff"), 16) > int(status_of("plain", "CapEff"), 16)
    pod("still", readOnlyRootFilesystem=True, allowPrivilegeEscalation=False)
    assert status_of("still", "NoNewPrivs") == "1"
    assert "Read-only" in run_in(cluster, namespace, "still", "touch /x 2>&1 || true")

    safe = {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]}
    pod("tuned", pod=safe)
    path = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    assert run_in(cluster, namespace, "tuned", f"cat {path}").strip() == "80"
    pod("unsafe", wait=False, pod={"sysctls": [{"name": "net.core.somaxconn", "value": "9"}]})
    eventually(lambda: phase(cluster, namespace, "unsafe") == "Failed")
    status = cluster.get("pod", "unsafe", "-n", namespace)["status"]
    assert status["reason"] == "SysctlForbidden"
    assert 'forbidden sysctl: "net.core.somaxconn" not allowlisted' in status["message"]


def test_runtime_classes_name_runtimes_of_the_engine(cluster: Instance, namespace: str) -> None:
    for name, handler in (("known", "runc"), ("unknown", "kata")):
        made = {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": f"{name}-{namespace}"},
            "handler": handler,
        }
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))
        make(cluster, namespace, name, runtimeClassName=f"{name}-{namespace}")
    ready(cluster, namespace, "known")
    text = 'no runtime for "kata" is configured'
    eventually(lambda: text in events(cluster, namespace, "unknown"))
    cluster.kubectl("delete", "runtimeclass", f"known-{namespace}", f"unknown-{namespace}")


def test_static_pods_are_those_of_a_directory(cluster: Instance) -> None:
    directory = cluster.data_dir / "manifests"
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    name = f"fixed-{node}"

    def write(words: str) -> None:
        container = {"name": "main", "image": "hello:1", "command": ["sh", "-c", words]}
        spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fixed"}, "spec": spec}
        (directory / "fixed.json").write_text(json.dumps(pod))

    try:
        write(f"echo first; {FOREVER}")
        eventually(lambda: cluster.kubectl("get", "pod", name, ok=False).code == 0)
        ready(cluster, "default", name)
        eventually(lambda: logs(cluster, "default", name) == "first\n")
        cluster.kubectl("delete", "pod", name, "--force", "--grace-period=0")
        eventually(lambda: cluster.kubectl("get", "pod", name, ok=False).code == 0)
        ready(cluster, "default", name)
        assert run_in(cluster, "default", name, "echo in") == "in\n"
        write(f"echo second; {FOREVER}")
        eventually(lambda: logs_or_nothing(cluster, name) == "second\n")
    finally:
        (directory / "fixed.json").unlink()
    eventually(lambda: cluster.kubectl("get", "pod", name, ok=False).code == 1)
    eventually(lambda: not cluster.docker("ps", "-q", "--filter", f"name={name}").out)


def logs_or_nothing(cluster: Instance, name: str) -> str:
    return cluster.kubectl("logs", name, ok=False).out


def test_deadlines_and_force(cluster: Instance, namespace: str) -> None:
    make(cluster, namespace, "late", activeDeadlineSeconds=1)
    eventually(lambda: phase(cluster, namespace, "late") == "Failed")
    status = cluster.get("pod", "late", "-n", namespace)["status"]
    assert status["reason"] == "DeadlineExceeded"
    assert status["message"] == "Pod was active on the node longer than the specified deadline"
    deaf = "trap '' TERM; while :; do sleep 0.1; done"
    make(cluster, namespace, "deaf", terminationGracePeriodSeconds=600, command=deaf)
    ready(cluster, namespace, "deaf")
    cluster.kubectl("-n", namespace, "delete", "pod", "deaf", "--force", "--grace-period=0")
    eventually(lambda: not cluster.docker("ps", "-q", "--filter", f"name=_deaf_{namespace}_").out)


@pytest.mark.parametrize("signal", ["SIGUSR1", "SIGTERM"])
def test_the_stop_signal_is_the_containers_own(
    cluster: Instance, namespace: str, signal: str, tmp_path: Path
) -> None:
    short = signal.removeprefix("SIG")
    make(
        cluster,
        namespace,
        "signalled",
        command=f"trap 'echo got > /h/got; exit 0' {short}; touch /h/set; "
        "while :; do sleep 0.1; done",
        os={"name": "linux"},
        terminationGracePeriodSeconds=600,
        container={
            "lifecycle": {"stopSignal": signal},
            "volumeMounts": [{"name": "h", "mountPath": "/h"}],
        },
        volumes=[{"name": "h", "hostPath": {"path": str(tmp_path)}}],
    )
    ready(cluster, namespace, "signalled")
    eventually(lambda: (tmp_path / "set").exists())
    cluster.kubectl("-n", namespace, "delete", "pod", "signalled", "--timeout=100s")
    assert (tmp_path / "got").exists()
