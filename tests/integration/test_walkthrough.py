"""The commands of a first tutorial, as a user types them, on one live cluster."""

from __future__ import annotations

import re
import shutil
import urllib.request
from pathlib import Path

import pytest
from conftest import CLIENTS, Instance, eventually

KUBECTLS = ("kubectl-1.20", "kubectl", "kubectl-1.37")

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: hello, image: "hello:1", ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"""


@pytest.fixture(params=KUBECTLS)
def kubectl(request: pytest.FixtureRequest, cluster: Instance) -> Instance:
    """The cluster, driven by one version of kubectl."""
    if not (CLIENTS / request.param).exists() and shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not here")
    instance = Instance(cluster.data_dir)
    instance.kubectl_name = str(CLIENTS / request.param)
    return instance


def _page(address: str) -> str:
    def fetch() -> str:
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
                return answer.read().decode()
        except OSError:  # refused until the proxy has heard of the endpoints
            return ""

    return eventually(fetch)


def _pods(instance: Instance, namespace: str, selector: str = "app=web") -> list[dict]:
    pods = instance.get("pods", "-n", namespace, "-l", selector)["items"]
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def _rolled_out(instance: Instance, namespace: str) -> None:
    done = instance.kubectl("-n", namespace, "rollout", "status", "deploy/web", "--timeout=110s")
    assert "successfully rolled out" in done.out


def test_create_expose_scale_update_undo(kubectl: Instance, namespace: str) -> None:
    run = lambda *words: kubectl.kubectl("-n", namespace, *words).out  # noqa: E731

    assert run("create", "deployment", "web", "--image=hello:1", "--replicas=3") == (
        "deployment.apps/web created\n"
    )
    _rolled_out(kubectl, namespace)
    assert "service/web exposed" in run(
        "expose", "deployment", "web", "--port=80", "--target-port=8080"
    )

    address = run("get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}")
    names = {pod["metadata"]["name"] for pod in _pods(kubectl, namespace)}
    first = "jsonpath={.items[0].subsets[0].addresses[*].ip}"  # of none, until there are some
    where = ("get", "ep", "-n", namespace, "-l", "app=web", "-o", first)
    eventually(lambda: len(kubectl.kubectl(*where, ok=False).out.split()) == 3)

    def answers() -> set[str]:
        return {_page(address).split()[2].rstrip(",") for _ in range(12)}

    assert eventually(lambda: answers() == names), "every replica answers"

    wide = run("get", "deploy,rs,po,svc,ep", "-o", "wide")
    assert re.search(r"deployment.apps/web\s+3/3\s+3\s+3", wide)
    assert re.search(r"pod/web-\S+\s+1/1\s+Running\s+0", wide)
    for reason in ("Scheduled", "Pulled", "Created", "Started"):
        eventually(lambda r=reason: r in run("describe", "pod", sorted(names)[0]))

    run("scale", "deploy", "web", "--replicas=5")
    _rolled_out(kubectl, namespace)
    assert len(_pods(kubectl, namespace)) == 5

    run("set", "image", "deploy/web", "hello=hello:2")
    _rolled_out(kubectl, namespace)
    assert "hello:2" in eventually(lambda: "hello:2" in (p := _page(address)) and p)
    assert "REVISION" in run("rollout", "history", "deploy/web")
    run("rollout", "undo", "deploy/web")
    _rolled_out(kubectl, namespace)
    images = {pod["spec"]["containers"][0]["image"] for pod in _pods(kubectl, namespace)}
    assert images == {"hello:1"}


def test_logs_and_exec_in_both_protocols(kubectl: Instance, namespace: str) -> None:
    command = ["sh", "-c", "echo first; while sleep 0.2; do echo tick; done"]
    kubectl.kubectl("-n", namespace, "run", "talker", "--image=hello:1", "--", *command)
    kubectl.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/talker")

    eventually(lambda: "tick" in kubectl.kubectl("-n", namespace, "logs", "talker").out)
    follower = kubectl.start(kubectl.kubectl_name, "-n", namespace, "logs", "-f", "talker")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "first\n"
    assert [follower.stdout.readline() for _ in range(3)] == ["tick\n"] * 3
    follower.terminate()
    follower.wait(60)

    for websockets in ("true", "false"):
        environment = dict(kubectl.environment, KUBECTL_REMOTE_COMMAND_WEBSOCKETS=websockets)
        import subprocess

        def run(
            *words: str, stdin: str = "", env: dict[str, str] = environment
        ) -> subprocess.CompletedProcess[str]:
            argv = [kubectl.kubectl_name, "-n", namespace, "exec", *words]
            return subprocess.run(
                argv, env=env, input=stdin, capture_output=True, text=True, timeout=90, check=False
            )

        assert run("talker", "--", "echo", "inside").stdout == "inside\n"
        assert run("-i", "talker", "--", "cat", stdin="through\n").stdout == "through\n"
        failed = run("talker", "--", "sh", "-c", "echo oops >&2; exit 7")
        assert (failed.returncode, "oops" in failed.stderr) == (7, True)


def test_exec_with_a_terminal(kubectl: Instance, namespace: str) -> None:
    kubectl.kubectl("-n", namespace, "run", "term", "--image=hello:1", "--", "sleep", "300")
    kubectl.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/term")
    import pty
    import subprocess

    main, side = pty.openpty()
    shell = subprocess.Popen(
        [kubectl.kubectl_name, "-n", namespace, "exec", "-it", "term", "--", "sh"],
        env=kubectl.environment,
        stdin=side,
        stdout=side,
        stderr=side,
        close_fds=True,
    )
    import os

    os.close(side)
    os.write(main, b"hostname; exit 5\n")
    output = b""
    while True:
        try:
            data = os.read(main, 4096)
        except OSError:
            break
        if not data:
            break
        output += data
    assert shell.wait(60) == 5
    assert b"term" in output


def test_killed_containers_restart_and_deleted_pods_are_replaced(
    kubectl: Instance, namespace: str
) -> None:
    kubectl.kubectl("-n", namespace, "create", "deployment", "web", "--image=hello:1")
    _rolled_out(kubectl, namespace)
    name = _pods(kubectl, namespace)[0]["metadata"]["name"]
    listed = kubectl.docker("ps", "--format", "{{.Names}}").out.split()
    container = next(n for n in listed if n.startswith(f"k8s_hello_{name}_{namespace}_"))
    assert any(n.startswith(f"k8s_POD_{name}_{namespace}_") for n in listed)

    kubectl.docker("kill", container)
    eventually(
        lambda: _pods(kubectl, namespace)[0]["status"]["containerStatuses"][0]["restartCount"] == 1
    )
    kubectl.kubectl("-n", namespace, "delete", "pod", name)
    replaced = eventually(lambda: _pods(kubectl, namespace))
    assert replaced[0]["metadata"]["name"] != name
    _rolled_out(kubectl, namespace)


def test_apply_twice_labels_selectors_and_watch(
    kubectl: Instance, namespace: str, tmp_path: Path
) -> None:
    manifest = tmp_path / "web.yaml"
    manifest.write_text(WEB)
    first = kubectl.kubectl("-n", namespace, "apply", "-f", str(manifest)).out
    assert first == "deployment.apps/web created\nservice/web created\n"
    second = kubectl.kubectl("-n", namespace, "apply", "-f", str(manifest)).out
    assert second == "deployment.apps/web unchanged\nservice/web unchanged\n"
    _rolled_out(kubectl, namespace)

    pod = _pods(kubectl, namespace)[0]["metadata"]["name"]
    selected = ["-n", namespace, "get", "po", "-l", "app in (web),!x", "--no-headers"]
    watch = kubectl.start(kubectl.kubectl_name, *selected, "-w")
    assert watch.stdout is not None
    seen = {watch.stdout.readline().split()[0] for _ in range(2)}
    assert pod in seen
    kubectl.kubectl("-n", namespace, "label", "po", pod, "x=y")
    assert pod not in kubectl.kubectl(*selected).out
    watch.terminate()
    watch.wait(60)


def test_deleted_namespace_takes_everything_with_it(kubectl: Instance) -> None:
    kubectl.kubectl("create", "ns", "demo")
    kubectl.kubectl("-n", "demo", "create", "deployment", "web", "--image=hello:1", "--replicas=2")
    _rolled_out(kubectl, "demo")
    kubectl.kubectl("delete", "ns", "demo", "--timeout=110s")
    assert kubectl.kubectl("get", "ns", "demo", ok=False).err == (
        'Error from server (NotFound): namespaces "demo" not found\n'
    )
    names = ("ps", "-a", "--format", "{{.Names}}")
    eventually(lambda: "_demo_" not in kubectl.docker(*names).out)


def test_bad_input_is_refused_in_upstreams_words(kubectl: Instance, namespace: str) -> None:
    def refused(manifest: str, *words: str) -> str:
        done = kubectl.kubectl("-n", namespace, *words, "-f", "-", ok=False, stdin=manifest)
        assert done.code != 0
        return done.err

    unknown = WEB.replace("replicas: 2", "replicas: 2\n  nope: 1")
    # kubectl 1.20 looks itself, by the OpenAPI document; later ones leave it to the server.
    told = refused(unknown, "create")
    assert 'strict decoding error: unknown field "spec.nope"' in told or (
        'ValidationError(Deployment.spec): unknown field "nope"' in told
    )
    mistyped = WEB.replace("replicas: 2", "replicas: many")
    assert "cannot unmarshal string into Go struct field" in refused(
        mistyped, "create", "--validate=false"
    )
    mismatch = WEB.replace("matchLabels: {app: web}", "matchLabels: {app: other}")
    assert "`selector` does not match template `labels`" in refused(mismatch, "create")

    missing = kubectl.kubectl("-n", namespace, "get", "pod", "nope", ok=False)
    assert missing.err == 'Error from server (NotFound): pods "nope" not found\n'
    kubectl.kubectl("-n", namespace, "create", "configmap", "c", "--from-literal=a=1")
    again = kubectl.kubectl("-n", namespace, "create", "configmap", "c", ok=False)
    assert 'configmaps "c" already exists' in again.err
    old = kubectl.get("configmap", "c", "-n", namespace)
    kubectl.kubectl("-n", namespace, "label", "configmap", "c", "x=y")
    import json

    stale = kubectl.kubectl("-n", namespace, "replace", "-f", "-", ok=False, stdin=json.dumps(old))
    assert "the object has been modified" in stale.err


def test_missing_image_is_reported_on_the_pod(kubectl: Instance, namespace: str) -> None:
    kubectl.kubectl("-n", namespace, "run", "lost", "--image=127.0.0.1:1/nope:1")
    path = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"

    def reason() -> str:
        return kubectl.kubectl("-n", namespace, "get", "pod", "lost", "-o", path).out

    eventually(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"))


def test_explain_and_api_resources(kubectl: Instance) -> None:
    explained = kubectl.kubectl("explain", "deployment.spec.strategy").out
    assert "rollingUpdate" in explained and "DESCRIPTION" in explained
    resources = kubectl.kubectl("api-resources").out
    for plural in ("deployments", "replicasets", "endpointslices", "leases", "pods"):
        assert plural in resources
    assert "v1.37" in kubectl.kubectl("version").out
