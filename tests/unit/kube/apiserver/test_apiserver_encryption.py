from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from apiserver_harness import API, config, config_map

from wherry.kube.apiserver.encryption import BadEncryption, ciphers_of, parse, read, resource_of
from wherry.kube.apiserver.server import SELF, APIServer

HEAD = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration"}
KEY = base64.b64encode(bytes(range(32))).decode()


def keyed(provider: str, *names: str) -> dict[str, Any]:
    return {provider: {"keys": [{"name": name, "secret": KEY} for name in names]}}


def document(*providers: Any, resources: tuple[str, ...] = ("secrets",)) -> dict[str, Any]:
    return {**HEAD, "resources": [{"resources": list(resources), "providers": list(providers)}]}


@pytest.mark.parametrize(
    ("key", "resource"),
    [
        ("/registry/secrets/ns/s", ("", "secrets")),
        ("/registry/services/specs/ns/s", ("", "services")),
        ("/registry/minions/n", ("", "nodes")),
        ("/registry/deployments/ns/d", ("apps", "deployments")),
        ("/registry/example.com/things/ns/t", ("example.com", "things")),
        ("/registry/ranges/services", None),
    ],
)
def test_what_lies_at_a_key(key: str, resource: tuple[str, str] | None) -> None:
    assert resource_of(key) == resource


def test_the_first_rule_that_covers_a_resource_counts() -> None:
    rules = parse(
        {
            **HEAD,
            "resources": [
                {"resources": ["events"], "providers": [{"identity": {}}]},
                {"resources": ["deployments.apps", "*."], "providers": [keyed("aesgcm", "a")]},
                {"resources": ["*.*"], "providers": [keyed("secretbox", "b")]},
            ],
        }
    )
    ciphers = ciphers_of(rules)
    for key, prefix in (
        ("/registry/events/ns/e", b""),
        ("/registry/configmaps/ns/c", b"k8s:enc:aesgcm:v1:a:"),
        ("/registry/deployments/ns/d", b"k8s:enc:aesgcm:v1:a:"),
        ("/registry/replicasets/ns/r", b"k8s:enc:secretbox:v1:b:"),
        ("/registry/example.com/things/ns/t", b"k8s:enc:secretbox:v1:b:"),
    ):
        assert ciphers(key)[0].prefix == prefix
    assert ciphers("/registry/ranges/services") == ()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "a mapping"),
        ({"kind": "X"}, "is wanted"),
        (HEAD, "has no resources"),
        (document(), "no providers"),
        (document({"aescbc": {}}), "no keys"),
        (document({"rot13": {}}), "no provider rot13"),
        (document(keyed("aescbc", "a", "a")), "Duplicate value"),
        (document(keyed("aescbc", "a:b")), "no colon"),
        (document({"aescbc": {"keys": [{"name": "a", "secret": "QUJD"}]}}), "3 bytes long"),
        (document({"aescbc": {"keys": [{"name": "a", "secret": "?"}]}}), "base64"),
        (document({"identity": {}}, resources=("*",)), "Invalid value"),
        (document({"identity": {}}, resources=("sec*",)), "Invalid value"),
    ],
)
def test_a_configuration_that_cannot_be_followed(given: Any, why: str) -> None:
    with pytest.raises(BadEncryption, match=why):
        parse(given)


def test_a_broken_file_shows_no_key(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(f"secret: {KEY}\n  x: [")
    with pytest.raises(BadEncryption) as failure:
        read(file)
    assert KEY not in str(failure.value)


async def test_secrets_lie_encrypted_and_a_replace_writes_them_anew(
    tmp_path: Path, store: Any
) -> None:
    file = tmp_path / "encryption.yaml"

    async def serving(*providers: Any) -> APIServer:
        file.write_text(json.dumps(document(*providers)))
        server = APIServer(config(tmp_path, encryption=file), store)
        await server.open()
        return server

    async def raw(key: str) -> bytes:
        found = await store.get(key)
        return bytes(found.value)

    key = "/registry/secrets/default/s"
    server = await serving({"identity": {}})
    api = API(server.transport(SELF))
    await api("POST", "secrets", {"metadata": {"name": "s"}, "stringData": {"p": "hunter2"}})
    await api("POST", "configmaps", config_map("c", a="1"))
    assert (await raw(key)).startswith(b'{"kind":"Secret"')
    await server.close()

    for providers, prefix in (
        ((keyed("aescbc", "k1"), {"identity": {}}), b"k8s:enc:aescbc:v1:k1:"),
        ((keyed("secretbox", "k2"), keyed("aescbc", "k1")), b"k8s:enc:secretbox:v1:k2:"),
        (({"identity": {}}, keyed("secretbox", "k2")), b'{"kind":"Secret"'),
    ):
        server = await serving(*providers)
        api = API(server.transport(SELF))
        secret = await api("GET", "secrets/s")
        assert base64.b64decode(secret["data"]["p"]) == b"hunter2"
        again = await api("PUT", "secrets/s", secret)
        assert (await raw(key)).startswith(prefix)
        # once it is so, nothing is written that does not change
        same = await api("PUT", "secrets/s", again)
        assert same["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]
        assert (await raw("/registry/configmaps/default/c")).startswith(b'{"kind":"ConfigMap"')
        await server.close()
