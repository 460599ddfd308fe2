"""Where the images of pods come from: made here, or a registry that wants to know who asks."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from conftest import Instance, eventually
from pods_on_node import said
from registry_process import Server
from test_kubelet_pods import make, ready, reason, state


@pytest.fixture
def private(cluster: Instance, tmp_path: Path) -> Iterator[str]:
    """The name of an image in a registry that shows it to nobody but ann; it is not here."""
    users = tmp_path / "htpasswd"
    users.write_text(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    registry = Server(tmp_path / "registry", "--htpasswd", str(users)).start()
    name = f"{registry.host}/team/box:1"
    try:
        login = ("login", "-u", "ann", "--password-stdin", registry.host)
        cluster.docker(*login, stdin="secret")
        cluster.docker("build", "-q", "-t", name, "-", stdin=f"FROM hello:1\nLABEL of={name}\n")
        cluster.docker("push", "-q", name)
        cluster.docker("rmi", name)
        cluster.docker("logout", registry.host)
        yield name
    finally:
        registry.stop()


def secret(cluster: Instance, namespace: str, name: str, host: str, password: str) -> None:
    words = ("-n", namespace, "create", "secret", "docker-registry", name)
    who = (f"--docker-server={host}", "--docker-username=ann", f"--docker-password={password}")
    cluster.kubectl(*words, *who)


def test_a_private_registry_is_asked_with_the_pods_secret(
    cluster: Instance, namespace: str, private: str
) -> None:
    host = private.partition("/")[0]
    make(
        cluster,
        namespace,
        "mine",
        container={"image": private},
        imagePullSecrets=[{"name": "later"}],
    )
    eventually(lambda: reason(cluster, namespace, "mine") == "ImagePullBackOff")
    text = "Unable to retrieve some image pull secrets (later)"
    assert said(cluster, namespace, "mine", text)
    assert private in state(cluster, namespace, "mine")["waiting"]["message"]
    # The secret comes, and is used at once.
    secret(cluster, namespace, "later", host, "secret")
    ready(cluster, namespace, "mine")
    cluster.kubectl("-n", namespace, "delete", "pod", "mine")


def test_an_account_brings_its_secret_and_a_wrong_one_is_told(
    cluster: Instance, namespace: str, private: str
) -> None:
    secret(cluster, namespace, "right", private, "secret")
    secret(cluster, namespace, "wrong", private, "no")
    make(
        cluster,
        namespace,
        "theirs",
        container={"image": private},
        imagePullSecrets=[{"name": "wrong"}],
    )
    eventually(lambda: reason(cluster, namespace, "theirs") == "ImagePullBackOff")
    assert said(cluster, namespace, "theirs", f'Failed to pull image "{private}"')
    patch = json.dumps({"imagePullSecrets": [{"name": "wrong"}, {"name": "right"}]})
    cluster.kubectl("-n", namespace, "patch", "serviceaccount", "default", "-p", patch)
    make(cluster, namespace, "ours", container={"image": private})
    pod = ready(cluster, namespace, "ours")
    assert pod["spec"]["imagePullSecrets"] == [{"name": "wrong"}, {"name": "right"}]


def test_what_was_built_here_is_simply_there(cluster: Instance, namespace: str) -> None:
    name = f"registry.invalid/built-{namespace}"
    cluster.docker("build", "-q", "-t", name, "-", stdin="FROM hello:1\n")
    make(cluster, namespace, "built", container={"image": name})
    pod = ready(cluster, namespace, "built")
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert said(cluster, namespace, "built", "already present on machine")


@pytest.fixture
def open_registry(tmp_path: Path) -> Iterator[Server]:
    """A registry that anybody may read and write."""
    registry = Server(tmp_path / "open").start()
    yield registry
    registry.stop()


def published(cluster: Instance, name: str, words: str) -> None:
    """An image in the registry whose own command says ``words``; none of it stays here."""
    lines = f'FROM hello:1\nCMD ["sh", "-c", "echo {words}; exec sleep 1000"]\n'
    cluster.docker("build", "-q", "-t", name, "-", stdin=lines)
    cluster.docker("push", "-q", name)
    cluster.docker("rmi", name)


def tag(host: str, repository: str, old: str, new: str) -> None:
    """Give an image of the registry a second tag there."""
    kinds = (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    )
    at = f"http://{host}/v2/{repository}/manifests/"
    request = urllib.request.Request(at + old, headers={"Accept": ", ".join(kinds)})
    with urllib.request.urlopen(request, timeout=60) as answer:
        kind, manifest = answer.headers["Content-Type"], answer.read()
    headers = {"Content-Type": kind}
    put = urllib.request.Request(at + new, data=manifest, headers=headers, method="PUT")
    with urllib.request.urlopen(put, timeout=60) as answer:
        assert answer.status == 201


def test_the_policy_says_when_the_registry_is_asked(
    cluster: Instance, namespace: str, open_registry: Server
) -> None:
    name = f"{open_registry.host}/team/app:1"
    published(cluster, name, "first")

    def start(pod: str, policy: str | None, image: str = name) -> None:
        fields = {"image": image, **({"imagePullPolicy": policy} if policy else {})}
        spec = {"name": "main", **fields}
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": namespace},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [spec]},
        }
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def says(pod: str) -> str:
        ready(cluster, namespace, pod)
        return str(eventually(lambda: cluster.kubectl("-n", namespace, "logs", pod).out.strip()))

    start("never-before", "Never")
    eventually(lambda: reason(cluster, namespace, "never-before") == "ErrImageNeverPull")
    text = f'Container image "{name}" is not present with pull policy of Never'
    assert text in state(cluster, namespace, "never-before")["waiting"]["message"]
    assert said(cluster, namespace, "never-before", text)
    start("first", None)
    assert says("first") == "first"
    told = cluster.get("pod", "first", "-n", namespace)
    assert told["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    for text in (f'Pulling image "{name}"', f'Successfully pulled image "{name}"'):
        assert said(cluster, namespace, "first", text)
    # What waited for it to be there runs now.
    assert says("never-before") == "first"
    # Somebody pushes another image of that name.
    elsewhere = f"{open_registry.host}/team/other:1"
    published(cluster, elsewhere, "second")
    cluster.docker("pull", "-q", elsewhere)
    old = cluster.docker("inspect", "-f", "{{.Id}}", name).out.strip()
    cluster.docker("tag", elsewhere, name)
    cluster.docker("push", "-q", name)
    digest = cluster.docker("inspect", "-f", "{{index .RepoDigests 0}}", name).out.strip()
    cluster.docker("tag", old, name)
    cluster.docker("rmi", "-f", elsewhere)
    start("same", "IfNotPresent")
    assert says("same") == "first"
    assert said(cluster, namespace, "same", "already present on machine")
    start("always", "Always")
    assert says("always") == "second"
    start("never", "Never")
    assert says("never") == "second"
    by_digest = f"{open_registry.host}/team/app@{digest.partition('@')[2]}"
    start("digest", None, by_digest)
    assert says("digest") == "second"
    told = cluster.get("pod", "digest", "-n", namespace)
    assert told["status"]["containerStatuses"][0]["image"] == by_digest
    assert told["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"


def test_what_the_registry_has_not_is_told_and_tried_again(
    cluster: Instance, namespace: str, open_registry: Server
) -> None:
    name = f"{open_registry.host}/team/late:1"
    make(cluster, namespace, "late", container={"image": name})
    waiting = lambda: state(cluster, namespace, "late").get("waiting", {})  # noqa: E731
    text = f'Back-off pulling image "{name}": ErrImagePull: '
    eventually(lambda: waiting().get("message", "").startswith(text))
    for text in (
        f'Pulling image "{name}"',
        f'Failed to pull image "{name}"',
        "Error: ErrImagePull",
        f'Back-off pulling image "{name}"',
        "Error: ImagePullBackOff",
    ):
        assert said(cluster, namespace, "late", text)
    row = cluster.kubectl("-n", namespace, "get", "pod", "late", "--no-headers").out.split()
    assert row[1:3] in (["0/1", "ImagePullBackOff"], ["0/1", "ErrImagePull"])
    # (Under another tag first: what is built here needs no registry.)
    published(cluster, f"{open_registry.host}/team/late:seed", "late")
    tag(open_registry.host, "team/late", "seed", "1")
    ready(cluster, namespace, "late")
    assert said(cluster, namespace, "late", f'Successfully pulled image "{name}"')
    make(cluster, namespace, "bad", container={"image": "not//a name"})
    eventually(lambda: reason(cluster, namespace, "bad") == "InvalidImageName")
    assert "couldn't parse image name" in state(cluster, namespace, "bad")["waiting"]["message"]


def test_an_image_pulled_with_a_secret_is_for_those_who_have_it(
    cluster: Instance, namespace: str, private: str
) -> None:
    secret(cluster, namespace, "right", private, "secret")
    mine = {"imagePullSecrets": [{"name": "right"}], "container": {"image": private}}
    make(cluster, namespace, "mine", **mine)
    ready(cluster, namespace, "mine")
    # It is here, and somebody who could not have pulled it does not get it.
    make(cluster, namespace, "theirs", container={"image": private})
    eventually(lambda: reason(cluster, namespace, "theirs") == "ImagePullBackOff")
    refused = {"image": private, "imagePullPolicy": "Never"}
    make(cluster, namespace, "never", container=refused)
    eventually(lambda: reason(cluster, namespace, "never") == "ErrImageNeverPull")
    # The same secret is good without the registry, also after the node was killed.
    os.kill(cluster.pid("node"), signal.SIGKILL)
    cluster.wherry("up")
    make(cluster, namespace, "again", imagePullSecrets=[{"name": "right"}], container=refused)
    ready(cluster, namespace, "again")
    make(cluster, namespace, "still", container=refused)
    eventually(lambda: reason(cluster, namespace, "still") == "ErrImageNeverPull")
