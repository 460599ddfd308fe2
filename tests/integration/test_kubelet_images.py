"""Where the images of pods come from: made here, or a registry that wants to know who asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from conftest import Instance, eventually
from test_kubelet_pods import events, make, ready, reason, state
from test_registry import Server


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
    assert text in events(cluster, namespace, "mine")
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
    assert f'Failed to pull image "{private}"' in events(cluster, namespace, "theirs")
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
    assert "already present on machine" in events(cluster, namespace, "built")
