"""Pods that run wild and pods that cannot be: what users are told, and that the others go on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually
from pods_on_node import FOREVER, container, events, first_status, make, ready, said

CONFIG = """
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
podPidsLimit: 60
evictionHard: {nodefs.available: 100Mi}
evictionPressureTransitionPeriod: 1s
"""
DISK = "500m"
# (A shell would give up at the first process that it does not get.)
BOMB = """exec awk 'BEGIN { while (1) system("sleep 1000 &") }'"""
WRITE = f"head -c 5000000 /dev/zero > /written; {FOREVER}"


@pytest.fixture(scope="module")
def small(
    new_instance: Callable[[], Instance], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """An instance on a small disk of its own, whose pods may have few processes."""
    instance = new_instance()
    disk = instance.data_dir
    disk.mkdir()
    instance.data_dir = disk / "instance"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk], check=True)
    file = tmp_path_factory.mktemp("config") / "kubelet.yaml"
    file.write_text(CONFIG)
    try:
        instance.wherry("up", "--sample", "--kubelet-config", str(file))
        instance.kubectl("delete", "deployment,daemonset,statefulset", "--all", "--wait=false")
        make(instance, "default", "neighbour")
        # The wild ones run beside each other, for the kubelet looks at all in one round.
        make(instance, "default", "bomb", container(command=BOMB))
        limits = {"resources": {"limits": {"ephemeral-storage": "2Mi"}}}
        make(instance, "default", "writer", container(command=WRITE, **limits))
        ready(instance, "default", "neighbour")
        yield instance
        instance.wherry("down", "--purge", "--grace", "1")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def status(cluster: Instance, namespace: str, name: str) -> dict[str, Any]:
    return dict(cluster.get("pod", name, "-n", namespace)["status"])


def untouched(cluster: Instance) -> bool:
    """Whether the neighbour has noticed nothing."""
    said = cluster.kubectl("exec", "neighbour", "--", "echo", "here").out
    return said == "here\n" and first_status(cluster, "default", "neighbour")["restartCount"] == 0


def test_what_forks_without_end_is_held_and_the_others_do_not_notice(small: Instance) -> None:
    text = "The pod has 60 processes and threads, as many as it may: it can start no more"
    eventually(lambda: text in events(small, "default", "bomb"))
    eventually(lambda: "an't fork" in small.kubectl("logs", "bomb").out)
    assert untouched(small)
    small.kubectl("delete", "pod", "bomb", "--now")
    eventually(lambda: not small.docker("ps", "-aq", "--filter", "name=_bomb_").out)


def test_who_writes_more_than_its_limit_is_put_off_alone(small: Instance) -> None:
    eventually(lambda: status(small, "default", "writer")["phase"] == "Failed")
    told = status(small, "default", "writer")
    assert told["reason"] == "Evicted"
    assert told["message"].startswith(
        ("Pod ephemeral local storage usage exceeds", "Container main exceeded its local ephemeral")
    )
    assert untouched(small)


def test_who_fills_the_nodes_disk_is_put_off_and_the_disk_is_free_again(small: Instance) -> None:
    free = _free(small.data_dir)
    fill = f"cat /dev/zero > /filled; {FOREVER}"
    make(small, "default", "filler", container(command=fill))
    eventually(lambda: status(small, "default", "filler").get("reason") == "Evicted")
    told = status(small, "default", "filler")
    assert told["phase"] == "Failed"
    text = "The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi, available: "
    assert told["message"].startswith(text)
    assert "Container main was using " in told["message"]
    eventually(lambda: _free(small.data_dir) > free - (20 << 20))

    def pressure() -> str:
        (node,) = small.get("nodes")["items"]
        (found,) = [c for c in node["status"]["conditions"] if c["type"] == "DiskPressure"]
        return str(found["status"])

    eventually(lambda: pressure() == "False")
    assert untouched(small)
    # Who comes while the kubelet still feels what it has not told is refused, and replaced.
    small.kubectl("create", "deployment", "later", "--image=hello:1")
    small.kubectl("wait", "--for=condition=Available", "deployment/later")


def _free(directory: Path) -> int:
    found = subprocess.check_output(["df", "-B1", "--output=avail", directory], text=True)
    return int(found.split()[-1])


# ---- what is missing, until it is there

GOOD: dict[str, Any] = {"name": "good", "image": "hello:1", "command": ["sh", "-c", FOREVER]}


def reference(kind: str) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {kind: {"name": "later", "key": "k"}}}


def waiting(cluster: Instance, namespace: str, name: str) -> dict[str, Any]:
    """The state of the container that cannot be; the other one must run."""
    found = status(cluster, namespace, name).get("containerStatuses") or ()
    by_name = {one["name"]: one for one in found}
    if not by_name.get("good", {}).get("ready"):
        return {}
    return dict(by_name["main"]["state"].get("waiting") or {})


MISSING = {
    "secret-key": (
        {"env": [reference("secretKeyRef")]},
        ("create", "secret", "generic", "later", "--from-literal=other=1"),
        ("patch", "secret", "later", "-p", '{"stringData": {"k": "v"}}'),
        ("CreateContainerConfigError", "couldn't find key k in Secret NAMESPACE/later"),
    ),
    "config-key": (
        {"env": [reference("configMapKeyRef")]},
        ("create", "configmap", "later", "--from-literal=other=1"),
        ("patch", "configmap", "later", "-p", '{"data": {"k": "v"}}'),
        ("CreateContainerConfigError", "couldn't find key k in ConfigMap NAMESPACE/later"),
    ),
    "secret": (
        {"envFrom": [{"secretRef": {"name": "later"}}]},
        (),
        ("create", "secret", "generic", "later", "--from-literal=k=1"),
        ("CreateContainerConfigError", 'secret "later" not found'),
    ),
    "command": (
        {"command": ["there-is-no-such"], "image": "hello:1"},
        (),
        ("set", "image", "pod/command", "main=with-command:1"),
        ("CrashLoopBackOff", "0s restarting failed container=main pod=command_"),
    ),
    "user": (
        {"image": "named-user:1", "securityContext": {"runAsNonRoot": True}},
        (),
        ("set", "image", "pod/user", "main=numbered-user:1"),
        ("CreateContainerConfigError", "container has runAsNonRoot and image has non-numeric user"),
    ),
}


@pytest.fixture(scope="module")
def images(cluster: Instance) -> None:
    run = f'CMD ["sh", "-c", "{FOREVER}"]'
    named = "FROM hello:1\nRUN echo app:x:1000:1000::/:/bin/sh > /etc/passwd\nUSER app\n"
    for name, text in (
        ("with-command:1", "FROM hello:1\nRUN printf '#!/bin/sh\\nexec sleep 1000' > /bin/"
         "there-is-no-such; chmod +x /bin/there-is-no-such\n"),
        ("named-user:1", named + run),
        ("numbered-user:1", named.replace("USER app", "USER 1000") + run),
    ):  # fmt: skip
        cluster.docker("build", "-q", "-t", name, "-", stdin=text)


@pytest.mark.parametrize("name", list(MISSING))
def test_what_cannot_be_is_told_beside_what_runs_and_starts_when_it_can(
    cluster: Instance, namespace: str, images: None, name: str
) -> None:
    fields, before, after, (reason, text) = MISSING[name]
    if before:
        cluster.kubectl("-n", namespace, *before)
    make(cluster, namespace, name, {**container(), **fields}, GOOD)
    text = text.replace("NAMESPACE", namespace)

    def is_told() -> bool:
        found = waiting(cluster, namespace, name)
        return found.get("reason") == reason and text in found["message"]

    eventually(is_told)
    if name == "command":
        text = 'exec: "there-is-no-such": executable file not found'
    assert said(cluster, namespace, name, text)
    cluster.kubectl("-n", namespace, *after)
    ready(cluster, namespace, name)
    (good,) = [
        c for c in status(cluster, namespace, name)["containerStatuses"] if c["name"] == "good"
    ]
    assert good["restartCount"] == 0


def test_an_image_that_is_missing_is_taken_as_soon_as_it_is_built(
    cluster: Instance, namespace: str
) -> None:
    image = f"late-{namespace}:1"
    make(cluster, namespace, "late", container(image=image, imagePullPolicy="Never"), GOOD)
    eventually(lambda: waiting(cluster, namespace, "late").get("reason") == "ErrImageNeverPull")
    message = waiting(cluster, namespace, "late")["message"]
    assert message == (f'Container image "{image}" is not present with pull policy of Never')
    cluster.docker("build", "-q", "-t", image, "-", stdin="FROM hello:1\nENV A=1\n")
    ready(cluster, namespace, "late")


def test_volumes_that_are_missing_are_told_and_awaited(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    def volume(**source: Any) -> dict[str, Any]:
        return {"volumes": [{"name": "v", **source}]}

    place = tmp_path / "later"
    make(
        cluster, namespace, "path", container(),
        **volume(hostPath={"path": str(place), "type": "Directory"}),
    )  # fmt: skip
    items = [{"key": "k", "path": "k"}]
    make(
        cluster, namespace, "key", container(),
        **volume(configMap={"name": "later", "items": items}),
    )  # fmt: skip
    make(cluster, namespace, "claim", **volume(persistentVolumeClaim={"claimName": "later"}))
    cluster.kubectl("-n", namespace, "create", "configmap", "later", "--from-literal=other=1")
    for name, text in (
        ("path", f"hostPath type check failed: {place} is not a directory"),
        ("key", "references non-existent config key: k"),
        ("claim", 'persistentvolumeclaim "later" not found'),
    ):
        eventually(lambda n=name, t=text: t in events(cluster, namespace, n))
        assert status(cluster, namespace, name)["phase"] == "Pending"
    place.mkdir()
    cluster.kubectl("-n", namespace, "patch", "configmap", "later", "-p", '{"data": {"k": "v"}}')
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "later"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}
        },
    }  # fmt: skip
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(claim))
    ready(cluster, namespace, "path", "key", "claim")


BAD_SECURITY: dict[str, tuple[dict[str, Any], str]] = {
    "capability": (
        {"capabilities": {"add": ["NO_SUCH"]}},
        'invalid CapAdd: unknown capability: "CAP_NO_SUCH"',
    ),
    "seccomp": (
        {"seccompProfile": {"type": "Localhost", "localhostProfile": "PROFILE.json"}},
        "cannot load seccomp profile",
    ),
}


@pytest.mark.parametrize("name", list(BAD_SECURITY))
def test_a_bad_security_context_is_told_and_harms_nobody(
    cluster: Instance, namespace: str, name: str
) -> None:
    context, text = BAD_SECURITY[name]
    context = json.loads(json.dumps(context).replace("PROFILE", namespace))
    make(cluster, namespace, name, container(securityContext=context), GOOD)
    eventually(lambda: waiting(cluster, namespace, name).get("reason") == "CreateContainerError")
    assert text in waiting(cluster, namespace, name)["message"]
    assert said(cluster, namespace, name, text)
    if name == "seccomp":
        directory = cluster.data_dir / "kubelet" / "seccomp"
        directory.mkdir(exist_ok=True)
        (directory / f"{namespace}.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
        ready(cluster, namespace, name)
