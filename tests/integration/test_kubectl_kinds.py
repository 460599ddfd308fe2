"""The kinds beyond pods and Deployments, as kubectl makes, shows, changes and deletes them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiserver_process import Finished, Server

CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"

CREATED = {
    "job/j": "create job j --image=busybox -- true",
    "cronjob/cj": "create cronjob cj --image=busybox --schedule=*/5~*~*~*~* -- true",
    "ingress/web": "create ingress web --rule=a.com/*=svc:80",
    "pdb/p": "create pdb p --selector=a=b --min-available=1",
    "quota/q": "create quota q --hard=pods=3,services=2",
    "role/r": "create role r --verb=get --resource=pods",
    "rolebinding/rb": "create rolebinding rb --role=r --user=jane",
    "clusterrole/CLUSTER": "create clusterrole CLUSTER --verb=get,list --resource=pods",
    "clusterrolebinding/CLUSTER": "create clusterrolebinding CLUSTER --clusterrole=view --group=g",
    "priorityclass/CLUSTER": "create priorityclass CLUSTER --value=10",
}

APPLIED = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: x}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ds}
spec:
  selector: {matchLabels: {app: ds}}
  template:
    metadata: {labels: {app: ds}}
    spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: np}
spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}
---
apiVersion: v1
kind: LimitRange
metadata: {name: lr}
spec: {limits: [{type: Container, max: {cpu: "1"}}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: hpa}
spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: db}}
"""
NAMES = ("sts/db", "ds/ds", "pvc/c", "netpol/np", "limits/lr", "hpa/hpa")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


class Kubectl:
    """One version of kubectl in a namespace of the test's own."""

    def __init__(self, server: Server, program: str) -> None:
        self.server, self.program = server, program
        self.namespace = f"t{time.monotonic_ns()}"
        server.kubectl("create", "namespace", self.namespace)

    def __call__(self, line: str, *, ok: bool = True, stdin: str | None = None) -> Finished:
        words = [word.replace("~", " ") for word in line.replace("CLUSTER", self.namespace).split()]
        return self.server.kubectl(
            "-n", self.namespace, *words, ok=ok, stdin=stdin, program=self.program
        )


PROGRAMS = (shutil.which("kubectl"), str(CLIENTS / "kubectl-1.20"), str(CLIENTS / "kubectl-1.37"))


@pytest.fixture(params=PROGRAMS, ids=("installed", "1.20", "1.37"))
def kubectl(request: pytest.FixtureRequest, server: Server) -> Kubectl:
    program = request.param
    if program is None or not Path(program).exists():
        pytest.skip("this kubectl is not on this machine")
    return Kubectl(server, program)


def test_what_kubectl_creates_it_shows_and_describes(kubectl: Kubectl) -> None:
    for name, line in CREATED.items():
        if kubectl("create --help").out.count(line.split()[1]) == 0:
            continue  # an older kubectl knows fewer
        kubectl(line)
        assert (
            name.partition("/")[2].replace("CLUSTER", kubectl.namespace)
            in kubectl(f"get {name} -o wide").out
        )
        assert "Name:" in kubectl(f"describe {name}").out
        kubectl(f"delete {name}")


def test_what_is_applied_can_be_applied_again_scaled_and_rolled_out(kubectl: Kubectl) -> None:
    kubectl("apply -f -", stdin=APPLIED)
    kubectl("apply -f -", stdin=APPLIED)
    kubectl("apply --server-side --force-conflicts -f -", stdin=APPLIED)
    assert kubectl("diff -f -", stdin=APPLIED).out == ""
    kubectl("scale sts/db --replicas=3")
    assert kubectl("get sts/db -o jsonpath={.spec.replicas}").out == "3"
    kubectl("rollout restart sts/db ds/ds")
    kubectl("set image sts/db c=y")
    for name in NAMES:
        assert "Name:" in kubectl(f"describe {name}").out
    # No controller runs here that would let go of a claim that nobody uses.
    kubectl(f"delete --wait=false {' '.join(NAMES)}")


def test_an_immutable_field_is_told_as_upstream_tells_it(kubectl: Kubectl) -> None:
    kubectl("apply -f -", stdin=APPLIED)
    told = kubectl('patch ds/ds -p {"spec":{"selector":{"matchLabels":{"app":"other"}}}}', ok=False)
    assert 'The DaemonSet "ds" is invalid' in told.err
    assert "spec.selector: Invalid value" in told.err and "field is immutable" in told.err


@pytest.mark.parametrize(
    "path",
    ["statefulset.spec.updateStrategy", "job.spec", "ingress.spec.rules", "pvc.spec.resources"],
)
def test_fields_are_explained(kubectl: Kubectl, path: str) -> None:
    told = kubectl(f"explain {path}").out
    assert "DESCRIPTION" in told and "FIELDS" in told


def test_the_cluster_has_its_defaults(kubectl: Kubectl) -> None:
    assert "2000001000" in kubectl("get priorityclass system-node-critical").out
    schemas = kubectl("get flowschemas").out
    assert all(name in schemas for name in ("exempt", "catch-all", "system-nodes"))
    assert "10.96.0.0/" in kubectl("get servicecidr kubernetes").out
