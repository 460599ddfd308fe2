"""helm: a chart with hooks and a definition of its own, from install to uninstall."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver_process import Server

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: web\nversion: 0.1.0\nappVersion: '1.0'\n",
    "values.yaml": "replicas: 1\nmessage: hello\n",
    "crds/gadget.yaml": """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  names: {plural: gadgets, kind: Gadget}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {size: {type: integer}}}}
""",
    "templates/all.yaml": """
apiVersion: v1
kind: ServiceAccount
metadata: {name: {{ .Release.Name }}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}, labels: {app: {{ .Chart.Name }}}}
data: {message: {{ .Values.message | quote }}, revision: "{{ .Release.Revision }}"}
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}}
spec: {selector: {app: {{ .Release.Name }}}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec: {containers: [{name: c, image: nginx}]}
{{- if .Values.extra }}
---
apiVersion: v1
kind: Secret
metadata: {name: {{ .Release.Name }}-extra}
stringData: {k: v}
{{- end }}
---
apiVersion: example.com/v1
kind: Gadget
metadata: {name: {{ .Release.Name }}}
size: 3
""",
    "templates/hooks.yaml": """
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-before
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-delete-policy: before-hook-creation
data: {at: "{{ .Release.Revision }}"}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-test
  annotations: {helm.sh/hook: test}
""",
    "templates/NOTES.txt": "{{ .Release.Name }} says {{ .Values.message }}\n",
}

Helm = Callable[..., str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def program() -> str:
    found = shutil.which("helm") or str(Path(__file__).parents[2] / ".venv/clients/helm")
    if not Path(found).exists():
        pytest.skip("helm is not there")
    return found


@pytest.fixture
def helm(server: Server, program: str, tmp_path: Path) -> Helm:
    for name, text in CHART.items():
        path = tmp_path / "chart" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"))

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [program, *arguments],
            cwd=tmp_path,
            env={**os.environ, "KUBECONFIG": str(server.kubeconfig()), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"helm {arguments}:\n{done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if code else "")

    return run


def message(server: Server, namespace: str) -> Any:
    return server.get("configmap", "web", "-n", namespace)["data"]["message"]


def test_a_release_lives_through_all_that_helm_does(server: Server, helm: Helm) -> None:
    inside = ("-n", "shop")
    assert "kind: Deployment" in helm("template", "web", "chart", *inside)
    out = helm("install", "web", "chart", *inside, "--create-namespace")
    assert "STATUS: deployed" in out and "web says hello" in out
    assert message(server, "shop") == "hello"
    assert server.get("gadget", "web", *inside)["size"] == 3
    assert server.get("configmap", "web-before", *inside)["data"] == {"at": "1"}
    assert (
        server.get("secret", "sh.helm.release.v1.web.v1", *inside)["type"] == "helm.sh/release.v1"
    )
    helm("test", "web", *inside)

    helm("upgrade", "web", "chart", *inside, "--set", "message=bye,replicas=3,extra=true")
    assert message(server, "shop") == "bye"
    assert server.get("deployment", "web", *inside)["spec"]["replicas"] == 3
    assert server.get("configmap", "web-before", *inside)["data"] == {"at": "2"}
    assert server.get("secret", "web-extra", *inside)["data"] == {"k": "dg=="}

    helm("rollback", "web", "1", *inside)
    assert message(server, "shop") == "hello"
    assert server.kubectl("get", "secret", "web-extra", *inside, ok=False).code == 1
    listed = json.loads(helm("list", *inside, "-o", "json"))
    assert [(r["name"], r["revision"], r["status"]) for r in listed] == [("web", "3", "deployed")]
    history = json.loads(helm("history", "web", *inside, "-o", "json"))
    assert [r["status"] for r in history] == ["superseded", "superseded", "deployed"]
    assert "message: hello" in helm("get", "all", "web", *inside)

    helm("uninstall", "web", *inside)
    assert json.loads(helm("list", *inside, "-o", "json")) == []
    assert server.kubectl("get", "deployment", "web", *inside, ok=False).code == 1
    assert server.get("crd", "gadgets.example.com")["spec"]["group"] == "example.com", "it stays"


def test_what_is_already_there_is_not_taken(server: Server, helm: Helm) -> None:
    server.kubectl("create", "configmap", "web")
    out = helm("install", "web", "chart", "--skip-crds", code=1)
    assert "web" in out and ("exists" in out or "conflict" in out or "no matches for kind" in out)


def test_a_dry_run_on_the_server_leaves_nothing(server: Server, helm: Helm) -> None:
    helm("install", "dry", "chart", "--dry-run=server", "--skip-crds")
    assert server.kubectl("get", "deployment", "dry", ok=False).code == 1
