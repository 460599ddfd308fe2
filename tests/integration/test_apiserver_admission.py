"""Admission as kubectl meets it: quotas, limit ranges, Pod Security labels; and what many writers
at once make of a quota. The controllers run here, on the network."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver_process import SOURCE, Server

CONTROLLERS = """
import asyncio, sys
from wherry.kube.client.client import Client
from wherry.kube.client.https import HTTPSTransport
from wherry.kube.controllers import Options, run_controllers
server, ca, cert, key = sys.argv[1:]
client = Client(HTTPSTransport(server, ca=ca, cert=cert, key=key))
enabled = (
    "resourcequota-controller",
    "serviceaccount-controller",
    "namespace-controller",
    "persistentvolumeclaim-protection-controller",
    "persistentvolume-protection-controller",
)
asyncio.run(run_controllers(client, Options(enabled=enabled)))
"""

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec: {{containers: [{{name: c, image: busybox, resources: {{requests: {{cpu: {cpu}}}}}}}]}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    argv = [sys.executable, "-c", CONTROLLERS, f"https://127.0.0.1:{running.port}"]
    argv += [str(running.authority.certificate), *map(str, running.admin)]
    with (running.directory / "controllers.log").open("w") as log:
        controllers = subprocess.Popen(argv, env={"PYTHONPATH": str(SOURCE)}, stderr=log)
    yield running
    controllers.kill()
    controllers.wait()
    assert running.stop() == 0
    assert "Traceback" not in running.log


class Namespace:
    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name

    def __call__(self, *arguments: str, ok: bool = True, stdin: str | None = None) -> Any:
        return self.server.kubectl("-n", self.name, *arguments, ok=ok, stdin=stdin)

    def pod(self, name: str, cpu: str = "100m", ok: bool = True) -> Any:
        return self("apply", "-f", "-", stdin=POD.format(name=name, cpu=cpu), ok=ok)

    def until(self, check: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not check():
            assert time.monotonic() < end, (self.server.directory / "controllers.log").read_text()
            time.sleep(0.05)

    def used(self, quota: str) -> dict[str, str]:
        found = json.loads(self("get", "quota", quota, "-o", "json").out)
        used: dict[str, str] = (found.get("status") or {}).get("used") or {}
        return used


@pytest.fixture
def space(server: Server) -> Namespace:
    name = f"t{time.monotonic_ns()}"
    server.kubectl("create", "namespace", name)
    made = Namespace(server, name)
    made.until(lambda: made("get", "serviceaccount", "default", ok=False).code == 0)
    return made


def test_a_quota_is_counted_enforced_and_given_back(space: Namespace) -> None:
    space.pod("first")
    space("create", "quota", "q", "--hard=pods=2,requests.cpu=1,count/configmaps=5")
    space.until(lambda: space.used("q").get("pods") == "1")
    space.pod("second", "300m")
    described = space("describe", "quota", "q").out
    assert [line.split() for line in described.splitlines()[-3:]] == [
        ["count/configmaps", "0", "5"],
        ["pods", "2", "2"],
        ["requests.cpu", "400m", "1"],
    ]
    refused = space.pod("third", ok=False)
    assert (
        'pods "third" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, '
        "limited: pods=2"
    ) in refused.err
    space("delete", "pod", "second", "--force")
    space.until(lambda: space.used("q")["requests.cpu"] == "100m")
    space.pod("third", "900m")
    assert "requests.cpu" in space("describe", "namespace", space.name).out
    space.until(lambda: "reserved" not in space("get", "quota", "q", "-o", "yaml").out)


def test_a_quota_may_be_about_some_pods_only(space: Namespace) -> None:
    space("create", "quota", "q", "--hard=pods=0", "--scopes=BestEffort")
    space.until(lambda: space.used("q") == {"pods": "0"})
    space.pod("burstable")
    refused = space("run", "effort", "--image=busybox", ok=False)
    assert "exceeded quota: q" in refused.err


def test_a_limit_range_gives_defaults_and_bounds(space: Namespace) -> None:
    limit = {"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}}
    body = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "l"},
        "spec": {"limits": [limit]},
    }
    space("apply", "-f", "-", stdin=json.dumps(body))
    space.pod("small")
    found = json.loads(space("get", "pod", "small", "-o", "json").out)
    assert found["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "500m"},
        "requests": {"cpu": "100m"},
    }
    asked = "--overrides=" + json.dumps(
        {
            "spec": {
                "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}]
            }
        }
    )
    refused = space("run", "large", "--image=i", asked, ok=False)
    assert (
        'pods "large" is forbidden: maximum cpu usage per Container is 1, but limit is 2'
        in refused.err
    )
    described = space("describe", "namespace", space.name).out
    assert "Container" in described
    assert "500m" in described


def test_labels_of_a_namespace_hold_its_pods_to_a_standard(space: Namespace) -> None:
    space.pod("before")
    warned = space.server.kubectl(
        "label", "namespace", space.name, "pod-security.kubernetes.io/enforce=restricted"
    )
    assert (
        f'Warning: existing pods in namespace "{space.name}" violate the new PodSecurity enforce '
        'level "restricted:latest"'
    ) in warned.err
    refused = space("run", "after", "--image=busybox", ok=False)
    assert (
        'pods "after" is forbidden: violates PodSecurity "restricted:latest": '
        'allowPrivilegeEscalation != false (container "after" must set '
        "securityContext.allowPrivilegeEscalation=false)"
    ) in refused.err
    space.server.kubectl(
        *("label", "namespace", space.name, "--overwrite"),
        "pod-security.kubernetes.io/enforce=baseline",
        "pod-security.kubernetes.io/warn=restricted",
    )
    told = space("create", "deployment", "web", "--image=busybox")
    assert 'Warning: would violate PodSecurity "restricted:latest"' in told.err
    label = "pod-security.kubernetes.io/enforce=strict"
    wrong = space.server.kubectl("label", "ns", space.name, "--overwrite", label, ok=False)
    assert "must be one of privileged, baseline, restricted" in wrong.err


def test_a_claim_goes_when_no_pod_uses_it(space: Namespace) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    space("apply", "-f", "-", stdin=json.dumps(claim))
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    container = {"name": "c", "image": "i"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "user"},
        "spec": {"nodeName": "n1", "containers": [container], "volumes": [volume]},
    }
    space("apply", "-f", "-", stdin=json.dumps(pod))
    space("delete", "pvc", "data", "--wait=false")
    assert "Terminating" in space("get", "pvc", "data").out
    space("delete", "pod", "user", "--force")
    space("wait", "--for=delete", "pvc/data")


def test_many_writers_never_exceed_a_quota(space: Namespace) -> None:
    """Sixteen of them create and delete as fast as they can, while the controller counts."""
    from wherry.kube.api.errors import StatusError
    from wherry.kube.api.resources import PODS
    from wherry.kube.client.client import Client
    from wherry.kube.client.https import HTTPSTransport

    space("create", "quota", "q", "--hard=pods=5")
    space.until(lambda: space.used("q") == {"pods": "0"})
    server = space.server
    certificate, key = server.admin
    held: set[str] = set()
    most = 0

    async def watch(client: Client) -> None:
        nonlocal most
        async for type, pod in client.watch(PODS, space.name):
            if type == "DELETED":
                held.discard(pod["metadata"]["name"])
            elif type == "ADDED":
                held.add(pod["metadata"]["name"])
                most = max(most, len(held))

    async def write(client: Client, number: int) -> int:
        made = 0
        for turn in range(15):
            name = f"p{number}-{turn}"
            container = {"name": "c", "image": "i"}
            body = {"metadata": {"name": name, "namespace": space.name}}
            try:
                await client.create(PODS, {**body, "spec": {"containers": [container]}})
                made += 1
            except StatusError as error:
                assert "exceeded quota" in error.message, error
                await asyncio.sleep(0.05)
            else:
                await client.delete(PODS, name, space.name, grace=0)
        return made

    async def main() -> int:
        transport = HTTPSTransport(
            f"https://127.0.0.1:{server.port}",
            ca=server.authority.certificate,
            cert=certificate,
            key=key,
        )
        client = Client(transport)
        watching = asyncio.ensure_future(watch(client))
        try:
            return sum(await asyncio.gather(*(write(client, n) for n in range(16))))
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            await client.close()

    made = asyncio.run(main())
    assert made > 5
    assert 0 < most <= 5
    space.until(lambda: space.used("q") == {"pods": "0"})


CONFIGURATION = """
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline, warn: restricted}
    exemptions: {namespaces: [kube-system]}
