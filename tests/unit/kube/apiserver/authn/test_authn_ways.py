"""Certificates, static and bootstrap tokens, front proxies, impersonation."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pytest
from apiserver_harness import API

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.authn import (
    ANONYMOUS,
    Authenticator,
    Peer,
    from_certificate,
    known,
    static,
)
from wherry.kube.apiserver.authn.authenticator import without_bearer
from wherry.kube.apiserver.authn.bootstrap_tokens import BootstrapTokens
from wherry.kube.apiserver.authn.config import add_flags, duration, from_flags
from wherry.kube.apiserver.authn.front_proxy import RequestHeader
from wherry.kube.apiserver.authn.impersonation import from_headers
from wherry.kube.apiserver.authn.ways import Refused
from wherry.kube.apiserver.flags import BadOptions, read
from wherry.kube.apiserver.request import RequestInfo, User
from wherry.kube.apiserver.server import APIServer

BOB = known("bob")


def test_a_certificate_names_its_user_and_groups() -> None:
    subject = ((("organizationName", "a"),), (("organizationName", "b"),), (("commonName", "x"),))
    assert from_certificate({"subject": subject}) == known("x", ("a", "b"))
    assert from_certificate({}) is None
    assert from_certificate({"subject": ((("organizationName", "a"),),)}) is None


def test_a_certificate_may_name_a_uid() -> None:
    subject = ((("1.3.6.1.4.1.57683.2", "u1"),), (("commonName", "x"),))
    user = from_certificate({"subject": subject}, b"der")
    assert user is not None and user.uid == "u1"
    (id,) = user.extra["authentication.kubernetes.io/credential-id"]
    assert id.startswith("X509SHA256=") and len(id) == 11 + 64


async def test_tokens_certificates_and_nobody() -> None:
    authenticator = Authenticator({"secret": BOB})
    assert await authenticator.authenticate(None, {"Authorization": "Bearer secret"}) == BOB
    assert await authenticator.authenticate(None, {"Authorization": "bearer  secret "}) == BOB
    assert await authenticator.authenticate(None, {}) == ANONYMOUS
    assert await authenticator.authenticate(None, {"Authorization": "Basic x"}) == ANONYMOUS
    wrong = {"Authorization": "Bearer wrong"}
    assert await authenticator.authenticate(Peer(known("c")), wrong) == known("c")
    for headers in (wrong, {"Authorization": "Bearer \udcff"}):
        with pytest.raises(StatusError) as failure:
            await authenticator.authenticate(None, headers)
        assert (failure.value.code, failure.value.message) == (401, "Unauthorized")
    with pytest.raises(StatusError):
        await Authenticator(anonymous=False).authenticate(None, {})


async def test_a_token_may_come_as_a_websocket_protocol() -> None:
    encoded = base64.urlsafe_b64encode(b"secret").rstrip(b"=").decode()
    header = f"v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.{encoded}"
    headers = {"Sec-WebSocket-Protocol": header}
    assert await Authenticator({"secret": BOB}).authenticate(None, headers) == BOB
    assert without_bearer(header) == "v4.channel.k8s.io"
    assert without_bearer(header.partition(", ")[2]) == ""


async def test_a_certificate_ends_while_its_connection_lasts() -> None:
    with pytest.raises(StatusError, match="Unauthorized"):
        await Authenticator().authenticate(Peer(BOB, until=time.time() - 1), {})


def test_static_tokens_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text('t1,alice,1,"dev, ops"\n\nt2,bob,2\n,nobody,3\n')
    assert static.read(file) == {
        "t1": known("alice", ("dev", "ops"), "1"),
        "t2": known("bob", uid="2"),
    }
    file.write_text("t1,alice,1\nt2,bob\n")
    with pytest.raises(ValueError, match="line 2: token file must have at least 3 columns"):
        static.read(file)


# --- front proxies --------------------------------------------------------------------------------


async def test_a_front_proxy_names_its_user(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("")
    told = RequestHeader(tmp_path / "ca.crt", ("front",), uid_headers=("X-Remote-Uid",))
    authenticator = Authenticator({"secret": BOB}, request_header=told)
    headers = {
        "X-Remote-User": "alice",
        "X-Remote-Uid": "7",
        "X-Remote-Group": "dev",
        "X-Remote-Extra-Acme.com%2Fproject": "p1",
    }
    proxy = Peer(known("front"), proxy=True)
    user = await authenticator.authenticate(proxy, headers)
    assert user == known("alice", ("dev",), "7") and user.extra == {"acme.com/project": ("p1",)}
    # who is no proxy cannot say so
    assert await authenticator.authenticate(None, headers) == ANONYMOUS
    assert await authenticator.authenticate(Peer(BOB), headers) == BOB
    # and a proxy that names nobody is nobody itself
    assert await authenticator.authenticate(proxy, {}) == ANONYMOUS
    assert not told.allows("other")


# --- bootstrap tokens -----------------------------------------------------------------------------


def bootstrap(**data: str) -> dict[str, Any]:
    held = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        **data,
    }
    return {
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": held,
    }


async def test_a_bootstrap_token_stands_for_a_bootstrapper(api: API, server: APIServer) -> None:
    way = BootstrapTokens(server._cache, ("api",))
    secrets = "/api/v1/namespaces/kube-system/secrets"
    token = "abcdef.0123456789abcdef"
    assert await way.authenticate(token, ("api",)) is None
    extra = "system:bootstrappers:kubeadm:default-node-token"
    await api("POST", secrets, bootstrap(**{"auth-extra-groups": extra}))
    found = await way.authenticate(token, ("api",))
    assert found is not None
    assert found.user == known("system:bootstrap:abcdef", ("system:bootstrappers", extra))
    for nothing in (
        "abcdeg.0123456789abcdef",
        "ABCDEF.0123456789abcdef",
        "abcdef.0123",
        token + "\n",
    ):
        assert await way.authenticate(nothing, ("api",)) is None
    with pytest.raises(Refused, match="does not match"):
        await way.authenticate("abcdef.0123456789abcdee", ("api",))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"expiration": "2020-01-01T00:00:00Z"}, "it has expired"),
        ({"expiration": "soon"}, "its expiration is no time"),
        ({"usage-bootstrap-authentication": "false"}, "it is not for authentication"),
        ({"token-id": "abcdeg"}, "the token id does not match"),
        ({"auth-extra-groups": "system:masters"}, "a group that is no bootstrapper's"),
        ({"token-secret": ""}, "the token secret does not match"),
    ],
)
async def test_a_bootstrap_token_that_is_not_good(
    api: API, server: APIServer, data: dict[str, str], why: str
) -> None:
    await api("POST", "/api/v1/namespaces/kube-system/secrets", bootstrap(**data))
    with pytest.raises(Refused, match=why):
        await BootstrapTokens(server._cache, ("api",)).authenticate(
            "abcdef.0123456789abcdef", ("api",)
        )


# --- impersonation --------------------------------------------------------------------------------


class Asked:
    """An authorizer that notes what it is asked, and allows it."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, ...]] = []

    async def check(self, user: User, info: RequestInfo) -> None:
        what = (info.verb, info.group, info.plural, info.subresource, info.namespace, info.name)
        self.questions.append(what)


