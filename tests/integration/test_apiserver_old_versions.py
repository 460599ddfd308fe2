"""Manifests and clients of the past: old versions of the API are served, told of and converted."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from apiserver_process import Finished, Server

CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"
PROGRAMS = ("kubectl-1.20", "kubectl-1.37")

TUTORIAL = """
apiVersion: extensions/v1beta1
kind: Ingress
metadata:
  name: abc-ingress
  annotations:
    nginx.ingress.kubernetes.io/use-regex: "true"
spec:
  tls:
  - hosts: [api.abc.com]
    secretName: abc-tls
  rules:
  - host: api.abc.com
    http:
      paths:
      - backend: {serviceName: apache-svc, servicePort: 80}
---
apiVersion: networking.k8s.io/v1beta1
kind: Ingress
metadata: {name: kubia}
spec:
  rules:
  - host: kubia.example.com
    http:
      paths:
      - path: /kubia
        backend: {serviceName: kubia, servicePort: 80}
      - path: /foo
        backend: {serviceName: bar, servicePort: http}
---
apiVersion: batch/v1beta1
kind: CronJob
metadata: {name: batch-job-every-fifteen-minutes}
spec:
  schedule: "0,15,30,45 * * * *"
  jobTemplate:
    spec:
      template:
        metadata: {labels: {app: periodic-batch-job}}
        spec:
          restartPolicy: OnFailure
          containers: [{name: main, image: luksa/batch-job}]
---
apiVersion: extensions/v1beta1
kind: Deployment
metadata: {name: old}
spec:
  template:
    metadata: {labels: {app: old}}
    spec: {containers: [{name: c, image: x}]}
---
apiVersion: apps/v1beta1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: x}]}
---
apiVersion: apps/v1beta2
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: ds}}
  template:
    metadata: {labels: {app: ds}}
    spec: {containers: [{name: c, image: x}]}
---
apiVersion: policy/v1beta1
kind: PodDisruptionBudget
metadata: {name: budget}
spec: {minAvailable: 1, selector: {matchLabels: {app: old}}}
---
apiVersion: autoscaling/v2beta1
kind: HorizontalPodAutoscaler
metadata: {name: scaler}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: old}
  maxReplicas: 4
  metrics: [{type: Resource, resource: {name: cpu, targetAverageUtilization: 60}}]
---
apiVersion: rbac.authorization.k8s.io/v1beta1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1beta1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: default, namespace: default}]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.fixture
def namespace(server: Server) -> str:
    name = f"t{time.monotonic_ns()}"
    server.kubectl("create", "namespace", name)
    return name


class Kubectl:
    """One version of kubectl in a namespace of the test's own."""

    def __init__(self, server: Server, program: str, namespace: str) -> None:
        self._server, self._program, self.namespace = server, program, namespace

    def __call__(self, *words: str, ok: bool = True, stdin: str | None = None) -> Finished:
        return self._server.kubectl(
            "-n", self.namespace, *words, ok=ok, stdin=stdin, program=self._program
        )

    def get(self, *words: str) -> Any:
        return json.loads(self("get", *words, "-o", "json").out)


@pytest.fixture(params=PROGRAMS)
def kubectl(request: pytest.FixtureRequest, server: Server, namespace: str) -> Kubectl:
    program = CLIENTS / request.param
    if not program.exists():
        pytest.skip(f"{request.param} is not here")
    return Kubectl(server, str(program), namespace)


class Answer:
    """A raw answer: its code, headers and JSON."""

    def __init__(self, code: int, headers: Message, body: bytes) -> None:
        self.code = code
        self.warnings = headers.get_all("Warning") or []
        self.json: Any = json.loads(body)


@pytest.fixture(scope="module")
def http(server: Server) -> Any:
    """Calls the server as its administrator: method, path, body, media type → Answer."""
    context = ssl.create_default_context(cafile=str(server.authority.certificate))
    context.load_cert_chain(*map(str, server.admin))

    def call(method: str, path: str, body: Any = None, media: str = "application/json") -> Answer:
        request = urllib.request.Request(
            f"https://127.0.0.1:{server.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": media},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, context=context, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())

    return call


# --- kubectl --------------------------------------------------------------------------------------


