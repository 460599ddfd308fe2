"""Who may do what: passwords, tokens of our own, tokens of others."""

from __future__ import annotations

import base64
import datetime
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bcrypt
import jwt
import pytest
from aiohttp.test_utils import TestClient, TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wherry.registry import service
from wherry.registry.access import Scope, Users, basic, parse_scopes

Client = TestClient[Any, Any]


def password(user: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    digest = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    path.write_text(f"# people\nann:{digest}\n")
    return path


async def client_of(settings: service.Settings) -> AsyncIterator[Client]:
    async with TestClient(TestServer(service.server(settings).application())) as client:
        yield client


@pytest.fixture
async def by_password(tmp_path: Path, htpasswd: Path) -> AsyncIterator[Client]:
    async for client in client_of(service.Settings(tmp_path / "data", htpasswd=htpasswd)):
        yield client


@pytest.fixture
async def by_token(tmp_path: Path, htpasswd: Path) -> AsyncIterator[Client]:
    settings = service.Settings(
        tmp_path / "data", htpasswd=htpasswd, by_token=True, anonymous_pull=True
    )
    async for client in client_of(settings):
        yield client


async def test_a_password_opens_everything(by_password: Client) -> None:
    refused = await by_password.get("/v2/")
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"] == 'Basic realm="wherry"'
    assert (await refused.json())["errors"][0]["code"] == "UNAUTHORIZED"
    assert (await by_password.get("/v2/", headers=password("ann", "wrong"))).status == 401
    assert (await by_password.get("/v2/", headers=password("bob", "secret"))).status == 401
    for _ in range(2):
        assert (await by_password.get("/v2/", headers=password("ann", "secret"))).status == 200
    push = await by_password.post("/v2/a/blobs/uploads/", headers=password("ann", "secret"))
    assert push.status == 202


async def test_a_changed_password_counts_at_once(by_password: Client, htpasswd: Path) -> None:
    assert (await by_password.get("/v2/", headers=password("ann", "secret"))).status == 200
    digest = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
    htpasswd.write_text(f"ann:{digest}\n")
    assert (await by_password.get("/v2/", headers=password("ann", "secret"))).status == 401
    assert (await by_password.get("/v2/", headers=password("ann", "other"))).status == 200


async def test_a_password_that_changes_while_it_is_looked_at_is_not_remembered(
    htpasswd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, usual = Users(htpasswd), bcrypt.checkpw

    def check(given: bytes, known: bytes) -> bool:
        right = usual(given, known)
        htpasswd.write_text(f"ann:{bcrypt.hashpw(b'other', bcrypt.gensalt(4)).decode()}\n")
        assert users.known("ann")  # and somebody has noticed
        return right

    with monkeypatch.context() as patch:
        patch.setattr(bcrypt, "checkpw", check)
        assert await users.verify("ann", "secret")
    assert not await users.verify("ann", "secret")


def test_other_kinds_of_passwords_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text("ann:$apr1$abc$def\n")
    with pytest.raises(ValueError, match="line 1: not a user with a bcrypt password"):
        Users(path)


async def token_for(client: Client, challenge: str, **request: Any) -> str:
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    assert fields["realm"].endswith("/auth/token")
    query = {"service": fields["service"], "scope": fields.get("scope", "")}
    answer = await client.get("/auth/token", params=query, **request)
    assert answer.status == 200
    return str((await answer.json())["token"])


async def test_a_token_opens_what_was_asked_for(by_token: Client) -> None:
    refused = await by_token.post("/v2/a/b/blobs/uploads/")
    challenge = refused.headers["WWW-Authenticate"]
    assert 'scope="repository:a/b:pull,push"' in challenge
    token = await token_for(by_token, challenge, headers=password("ann", "secret"))
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await by_token.post("/v2/a/b/blobs/uploads/", headers=bearer)).status == 202
    elsewhere = await by_token.post("/v2/other/blobs/uploads/", headers=bearer)
    assert elsewhere.status == 401
    assert 'error="insufficient_scope"' in elsewhere.headers["WWW-Authenticate"]


async def test_anybody_may_get_a_token_to_pull_only(by_token: Client) -> None:
    refused = await by_token.post("/v2/a/blobs/uploads/")
    token = await token_for(by_token, refused.headers["WWW-Authenticate"])
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await by_token.get("/v2/a/manifests/v1", headers=bearer)).status == 404
    assert (await by_token.post("/v2/a/blobs/uploads/", headers=bearer)).status == 401