async def test_each_part_of_an_identity_is_a_right() -> None:
    asked = Asked()
    headers = [
        ("Accept", "*/*"),
        ("Impersonate-User", "alice"),
        ("impersonate-group", "dev"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Extra-Acme.com%2Fproject", "p1"),
    ]
    user = await from_headers(BOB, headers, asked)  # type: ignore[arg-type]
    assert user == known("alice", ("dev",), "7") and user.extra == {"acme.com/project": ("p1",)}
    own = "authentication.k8s.io"
    assert asked.questions == [
        ("impersonate", "", "users", "", "", "alice"),
        ("impersonate", "", "groups", "", "", "dev"),
        ("impersonate", own, "userextras", "acme.com/project", "", "p1"),
        ("impersonate", own, "uids", "", "", "7"),
    ]
    plain = [("If-None-Match", "x")]
    assert await from_headers(BOB, plain, asked) is BOB  # type: ignore[arg-type]


async def test_a_service_account_comes_with_its_groups() -> None:
    asked = Asked()
    headers = [("Impersonate-User", "system:serviceaccount:ns:robot")]
    user = await from_headers(BOB, headers, asked)  # type: ignore[arg-type]
    assert user.groups == (
        "system:serviceaccounts",
        "system:serviceaccounts:ns",
        "system:authenticated",
    )
    assert asked.questions == [("impersonate", "", "serviceaccounts", "", "ns", "robot")]


@pytest.mark.parametrize("header", ["Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-x"])
async def test_parts_of_nobody_are_refused(header: str) -> None:
    with pytest.raises(StatusError, match="without impersonating a user"):
        await from_headers(BOB, [(header, "x")], Asked())  # type: ignore[arg-type]


# --- options --------------------------------------------------------------------------------------


def test_options_are_upstreams() -> None:
    told = from_flags(
        read(
            [
                "--service-account-issuer=https://a",
                "service-account-issuer=https://b",
                "oidc-issuer-url=https://c",
                "oidc-client-id=me",
                "oidc-required-claim=hd=x",
                "service-account-max-token-expiration=2h",
            ]
        )
    )
    assert told.issuers == ("https://a", "https://b") == told.own_audiences
    assert told.oidc is not None and told.oidc.required_claims == (("hd", "x"),)
    assert told.longest_token == 7200
    assert duration("1h30m5s") == 5405
    for wrong in (
        ["no-such-option=1"],
        ["anonymous-auth=perhaps"],
        ["service-account-max-token-expiration=5"],
    ):
        with pytest.raises(BadOptions):
            read(wrong)
    for wrong in (["oidc-client-id=me"], ["service-account-max-token-expiration=5m"]):
        with pytest.raises(ValueError):
            from_flags(read(wrong))
    assert callable(add_flags)