def test_what_a_tutorial_says_is_applied_unchanged(kubectl: Kubectl) -> None:
    first = kubectl("apply", "-f", "-", stdin=TUTORIAL)
    assert first.out.count(" created\n") == 10
    assert (
        "Warning: extensions/v1beta1 Ingress is deprecated in v1.14+, unavailable in v1.22+; "
        "use networking.k8s.io/v1 Ingress\n"
    ) in first.err
    again = kubectl("apply", "-f", "-", stdin=TUTORIAL)
    assert "deployment.extensions/old unchanged" in again.out
    assert "cronjob.batch/batch-job-every-fifteen-minutes unchanged" in again.out
    ingress = kubectl.get("ingresses.v1.networking.k8s.io", "kubia")
    backends = [p["backend"]["service"] for p in ingress["spec"]["rules"][0]["http"]["paths"]]
    assert backends == [
        {"name": "kubia", "port": {"number": 80}},
        {"name": "bar", "port": {"name": "http"}},
    ]
    assert kubectl.get("deployments.v1.apps", "old")["spec"]["selector"] == {
        "matchLabels": {"app": "old"}
    }
    gone = kubectl("delete", "-f", "-", stdin=TUTORIAL)
    assert gone.out.count("deleted") == 10


def test_a_diff_edit_and_patch_of_an_old_version(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=TUTORIAL)
    changed = TUTORIAL.replace("minAvailable: 1", "minAvailable: 2")
    assert "+  minAvailable: 2" in kubectl("diff", "-f", "-", ok=False, stdin=changed).out
    old = "deployments.v1beta1.extensions/old"
    for kind, patch in (
        ("strategic", '{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"y"}]}}}}'),
        ("merge", '{"spec":{"replicas":3}}'),
        ("json", '[{"op":"add","path":"/spec/rollbackTo","value":{"revision":0}}]'),
    ):
        kubectl("patch", old, "--type", kind, "-p", patch)
    now = kubectl.get("deployments.v1.apps", "old")
    assert now["spec"]["template"]["spec"]["containers"][0]["image"] == "y"
    assert now["spec"]["replicas"] == 3
    assert now["metadata"]["annotations"]["deprecated.deployment.rollback.to"] == "0"
    kubectl("scale", old, "--replicas=5")
    assert kubectl.get(old)["spec"]["replicas"] == 5
    kubectl("replace", "--force", "-f", "-", stdin=TUTORIAL)


def test_old_versions_are_explained(kubectl: Kubectl) -> None:
    versions = kubectl("api-versions").out.split()
    assert {"extensions/v1beta1", "batch/v1beta1", "autoscaling/v2beta1"} <= set(versions)
    shown = kubectl("explain", "ingress", "--api-version=extensions/v1beta1", "--recursive").out
    assert "serviceName" in shown
    assert "defaultBackend" not in shown
    shown = kubectl("explain", "hpa.spec.metrics.pods", "--api-version=autoscaling/v2beta1").out
    assert "targetAverageValue" in shown
    assert "TemplateGeneration".lower() in (
        kubectl("explain", "ds.spec", "--api-version=extensions/v1beta1").out.lower()
    )


def test_old_commands_make_what_they_made(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=x", "--replicas=2")
    kubectl("autoscale", "deployment", "web", "--max=4", "--cpu-percent=55")
    scaler = kubectl.get("horizontalpodautoscalers.v1.autoscaling", "web")
    assert scaler["spec"]["targetCPUUtilizationPercentage"] == 55
    assert "55%" in kubectl("get", "hpa", "web").out
    assert "Name:" in kubectl("describe", "hpa", "web").out
    kubectl("create", "cronjob", "tick", "--image=x", "--schedule=*/5 * * * *", "--", "date")
    assert "*/5 * * * *" in kubectl("get", "cronjob", "tick").out
    assert "Name:" in kubectl("describe", "cronjob", "tick").out
    kubectl("create", "pdb", "p", "--selector=a=b", "--min-available=1")
    assert "Name:" in kubectl("describe", "pdb", "p").out
    everything = kubectl("get", "all").out
    for name in ("deployment.apps/web", "horizontalpodautoscaler.autoscaling/web"):
        assert everything.count(name) == 1, "it is shown in one version"


# --- versions beside each other -----------------------------------------------------------------


def _scaler(version: str, **spec: Any) -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    return {
        "apiVersion": f"autoscaling/{version}",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 3, **spec},
    }


