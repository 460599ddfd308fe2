"""The scheduler's configuration, plugins and controllers of the user's own, and storage that is
made where the pod goes: on an instance of its own."""

from __future__ import annotations

import json
import textwrap
import time

import pytest

PLUGIN = """
from wherry.kube.scheduler.framework import Filter, reject

class OnlyColor(Filter):
    name = "OnlyColor"

    def filter(self, cycle, pod, node):
        if node.labels.get("color") == self.arguments["color"]:
            return None
        return reject(f"node(s) were not {self.arguments['color']}")
"""

CONFIGURATION = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- schedulerName: default-scheduler
- schedulerName: picky
  plugins:
    filter: {enabled: [{name: "plugin.py:OnlyColor"}]}
  pluginConfig:
  - name: "plugin.py:OnlyColor"
    args: {color: blue}
"""

CONTROLLER = """
from wherry.kube.api import meta
from wherry.kube.api.resources import CONFIG_MAPS
from wherry.kube.controllers.base import Controller, split_key

class Stamper(Controller):
    name = "stamper"

    def __init__(self, context):
        super().__init__(context)
        self.maps = self.watch(CONFIG_MAPS)
        self.maps.add_handlers(on_add=self.enqueue, on_update=self.enqueue_update)

    async def sync(self, key):
        found = self.maps.get(*split_key(key))
        if found is None or meta.annotations(found).get("stamp") != "wanted":
            return
        patch = {"metadata": {"annotations": {"stamp": "done"}}}
        name, namespace = meta.name(found), meta.namespace(found)
        await self.seen(CONFIG_MAPS, await self.client.patch(CONFIG_MAPS, name, patch, namespace))
"""

CONTROLLERS = """
apiVersion: wherry.io/v1
kind: ControllerConfiguration
own: ["stamper.py:Stamper"]
"""


@pytest.fixture(scope="module")
def configured(new_instance, tmp_path_factory):
    """An instance with a plugin and a controller of its user's."""
    place = tmp_path_factory.mktemp("own")
    (place / "plugin.py").write_text(PLUGIN)
    (place / "scheduler.yaml").write_text(CONFIGURATION)
    (place / "stamper.py").write_text(CONTROLLER)
    (place / "controllers.yaml").write_text(CONTROLLERS)
    instance = new_instance()
    instance.wherry(
        *("up", "--scheduler-config", str(place / "scheduler.yaml")),
        *("--controller-arg", f"config={place / 'controllers.yaml'}"),
    )
    # (A controller takes it away when it hears that the node is ready.)
    until(lambda: not instance.get("nodes")["items"][0]["spec"].get("taints"))
    yield instance
    instance.wherry("down", "--purge")


def apply(instance, text: str) -> None:
    instance.kubectl("apply", "-f", "-", stdin=textwrap.dedent(text))


def until(condition, seconds: float = 60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.1)
    return found


def scheduled(instance, name: str) -> dict:
    """The pod's condition PodScheduled."""
    status = instance.get("pod", name).get("status", {})
    return next((c for c in status.get("conditions", ()) if c["type"] == "PodScheduled"), {})


def test_a_plugin_of_ones_own_decides_for_its_profile(configured):
    apply(
        configured,
        """
        apiVersion: v1
        kind: Pod
        metadata: {name: picky}
        spec:
          schedulerName: picky
          containers: [{name: c, image: "wherry.io/busybox:1", command: [sleep, "60"]}]
          terminationGracePeriodSeconds: 0
        """,
    )
    condition = until(lambda: (c := scheduled(configured, "picky")) and c)
    assert condition["reason"] == "Unschedulable"
    assert condition["message"].startswith("0/1 nodes are available: 1 node(s) were not blue. ")
    described = until(
        lambda: (
            (text := configured.kubectl("describe", "pod", "picky").out)
            and "FailedScheduling" in text
            and text
        )
    )
    assert "picky" in described  # the component that said it
    configured.kubectl("label", "node", "--all", "color=blue")
    configured.kubectl("wait", "--for=condition=Ready", "pod/picky")


def test_a_controller_of_ones_own_runs_beside_the_others(configured):
    rights = ("--verb=patch", "--resource=configmaps")
    configured.kubectl("create", "clusterrole", "stamper", *rights)
    account = "--serviceaccount=kube-system:stamper"
    configured.kubectl("create", "clusterrolebinding", "stamper", "--clusterrole=stamper", account)
    configured.kubectl("create", "configmap", "letter")
    configured.kubectl("annotate", "configmap", "letter", "stamp=wanted")
    until(
        lambda: configured.get("configmap", "letter")["metadata"]["annotations"]["stamp"] == "done"
    )


def test_a_claim_of_the_default_class_gets_a_volume_where_its_pod_goes(configured):
    apply(
        configured,
        """
        apiVersion: v1
        kind: PersistentVolumeClaim
        metadata: {name: data}
        spec:
          accessModes: [ReadWriteOnce]
          resources: {requests: {storage: 1Gi}}
        ---
        apiVersion: v1
        kind: Pod
        metadata: {name: writer}
        spec:
          restartPolicy: Never
          containers:
          - name: c
            image: "wherry.io/busybox:1"
            command: [sh, -c, "echo kept > /data/file"]
            volumeMounts: [{name: data, mountPath: /data}]
          volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
        """,
    )
    until(lambda: configured.get("pod", "writer")["status"].get("phase") == "Succeeded", 60)
    claim = configured.get("pvc", "data")
    assert claim["spec"]["storageClassName"] == "standard"
    assert claim["status"]["phase"] == "Bound"
    node = configured.get("node")["items"][0]["metadata"]["name"]
    assert claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] == node


def test_what_is_missing_of_volumes_is_said(configured):
    overrides = {
        "spec": {
            "containers": [{"name": "c", "image": "wherry.io/busybox:1"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "nowhere"}}],
        }
    }
    configured.kubectl(
        *("run", "lost", "--image=wherry.io/busybox:1", "--overrides", json.dumps(overrides))
    )
    condition = until(lambda: (c := scheduled(configured, "lost")) and c)
    assert condition["message"] == (
        '0/1 nodes are available: persistentvolumeclaim "nowhere" not found. preemption: '
        "0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    configured.kubectl("delete", "pod", "lost")


def test_a_configuration_that_is_wrong_starts_nothing(new_instance, tmp_path):
    path = tmp_path / "scheduler.yaml"
    path.write_text("kind: Pod\n")
    refused = new_instance().wherry("up", "--scheduler-config", str(path), ok=False)
    assert refused.code != 0
    assert "expected apiVersion kubescheduler.config.k8s.io/v1" in refused.err