async def test_a_wrong_password_gets_no_token(by_token: Client) -> None:
    answer = await by_token.get("/auth/token", headers=password("ann", "wrong"))
    assert answer.status == 401


async def test_a_refresh_token_stands_for_the_password(by_token: Client) -> None:
    form = {"grant_type": "password", "username": "ann", "password": "secret"}
    form |= {"access_type": "offline", "scope": "repository:a:pull"}
    first = await (await by_token.post("/auth/token", data=form)).json()
    again = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    again["scope"] = "repository:a:pull,push"
    second = await (await by_token.post("/auth/token", data=again)).json()
    bearer = {"Authorization": f"Bearer {second['access_token']}"}
    assert (await by_token.post("/v2/a/blobs/uploads/", headers=bearer)).status == 202
    # It opens nothing by itself, nor does an access token refresh anything.
    wrong = {"Authorization": f"Bearer {first['refresh_token']}"}
    assert (await by_token.get("/v2/a/tags/list", headers=wrong)).status == 401
    again["refresh_token"] = second["access_token"]
    assert (await by_token.post("/auth/token", data=again)).status == 401


async def test_a_refresh_token_ends_with_its_user(by_token: Client, htpasswd: Path) -> None:
    form = {"grant_type": "password", "username": "ann", "password": "secret"}
    form["access_type"] = "offline"
    first = await (await by_token.post("/auth/token", data=form)).json()
    htpasswd.write_text("# nobody\n")
    again = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    assert (await by_token.post("/auth/token", data=again)).status == 401


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])
async def test_a_forged_token_opens_nothing(by_token: Client, token: str) -> None:
    answer = await by_token.get("/v2/a/tags/list", headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 401


async def test_tokens_of_another_issuer_count_by_its_certificate(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    bundle = tmp_path / "issuer.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    settings = service.Settings(
        tmp_path / "data",
        token_keys=bundle,
        token_realm="https://auth.example/token",
        token_issuer="example",
        token_service="reg",
    )
    claims = {
        "iss": "example",
        "aud": "reg",
        "sub": "ann",
        "exp": int(time.time()) + 60,
        "access": [{"type": "repository", "name": "a", "actions": ["pull"]}],
    }
    async for client in client_of(settings):
        refused = await client.get("/v2/a/tags/list")
        assert 'realm="https://auth.example/token"' in refused.headers["WWW-Authenticate"]
        for change, status in (({}, 404), ({"aud": "other"}, 401), ({"exp": 1}, 401)):
            token = jwt.encode({**claims, **change}, key, "ES256")
            bearer = {"Authorization": f"Bearer {token}"}
            assert (await client.get("/v2/a/tags/list", headers=bearer)).status == status


def test_scopes_are_read_and_rubbish_is_left_out() -> None:
    assert parse_scopes(["repository:localhost:5000/a:pull,push registry:catalog:*", "x"]) == [
        Scope("repository", "localhost:5000/a", ("pull", "push")),
        Scope("registry", "catalog", ("*",)),
    ]


@pytest.mark.parametrize("header", ["", "Basic", "Basic !!", "Basic eA==", "Bearer x"])
def test_what_is_no_password_is_none(header: str) -> None:
    assert basic(header) is None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"by_token": True}, "--auth token needs"),
        ({"token_keys": Path("/x")}, "--token-keys needs --token-realm"),
    ],
)
def test_contradicting_settings_are_refused(tmp_path: Path, wrong: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        service.server(service.Settings(tmp_path, **wrong))