"""


def test_plugins_are_chosen_and_configured_by_options(tmp_path: Path) -> None:
    file = tmp_path / "admission.yaml"
    file.write_text(CONFIGURATION)
    options = ["--admission-control-config-file", str(file)]
    options += ["--enable-admission-plugins=AlwaysPullImages,NamespaceAutoProvision"]
    options += ["--disable-admission-plugins=ServiceAccount"]
    server = Server(tmp_path, "sqlite", *options).start()
    try:
        created = server.kubectl("-n", "fresh", "run", "web", "--image=busybox")
        assert 'Warning: would violate PodSecurity "restricted:latest"' in created.err
        pod = server.get("-n", "fresh", "pod", "web")
        assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"
        host = '--overrides={"spec":{"hostPID":true}}'
        refused = server.kubectl("run", "host", "--image=busybox", host, ok=False)
        assert 'violates PodSecurity "baseline:latest": host namespaces (hostPID)' in refused.err
        server.kubectl("-n", "kube-system", "run", "host", "--image=busybox", host)
    finally:
        assert server.stop() == 0
    wrong = Server(tmp_path / "other", "sqlite", "--enable-admission-plugins=Magic")
    with pytest.raises(AssertionError):
        wrong.start()
    assert 'enable-admission-plugins plugin "Magic" is unknown' in wrong.log
    assert "Traceback" not in wrong.log
