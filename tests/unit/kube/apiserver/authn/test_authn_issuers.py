"""Tokens of others: an OpenID Connect issuer and a webhook, on loopback."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from wherry.kube.api import jose
from wherry.kube.apiserver.authn import configuration, known, oidc
from wherry.kube.apiserver.authn.config import OIDC, Webhook
from wherry.kube.apiserver.authn.configuration import BadConfiguration
from wherry.kube.apiserver.authn.oidc import Issuer, OIDCTokens
from wherry.kube.apiserver.authn.ways import Refused
from wherry.kube.apiserver.authn.webhook import WebhookTokens
from wherry.launcher import pki

Object = dict[str, Any]


class Remote:
    """A TLS server that answers what it is told to, and counts."""

    def __init__(self, directory: Path) -> None:
        authority = pki.Authority(directory)
        authority.issue_server("server", "x", names=["localhost"], addresses=["127.0.0.1"])
        self.directory = directory
        self.ca = authority.certificate_pem.decode()
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any]] = []
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.path, body))
        answer = self.answers.get(request.path)
        return web.json_response(answer, status=404 if answer is None else 200)


@pytest.fixture
async def remote(tmp_path: Path) -> AsyncIterator[Remote]:
    made = Remote(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    made.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def serve_keys(remote: Remote, *keys: jose.Key) -> None:
    where = f"{remote.url}/keys"
    remote.answers["/.well-known/openid-configuration"] = {"issuer": remote.url, "jwks_uri": where}
    remote.answers["/keys"] = {"keys": [key.jwk() for key in keys]}


def claims_of(remote: Remote, **more: Any) -> Object:
    now = int(time.time())
    return {"iss": remote.url, "aud": "me", "sub": "jane", "exp": now + 600, "iat": now, **more}


@pytest.fixture
async def way(remote: Remote) -> AsyncIterator[OIDCTokens]:
    ca = remote.directory / "ca.crt"
    told = OIDC(
        remote.url,
        "me",
        groups_claim="groups",
        groups_prefix="oidc:",
        required_claims=(("hd", "x"),),
        ca_file=ca,
        signing_algs=("ES256",),
    )
    made = OIDCTokens(configuration.of_options(told), ("api",))
    yield made
    await made.close()


async def test_a_token_of_the_issuer_stands_for_its_user(remote: Remote, way: OIDCTokens) -> None:
    key = jose.generate()
    serve_keys(remote, key)
    token = jose.sign(key, claims_of(remote, groups=["dev"], hd="x"))
    for _ in range(3):
        found = await way.authenticate(token, ("api",))
        assert found is not None
        assert found.user == known(f"{remote.url}#jane", ("oidc:dev",))
    assert len(remote.asked) == 2  # its configuration and its keys, once
    assert await way.authenticate(jose.sign(key, {"iss": "other"}), ("api",)) is None
    assert await way.authenticate("nonsense", ("api",)) is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"aud": "you"}, "expected audience"),
        ({"exp": 5}, "token is expired"),
        ({"exp": "x"}, "no expiry"),
        ({"nbf": 2**40}, "before the nbf"),
        ({"hd": None}, "required claim hd not present"),
        ({"hd": "y"}, "required claim hd value does not match"),
        ({"sub": None}, "claim not present"),
        ({"groups": [3]}, "it is no string"),
    ],
)
async def test_a_token_that_does_not_hold(
    remote: Remote, way: OIDCTokens, more: Object, why: str
) -> None:
    key = jose.generate()
    serve_keys(remote, key)
    with pytest.raises(Refused, match=why):
        await way.authenticate(jose.sign(key, claims_of(remote, **{"hd": "x", **more})), ("api",))


async def test_forged_tokens_do_not_make_the_issuer_be_asked_again_and_again(
    remote: Remote, way: OIDCTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, new = jose.generate(), jose.generate()
    serve_keys(remote, key)
    claims = claims_of(remote, hd="x")
    for _ in range(20):
        with pytest.raises(Refused, match="failed to verify signature"):
            await way.authenticate(jose.sign(new, claims), ("api",))
    assert len(remote.asked) == 2
    # its new key is found, once it may be asked again
    serve_keys(remote, new)
    monkeypatch.setattr(oidc, "_AGAIN", 0.0)
    assert await way.authenticate(jose.sign(new, claims), ("api",)) is not None


async def test_an_issuer_that_calls_itself_otherwise_is_not_believed(
    remote: Remote, way: OIDCTokens
) -> None:
    key = jose.generate()
    serve_keys(remote, key)
    remote.answers["/.well-known/openid-configuration"]["issuer"] = "https://evil.example"
    with pytest.raises(Refused):
        await way.authenticate(jose.sign(key, claims_of(remote, hd="x")), ("api",))


async def test_an_issuer_of_another_authority_is_not_believed(remote: Remote) -> None:
    told = configuration.of_options(OIDC(remote.url, "me", signing_algs=("ES256",)))
    way = OIDCTokens(told, ("api",))
    key = jose.generate()
    serve_keys(remote, key)
    with pytest.raises(Refused):
        await way.authenticate(jose.sign(key, claims_of(remote)), ("api",))
    assert not remote.asked
    await way.close()


# --- AuthenticationConfiguration ------------------------------------------------------------------


def document(**jwt: Any) -> Object:
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [
            {
                "issuer": {"url": "https://i.example", "audiences": ["me"]},
                "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
                **jwt,
            }
        ],
    }


def issuer(**jwt: Any) -> Issuer:
    (made,) = configuration.parse(document(**jwt))
    return made


def test_claims_are_mapped_by_expressions() -> None:
    mapping = issuer(
        claimMappings={
            "username": {"expression": "claims.name + '@' + claims.org"},
            "groups": {"expression": "claims.roles.split(',')"},
            "uid": {"expression": "claims.sub"},
            "extra": [{"key": "example.com/tenant", "valueExpression": "claims.org"}],
        },
        claimValidationRules=[
            {"claim": "hd", "requiredValue": "x"},
            {"expression": "claims.exp - claims.nbf <= 3600", "message": "it lasts too long"},
        ],
        userValidationRules=[
            {"expression": "!user.username.startsWith('system:')", "message": "reserved"}
        ],
    ).mapping
    claims = {"name": "jane", "org": "acme", "roles": "a,b", "sub": "7", "hd": "x"}
    times = {"exp": 3600, "nbf": 0}
    user = mapping.user({**claims, **times})
    assert user == known("jane@acme", ("a", "b"), "7")
    assert user.extra == {"example.com/tenant": ("acme",)}
    with pytest.raises(Refused, match="it lasts too long"):
        mapping.user({**claims, "exp": 3601, "nbf": 0})
    with pytest.raises(Refused, match="reserved"):
        mapping.user({**claims, **times, "name": "system:x"})
    with pytest.raises(Refused, match="resulted in error"):
        mapping.user({"hd": "x"})


def test_an_email_must_be_verified() -> None:
    mapping = issuer(claimMappings={"username": {"claim": "email", "prefix": ""}}).mapping
    assert mapping.user({"email": "a@b"}).name == "a@b"
    with pytest.raises(Refused, match="email not verified"):
        mapping.user({"email": "a@b", "email_verified": False})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"issuer": {"url": "http://i", "audiences": ["me"]}}, "scheme must be https"),
        ({"issuer": {"url": "https://i"}}, "audiences"),
        ({"claimMappings": {}}, "username"),
        ({"claimMappings": {"username": {"claim": "sub"}}}, "prefix is required"),
        ({"claimMappings": {"username": {"expression": "claims."}}}, "compilation failed"),
        ({"claimMappings": {"username": {"expression": "x.y"}}}, "compilation failed"),
        ({"claimValidationRules": [{}]}, "expression"),
    ],
)
def test_a_configuration_that_cannot_be_followed(change: Object, why: str) -> None:
    with pytest.raises(BadConfiguration, match=why):
        issuer(**change)


def test_options_are_checked() -> None:
    with pytest.raises(BadConfiguration, match="scheme must be https"):
        configuration.of_options(OIDC("http://x", "me"))
    with pytest.raises(BadConfiguration, match="unsupported signing alg"):
        configuration.of_options(OIDC("https://x", "me", signing_algs=("none",)))


# --- webhook --------------------------------------------------------------------------------------


async def test_a_webhook_says_who_it_is_and_is_remembered(remote: Remote) -> None:
    kubeconfig = remote.directory / "webhook.conf"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": "c",
                        "cluster": {
                            "server": f"{remote.url}/review",
                            "certificate-authority": str(remote.directory / "ca.crt"),
                        },
                    }
                ],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        )
    )
    way = WebhookTokens(Webhook(kubeconfig, "v1", 60), ("api",))
    user = {"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"k": ["v"]}}
    remote.answers["/review"] = {"status": {"authenticated": True, "user": user}}
    for _ in range(3):
        found = await way.authenticate("t", ("api",))
        assert found is not None and found.user == known("jane", ("dev",), "7")
        assert found.user.extra == {"k": ("v",)}
    ((path, asked),) = remote.asked
    assert path == "/review" and asked["spec"] == {"token": "t", "audiences": ["api"]}
    remote.answers["/review"] = {"status": {"authenticated": False, "error": "go away"}}
    with pytest.raises(Refused, match="go away"):
        await way.authenticate("other", ("api",))
    del remote.answers["/review"]
    with pytest.raises(Refused, match="did not answer"):
        await way.authenticate("third", ("api",))
    await way.close()
