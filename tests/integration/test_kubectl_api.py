"""The API server alone, driven by the real kubectl over TLS."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from apiserver_process import Finished, Server

CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"

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
      - {name: c, image: busybox, ports: [{containerPort: 80}], env: [{name: A, value: "1"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.fixture(params=["kubectl", "kubectl-1.37"])
def kubectl(request: pytest.FixtureRequest, server: Server) -> Iterator[Kubectl]:
    program = shutil.which(request.param) or str(CLIENTS / request.param)
    if not Path(program).exists():
        pytest.skip(f"{request.param} is not on this machine")
    client = Kubectl(server, program, f"t{time.monotonic_ns()}")
    server.kubectl("create", "namespace", client.namespace)
    client("create", "serviceaccount", "default")
    yield client


class Kubectl:
    """One version of kubectl in a namespace of the test's own."""

    def __init__(self, server: Server, program: str, namespace: str) -> None:
        self.server = server
        self.program = program
        self.namespace = namespace

    def __call__(self, *arguments: str, ok: bool = True, stdin: str | None = None) -> str:
        return self.run(*arguments, ok=ok, stdin=stdin).out

    def run(self, *arguments: str, ok: bool = True, stdin: str | None = None) -> Finished:
        return self.server.kubectl(
            "-n", self.namespace, *arguments, ok=ok, stdin=stdin, program=self.program
        )

    def refused(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.run(*arguments, ok=False, stdin=stdin)
        assert done.code != 0
        return done.err.strip()

    def get(self, *arguments: str):  # type: ignore[no-untyped-def]
        return json.loads(self("get", *arguments, "-o", "json"))

    def follow(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                self.program,
                f"--kubeconfig={self.server.kubeconfig()}",
                "-n",
                self.namespace,
                *arguments,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )


def test_version_and_discovery(kubectl: Kubectl) -> None:
    assert "Server Version: v1." in kubectl("version")
    resources = kubectl("api-resources", "--no-headers")
    for line in ("deployments", "endpointslices", "po ", "svc "):
        assert line in resources
    versions = kubectl("api-versions").split()
    assert versions == sorted(versions)
    assert {"apps/v1", "batch/v1", "networking.k8s.io/v1", "v1"} <= set(versions)
    assert "https://127.0.0.1" in kubectl("cluster-info")
    for check in ("/healthz", "/livez", "/readyz"):
        assert kubectl("get", "--raw", check) == "ok"
    assert "[+]etcd ok" in kubectl("get", "--raw", "/readyz?verbose")


def test_imperative_commands_create(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=hello:1", "--replicas=3")
    assert kubectl.get("deploy", "web")["spec"]["replicas"] == 3
    kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
    service = kubectl.get("svc", "web")
    assert service["spec"]["ports"][0]["targetPort"] == 8080
    assert service["spec"]["selector"] == {"app": "web"}
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
    assert kubectl.get("secret", "s")["data"] == {"a": "Yg=="}
    kubectl("run", "p", "--image=busybox", "--restart=Never", "--", "sleep", "1")
    assert kubectl.get("pod", "p")["spec"]["containers"][0]["args"] == ["sleep", "1"]
    kubectl("scale", "deploy", "web", "--replicas=0")
    assert kubectl.get("deploy", "web")["spec"]["replicas"] == 0
    kubectl("set", "image", "deploy/web", "hello=hello:2")
    template = kubectl.get("deploy", "web")["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "hello:2"


def test_apply_is_repeatable_and_removes_what_went(kubectl: Kubectl) -> None:
    assert "created" in kubectl("apply", "-f", "-", stdin=WEB)
    again = kubectl("apply", "-f", "-", stdin=WEB)
    assert again.count("unchanged") == 2
    changed = WEB.replace(', env: [{name: A, value: "1"}]', "").replace(
        "replicas: 2", "replicas: 4"
    )
    assert kubectl.run("diff", "-f", "-", stdin=changed, ok=False).code == 1
    assert "deployment.apps/web configured" in kubectl("apply", "-f", "-", stdin=changed)
    spec = kubectl.get("deploy", "web")["spec"]
    assert spec["replicas"] == 4 and "env" not in spec["template"]["spec"]["containers"][0]
    assert kubectl.run("diff", "-f", "-", stdin=changed).out == ""


def test_server_side_apply(kubectl: Kubectl) -> None:
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", stdin=WEB)
    version = kubectl.get("deploy", "web")["metadata"]["resourceVersion"]
    kubectl("apply", "--server-side", "-f", "-", stdin=WEB)
    assert kubectl.get("deploy", "web")["metadata"]["resourceVersion"] == version
    kubectl("scale", "deploy", "web", "--replicas=5")
    message = kubectl.refused("apply", "--server-side", "-f", "-", stdin=WEB)
    assert "Apply failed with 1 conflict" in message and ".spec.replicas" in message
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=WEB)
    assert kubectl.get("deploy", "web")["spec"]["replicas"] == 2


def test_tables_and_selectors(kubectl: Kubectl) -> None:
    for name in ("a", "b"):
        kubectl("run", name, "--image=busybox", f"--labels=app={name}")
    lines = kubectl("get", "po").splitlines()
    assert lines[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert lines[1].split()[:4] == ["a", "0/1", "Pending", "0"]
    assert "NOMINATED NODE" in kubectl("get", "po", "-o", "wide")
    assert kubectl("get", "po", "-l", "app in (a),!x", "-o", "name") == "pod/a\n"
    assert kubectl("get", "po", "--field-selector=metadata.name=b", "-o", "name") == "pod/b\n"
    kubectl("label", "po", "a", "x=y")
    assert kubectl("get", "po", "-l", "app in (a),!x", "-o", "name") == ""
    assert kubectl("get", "po", "-L", "x", "--no-headers", "a").split()[-1] == "y"
    assert "QoS Class" in kubectl("describe", "pod", "a")
    found = yaml.safe_load(kubectl("get", "po", "a", "-o", "yaml"))
    assert found["kind"] == "Pod" and "managedFields" not in found["metadata"]


def test_patches_of_every_type(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    kubectl("patch", "cm", "c", "-p", '{"data":{"b":"2"}}')
    kubectl("patch", "cm", "c", "--type=merge", "-p", '{"data":{"a":null}}')
    kubectl("patch", "cm", "c", "--type=json", "-p", '[{"op":"add","path":"/data/z","value":"3"}]')
    assert kubectl.get("cm", "c")["data"] == {"b": "2", "z": "3"}
    kubectl("annotate", "cm", "c", "note=x")
    kubectl("annotate", "cm", "c", "note-")
    assert "annotations" not in kubectl.get("cm", "c")["metadata"]


def test_replace_and_edit(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    o = kubectl.get("cm", "c")
    o["data"] = {"a": "2"}
    kubectl("replace", "-f", "-", stdin=json.dumps(o))
    stale = kubectl.refused("replace", "-f", "-", stdin=json.dumps(o))
    assert "the object has been modified; please apply your changes to the latest" in stale
    uid = o["metadata"]["uid"]
    del o["metadata"]["resourceVersion"], o["metadata"]["uid"]
    kubectl("replace", "--force", "-f", "-", stdin=json.dumps(o))
    assert kubectl.get("cm", "c")["metadata"]["uid"] != uid


def test_watching(kubectl: Kubectl) -> None:
    watcher = kubectl.follow("get", "cm", "-w", "-l", "seen=yes", "-o", "name")
    try:
        kubectl("create", "configmap", "other")
        kubectl("create", "configmap", "c")
        kubectl("label", "cm", "c", "seen=yes")
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "configmap/c\n"
        kubectl("delete", "cm", "c")
        assert watcher.stdout.readline() == "configmap/c\n"
    finally:
        watcher.send_signal(signal.SIGINT)
        watcher.wait()
    kubectl("create", "configmap", "w")
    waiting = kubectl.follow("wait", "--for=jsonpath={.data.a}=b", "cm/w", "--timeout=60s")
    kubectl("patch", "cm", "w", "-p", '{"data":{"a":"b"}}')
    assert waiting.wait(timeout=90) == 0


def test_explain(kubectl: Kubectl) -> None:
    text = kubectl("explain", "deployment.spec.replicas")
    assert "FIELD: replicas <integer>" in text and "Number of desired pods" in text
    assert "livenessProbe" in kubectl("explain", "pod.spec", "--recursive")


def test_faults_are_told_as_upstream_tells_them(kubectl: Kubectl) -> None:
    wrong = WEB.replace("  replicas: 2\n", "  replicas: 2\n  foo: 1\n").split("---")[0]
    assert (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
        'unknown field "spec.foo"'
    ) in kubectl.refused("apply", "-f", "-", stdin=wrong)
    mistyped = WEB.replace("replicas: 2", "replicas: two").split("---")[0]
    assert (
        "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    ) in kubectl.refused("apply", "-f", "-", stdin=mistyped)
    assert kubectl.refused("get", "pod", "nix") == (
        'Error from server (NotFound): pods "nix" not found'
    )
    kubectl("create", "configmap", "c")
    assert kubectl.refused("create", "configmap", "c") == (
        'error: failed to create configmap: configmaps "c" already exists'
    )
    assert kubectl.refused("delete", "ns", "default").endswith(
        'Error from server (Forbidden): namespaces "default" is forbidden: '
        "this namespace may not be deleted"
    )
    assert "doesn't have a resource type" in kubectl.refused("get", "unicorns")
    warned = kubectl.run("apply", "--validate=warn", "-f", "-", stdin=wrong)
    assert 'unknown field "spec.foo"' in warned.err


def test_dry_runs_leave_nothing(kubectl: Kubectl) -> None:
    made = kubectl("create", "configmap", "c", "--dry-run=server", "-o", "json")
    assert json.loads(made)["metadata"]["uid"]
    assert kubectl("get", "cm", "-o", "name") == ""


def test_deleting(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=hello:1")
    kubectl("delete", "deploy", "web", "--cascade=foreground", "--wait=false")
    assert kubectl.get("deploy", "web")["metadata"]["finalizers"] == ["foregroundDeletion"]
    for name in ("a", "b"):
        kubectl("create", "configmap", name)
    kubectl("delete", "cm", "--all")
    assert kubectl("get", "cm", "-o", "name") == ""
    assert kubectl.run("delete", "cm", "a", "--ignore-not-found").code == 0


def test_large_lists_come_in_pages(kubectl: Kubectl) -> None:
    items = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{n:03}"}}
        for n in range(120)
    ]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl("create", "-f", "-", stdin=manifest)
    assert len(kubectl("get", "cm", "--chunk-size=50", "-o", "name").splitlines()) == 120


def test_a_stranger_is_refused_and_told_what(server: Server) -> None:
    bob = server.kubeconfig("bob")
    done = server.kubectl("get", "pods", ok=False, kubeconfig=bob)
    assert done.err.strip() == (
        'Error from server (Forbidden): pods is forbidden: User "bob" cannot list resource "pods" '
        'in API group "" in the namespace "default"'
    )
    done = server.kubectl("get", "pods", "--as=bob", ok=False)
    assert 'User "bob" cannot list resource "pods"' in done.err
    done = server.kubectl("get", "pods", "--as=root", ok=False, kubeconfig=bob)
    assert 'User "bob" cannot impersonate resource "users"' in done.err
