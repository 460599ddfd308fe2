"""Images that were pulled with a secret are for who has one."""

import json

import pytest
from fake_runtime import FakeRuntime

from wherry.engine.cri.types import AuthConfig, CRIError
from wherry.kube.kubelet.images import ImageError, ImagePuller
from wherry.kube.kubelet.pull_secrets import Entry
from wherry.kube.kubelet.pulled import ALLOWLISTED, ALWAYS, NEVER, PulledImages, repository_of

ANN, BOB = AuthConfig("ann", "secret"), AuthConfig("bob", "other")
NAME = "example.com/team/app:1"


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("web", "web"),
        ("web:1", "web"),
        ("example.com:5000/a/b", "example.com:5000/a/b"),
        ("example.com:5000/a/b:1", "example.com:5000/a/b"),
        (f"a/b@sha256:{'0' * 64}", "a/b"),
        (f"sha256:{'0' * 64}", ""),
        ("ab" * 32, ""),
    ],
)
def test_tags_and_digests_are_no_part_of_the_repository(name, repository):
    assert repository_of(name) == repository


def test_who_pulled_it_may_have_it_and_so_may_all_where_anybody_may():
    pulled = PulledImages()
    pulled.note("i", NAME, ANN, ["i"])
    assert not pulled.needs_proof("i", NAME, [BOB, ANN])
    assert not pulled.needs_proof("i", NAME.replace(":1", ":2"), [ANN])
    assert pulled.needs_proof("i", NAME, [BOB]) and pulled.needs_proof("i", NAME, [])
    assert pulled.needs_proof("i", "ab" * 32, [])  # by its id
    pulled.note("i", NAME, None, ["i"])
    assert not pulled.needs_proof("i", NAME, [])


def test_what_was_built_or_tagged_here_is_the_nodes():
    pulled = PulledImages()
    assert not pulled.needs_proof("built", NAME, [])
    pulled.note("i", NAME, ANN, ["i"])
    assert not pulled.needs_proof("i", "mine:1", [])


def test_policies():
    always, never = PulledImages(policy=ALWAYS), PulledImages(policy=NEVER)
    never.note("i", NAME, ANN, ["i"])
    assert not never.needs_proof("i", NAME, [])
    assert always.needs_proof("built", NAME, [])
    listed = PulledImages(policy=ALLOWLISTED, allowlist=("example.com/team/*", "web"))
    assert not listed.needs_proof("i", NAME, []) and not listed.needs_proof("i", "web:1", [])
    assert listed.needs_proof("i", "other:1", [])


def test_it_outlives_the_kubelet_and_tells_no_password(tmp_path):
    file = tmp_path / "pulled.json"
    PulledImages(file).note("i", NAME, ANN, ["i"])
    assert file.stat().st_mode & 0o777 == 0o600
    assert "secret" not in file.read_text() and "ann" not in file.read_text()
    again = PulledImages(file)
    assert not again.needs_proof("i", NAME, [ANN]) and again.needs_proof("i", NAME, [BOB])
    again.note("j", NAME, ANN, ["j"])  # the first is no longer here
    assert list(json.loads(file.read_text())["images"]) == ["j"]


@pytest.mark.parametrize("text", ["", "rubbish", "[]", '{"salt": "x"}'])
def test_a_file_that_is_broken_is_as_none(tmp_path, text):
    file = tmp_path / "pulled.json"
    file.write_text(text)
    assert not PulledImages(file).needs_proof("i", NAME, [])


class Registry(FakeRuntime):
    async def pull_image(self, image, auth=None):
        if auth != ANN:
            raise CRIError("denied")
        return await super().pull_image(image, auth)


async def test_a_pod_without_the_secret_must_ask_the_registry(tmp_path):
    puller = ImagePuller(Registry())

    def pod(uid):
        return {"metadata": {"name": uid, "namespace": "d", "uid": uid}, "spec": {}}

    async def ensure(uid, *users, policy="IfNotPresent"):
        container = {"name": "c", "image": NAME, "imagePullPolicy": policy}
        known = [Entry("example.com", user) for user in users]
        return await puller.ensure(pod(uid), container, lambda *_: None, known)

    await ensure("a", ANN)
    await ensure("b", ANN, policy="Never")
    with pytest.raises(ImageError) as fault:
        await ensure("c", BOB)
    assert fault.value.reason == "ErrImagePull"
    with pytest.raises(ImageError) as fault:
        await ensure("d", policy="Never")
    assert fault.value.reason == "ErrImageNeverPull"
