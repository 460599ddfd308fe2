"""Users of registries by image."""

from __future__ import annotations

import base64
import json

import pytest

from wherry.engine.cri.types import AuthConfig
from wherry.kube.kubelet.pull_secrets import entries, fitting, of_pod


def secret(**users):
    auths = {name.replace("__", "/"): {"username": u} for name, u in users.items()}
    return {".dockerconfigjson": json.dumps({"auths": auths}).encode()}


def users(image, **given):
    return [auth.username for auth in fitting(image, entries(secret(**given)))]


@pytest.mark.parametrize(
    "pattern, image, fits",
    [
        ("r.example", "r.example/a:1", True),
        ("https://r.example/v2/", "r.example/a:1", True),
        ("*.example", "r.example/a:1", True),
        ("*.example", "a.r.example/a:1", False),
        ("r.example:5000", "r.example/a:1", False),
        ("r.example:5000", "r.example:5000/a", True),
        ("r.example/team", "r.example/team/a", True),
        ("r.example/team", "r.example/other/a", False),
        ("https://index.docker.io/v1/", "busybox", True),
        ("docker.io", "luksa/kubia:v1", True),
        ("r.example", "busybox", False),
    ],
)
def test_an_entry_fits_host_port_and_path(pattern, image, fits):
    assert users(image, **{pattern: "ann"}) == (["ann"] if fits else [])


def test_the_longest_entry_is_tried_first():
    given = {"r.example": "all", "r.example/team": "team", "r.example/t": "short"}
    assert users("r.example/team/a", **given) == ["team", "short", "all"]


def test_both_forms_and_packed_users_are_read():
    packed = base64.b64encode(b"ann:se:cret").decode()
    data = {".dockercfg": json.dumps({"r.example": {"auth": packed}}).encode()}
    assert fitting("r.example/a", entries(data)) == [AuthConfig("ann", "se:cret")]
    assert "cret" not in repr(fitting("r.example/a", entries(data)))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"auths": 1}', b'{"auths": {"a": 1}}'])
def test_a_broken_secret_counts_as_none(text):
    assert entries({".dockerconfigjson": text}) == []


def test_what_is_missing_is_named():
    pod = {"spec": {"imagePullSecrets": [{"name": "a"}, {"name": "b"}, {}]}}
    known, missing = of_pod(pod, {"a": secret(**{"r.example": "ann"})}.get)
    assert ([entry.pattern for entry in known], missing) == (["r.example"], ["b"])