def test_fields_stay_owned_in_the_version_they_were_set_in(http: Any, namespace: str) -> None:
    path = f"/apis/autoscaling/{{}}/namespaces/{namespace}/horizontalpodautoscalers"
    one = _scaler("v1", targetCPUUtilizationPercentage=50)
    apply = "application/apply-patch+yaml"
    made = http("PATCH", f"{path.format('v1')}/h?fieldManager=a", one, apply)
    assert made.code == 201
    (entry,) = made.json["metadata"]["managedFields"]
    assert entry["apiVersion"] == "autoscaling/v1"
    assert "f:targetCPUUtilizationPercentage" in entry["fieldsV1"]["f:spec"]

    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    other = _scaler("v2", metrics=[{"type": "Resource", "resource": cpu}])
    refused = http("PATCH", f"{path.format('v2')}/h?fieldManager=b", other, apply)
    assert refused.code == 409
    (cause,) = refused.json["details"]["causes"]
    assert cause["field"] == ".spec.targetCPUUtilizationPercentage"
    assert cause["message"] == 'conflict with "a"'

    forced = http("PATCH", f"{path.format('v2')}/h?fieldManager=b&force=true", other, apply)
    assert forced.code == 200
    entries = {e["manager"]: e for e in forced.json["metadata"]["managedFields"]}
    assert entries["b"]["apiVersion"] == "autoscaling/v2"
    assert "f:targetCPUUtilizationPercentage" not in entries["a"]["fieldsV1"]["f:spec"]
    shown = http("GET", f"{path.format('v1')}/h")
    assert shown.json["spec"]["targetCPUUtilizationPercentage"] == 70


def test_what_is_no_longer_applied_goes_across_versions(http: Any, namespace: str) -> None:
    path = f"/apis/{{}}/v1beta1/namespaces/{namespace}/ingresses"
    apply = "application/apply-patch+yaml"
    rule = {"host": "a.b", "http": {"paths": [{"backend": {"serviceName": "s", "servicePort": 1}}]}}
    ingress = {
        "apiVersion": "extensions/v1beta1",
        "kind": "Ingress",
        "metadata": {"name": "i"},
        "spec": {"backend": {"serviceName": "s", "servicePort": 1}, "rules": [rule]},
    }
    assert (
        http("PATCH", f"{path.format('extensions')}/i?fieldManager=a", ingress, apply).code == 201
    )
    backend = {"service": {"name": "s", "port": {"number": 1}}}
    paths = [{"backend": backend, "pathType": "ImplementationSpecific"}]
    newer = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "i"},
        "spec": {"rules": [{"host": "a.b", "http": {"paths": paths}}]},
    }
    where = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/i"
    done = http("PATCH", f"{where}?fieldManager=a", newer, apply)
    assert done.code == 200
    assert "defaultBackend" not in done.json["spec"]
    (entry,) = done.json["metadata"]["managedFields"]
    assert entry["apiVersion"] == "networking.k8s.io/v1"


def test_a_list_and_a_watch_speak_the_version_asked_for(
    server: Server, http: Any, namespace: str
) -> None:
    server.kubectl("-n", namespace, "create", "ingress", "i", "--rule=a.b/x=svc:80")
    base = f"/apis/extensions/v1beta1/namespaces/{namespace}/ingresses"
    found = http("GET", base)
    assert found.json["kind"] == "IngressList"
    assert found.json["apiVersion"] == "extensions/v1beta1"
    (item,) = found.json["items"]
    assert item["apiVersion"] == "extensions/v1beta1"
    backend = item["spec"]["rules"][0]["http"]["paths"][0]["backend"]
    assert backend == {"serviceName": "svc", "servicePort": 80}
    watched = http("GET", f"{base}?watch=1&timeoutSeconds=1")
    assert watched.json["type"] == "ADDED"
    assert watched.json["object"]["apiVersion"] == "extensions/v1beta1"
    assert watched.warnings == found.warnings != []
    gone = http("DELETE", base)
    assert [o["apiVersion"] for o in gone.json["items"]] == ["extensions/v1beta1"]


def test_events_have_two_names(http: Any, namespace: str) -> None:
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": namespace},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod", "name": "p", "namespace": namespace},
        "reportingController": "a.b/c",
        "reportingInstance": "c-1",
        "action": "Done",
        "reason": "Tested",
        "type": "Normal",
        "note": "hello",
    }
    base = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    made = http("POST", base, event)
    assert (made.code, made.warnings) == (201, [])
    core = http("GET", f"/api/v1/namespaces/{namespace}/events/e").json
    assert (core["involvedObject"]["name"], core["message"]) == ("p", "hello")
    assert len(http("GET", f"{base}?fieldSelector=regarding.name%3Dp").json["items"]) == 1
    assert http("GET", f"{base}?fieldSelector=regarding.name%3Dq").json["items"] == []
    refused = http("GET", f"{base}?fieldSelector=involvedObject.name%3Dp")
    assert refused.code == 400
    missing = http("GET", f"{base}/none")
    assert missing.json["message"] == 'events.events.k8s.io "none" not found'


