"""Below a pod: ephemeral containers (kubectl debug), resize; the scale of every kind with one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from apiserver_process import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    running.kubectl("create", "serviceaccount", "default")
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


def pod(server: Server, name: str, **resources: Any) -> None:
    container = {"name": "c", "image": "i", "resources": resources}
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"nodeName": "n", "containers": [container]},
    }
    server.kubectl("create", "-f", "-", stdin=json.dumps(manifest))


def test_kubectl_debug_adds_a_container_that_stays(server: Server) -> None:
    pod(server, "a")
    server.kubectl("debug", "a", "--image=busybox", "--target=c", "--attach=false", "-c", "dbg")
    spec = server.get("pod", "a")["spec"]
    (added,) = spec["ephemeralContainers"]
    assert (added["name"], added["image"], added["targetContainerName"]) == ("dbg", "busybox", "c")
    assert added["terminationMessagePath"] == "/dev/termination-log"
    assert server.get("pod", "a")["metadata"]["generation"] == 2
    path = "/api/v1/namespaces/default/pods/a/ephemeralcontainers"

    def put(change: Any) -> str:
        o = json.loads(server.kubectl("get", "--raw", path).out)
        change(o)
        return server.kubectl(
            "replace", "--raw", path, "-f", "-", stdin=json.dumps(o), ok=False
        ).err

    gone = put(lambda o: o["spec"].pop("ephemeralContainers"))
    assert 'existing ephemeral containers "dbg" may not be removed' in gone
    other = put(lambda o: o["spec"]["ephemeralContainers"][0].update(image="other"))
    assert 'existing ephemeral containers "dbg" may not be changed' in other
    twice = put(lambda o: o["spec"]["ephemeralContainers"].append({"name": "c", "image": "i"}))
    assert 'spec.ephemeralContainers[1].name: Duplicate value: "c"' in twice
    # Nothing else is changed this way.
    assert not put(lambda o: o["spec"]["containers"][0].update(image="other"))
    assert server.get("pod", "a")["spec"]["containers"][0]["image"] == "i"


def test_resources_are_changed_by_resize_alone(server: Server) -> None:
    pod(server, "b", requests={"cpu": "1"}, limits={"cpu": "2", "memory": "1Gi"})

    def resize(resources: Any, *flags: str) -> str:
        patch = {"spec": {"containers": [{"name": "c", "resources": resources}]}}
        return server.kubectl("patch", "pod", "b", *flags, "-p", json.dumps(patch), ok=False).err

    refused = resize({"requests": {"cpu": "1500m"}})
    assert "pod updates may not change fields other than" in refused
    assert not resize({"requests": {"cpu": "1500m"}}, "--subresource=resize")
    assert (
        server.get("pod", "b")["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "1500m"
    )
    for resources, why in (
        ({"limits": {"memory": None}}, "resource limits cannot be removed"),
        ({"limits": {"ephemeral-storage": "1Gi"}}, "only cpu and memory resources are mutable"),
        (
            {"requests": {"cpu": "2", "memory": "1Gi"}},
            "Pod QOS Class may not change as a result of resizing",
        ),
    ):
        assert why in resize(resources, "--subresource=resize")


def test_everything_with_replicas_is_scaled(server: Server) -> None:
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    for version, kind in (
        ("v1", "ReplicationController"),
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
    ):
        selector = {"a": "b"} if version == "v1" else {"matchLabels": {"a": "b"}}
        spec: dict[str, Any] = {"replicas": 1, "selector": selector, "template": template}
        o = {"apiVersion": version, "kind": kind, "metadata": {"name": "s"}, "spec": spec}
        server.kubectl("create", "-f", "-", stdin=json.dumps(o))
        server.kubectl("scale", f"{kind}/s", "--replicas=3")
        assert server.get(f"{kind}/s")["spec"]["replicas"] == 3
        server.kubectl(
            "patch",
            f"{kind}/s",
            "--subresource=scale",
            "-p",
            '{"spec":{"replicas":2}}',
            "--type=merge",
        )
        assert server.get(f"{kind}/s")["spec"]["replicas"] == 2