def test_the_scale_of_an_old_version(http: Any, namespace: str) -> None:
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    base = f"/apis/apps/v1beta1/namespaces/{namespace}/deployments"
    o = {"apiVersion": "apps/v1beta1", "kind": "Deployment", "metadata": {"name": "d"}}
    assert http("POST", base, {**o, "spec": {"template": template}}).code == 201
    scale = http("GET", f"{base}/d/scale").json
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "apps/v1beta1")
    assert scale["status"] == {"replicas": 0, "selector": {"a": "b"}, "targetSelector": "a=b"}
    scale["spec"]["replicas"] = 7
    assert http("PUT", f"{base}/d/scale", scale).json["spec"] == {"replicas": 7}
    patch = {"spec": {"replicas": 8}}
    media = "application/merge-patch+json"
    assert http("PATCH", f"{base}/d/scale", patch, media).json["spec"] == {"replicas": 8}
    wrong = http("PUT", f"{base}/d/scale", {**scale, "apiVersion": "autoscaling/v1"})
    assert wrong.code == 400


def test_what_an_old_version_owned_stays_when_it_is_deleted(http: Any, namespace: str) -> None:
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    base = f"/apis/extensions/v1beta1/namespaces/{namespace}/deployments"
    o = {"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "d"}}
    http("POST", base, {**o, "spec": {"template": template}})
    gone = http("DELETE", f"{base}/d")
    assert gone.json["metadata"]["finalizers"] == ["orphan"]


# --- faults and warnings ------------------------------------------------------------------------


def test_faults_are_told_in_the_words_of_the_version(http: Any, namespace: str) -> None:
    o = {"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "i"}}
    base = f"/apis/extensions/v1beta1/namespaces/{namespace}/ingresses"
    o["spec"] = {"backend": {"serviceName": "UPPER", "servicePort": 70000}}  # type: ignore[assignment]
    refused = http("POST", base, o)
    assert refused.code == 422
    fields = [cause["field"] for cause in refused.json["details"]["causes"]]
    assert fields == ["spec.backend.serviceName", "spec.backend.servicePort"]
    unknown = http("POST", f"{base}?fieldValidation=Strict", {**o, "spec": {"defaultBackend": {}}})
    assert unknown.code == 400
    assert unknown.json["message"] == (
        'Ingress in version "v1beta1" cannot be handled as a Ingress: strict decoding error: '
        'unknown field "spec.defaultBackend"'
    )
    assert unknown.warnings, "an error carries the warnings, too"
    missing = http("GET", f"{base}/none")
    assert missing.json["message"] == 'ingresses.extensions "none" not found'
    assert missing.json["details"]["group"] == "extensions"
    other = http("POST", base, {**o, "apiVersion": "networking.k8s.io/v1"})
    assert other.code == 400


def test_warnings_come_in_headers(http: Any, namespace: str) -> None:
    endpoints = http("GET", f"/api/v1/namespaces/{namespace}/endpoints")
    assert endpoints.warnings == [
        '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'
    ]
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "containers": [{"name": "c", "image": "x"}],
        },
    }
    o = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "dotted.name"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, "unknown": 1},
    }
    base = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    made = http("POST", base, o)
    assert made.code == 201
    assert made.warnings == [
        '299 - "unknown field \\"spec.unknown\\""',
        '299 - "metadata.name: this is used in Pod names and hostnames, which can result in '
        'surprising behavior; a DNS label is recommended: [must not contain dots]"',
        '299 - "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; '
        'use \\"kubernetes.io/os\\" instead"',
    ]
    again = http("PUT", f"{base}/dotted.name", made.json)
    assert again.warnings == [], "what did not change was told of before"
    o["spec"]["many"] = 1  # type: ignore[index]
    o["spec"]["template"]["spec"] |= {f"x{i}" * 60: 1 for i in range(200)}  # type: ignore[index]
    many = http("POST", base, {**o, "metadata": {"name": "b"}})
    assert many.code == 201
    assert sum(len(each) for each in many.warnings) < 8192


def test_a_job_deleted_without_a_word_leaves_its_pods(http: Any, namespace: str) -> None:
    base = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    spec = {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never"}
    o = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": spec}}}
    for name, query, finalizers, told in (
        ("a", "", ["orphan"], 1),
        ("b", "?propagationPolicy=Foreground", ["foregroundDeletion"], 0),
    ):
        http("POST", base, {**o, "metadata": {"name": name}})
        gone = http("DELETE", f"{base}/{name}{query}")
        assert gone.json["metadata"]["finalizers"] == finalizers
        assert len(gone.warnings) == told
