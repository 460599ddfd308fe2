"""Tokens of ServiceAccounts: handed out by the API, judged by it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from apiserver_harness import API, config, pod

from wherry.kube.api import jose
from wherry.kube.api.account_tokens import legacy_claims
from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.authn import service_accounts
from wherry.kube.apiserver.authn.config import DEFAULT_ISSUER, Authentication
from wherry.kube.apiserver.server import SELF, APIServer

Object = dict[str, Any]
ACCOUNT = "serviceaccounts/default"
NAME = "system:serviceaccount:default:default"


async def request_token(api: API, account: str = ACCOUNT, **spec: Any) -> Object:
    answer = await api("POST", f"{account}/token", {"spec": spec})
    return answer["status"]


async def review(api: API, token: str, *audiences: str) -> Object:
    body = {"spec": {"token": token, "audiences": list(audiences)}}
    answer = await api("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
    return answer["status"]


def claims_of(token: str) -> Object:
    return jose.peek(token)[1]


async def test_a_token_stands_for_its_account(api: API) -> None:
    account = await api("GET", ACCOUNT)
    answer = await api("POST", f"{ACCOUNT}/token", {"spec": {}})
    assert answer["kind"] == "TokenRequest" and answer["metadata"]["name"] == "default"
    assert answer["spec"] == {"audiences": [DEFAULT_ISSUER], "expirationSeconds": 3600}
    token = answer["status"]["token"]
    claims = claims_of(token)
    assert claims["sub"] == NAME and claims["iss"] == DEFAULT_ISSUER
    assert claims["exp"] - claims["iat"] == 3600 and claims["aud"] == [DEFAULT_ISSUER]
    uid = account["metadata"]["uid"]
    assert claims["kubernetes.io"] == {
        "namespace": "default",
        "serviceaccount": {"name": "default", "uid": uid},
    }
    assert await review(api, token) == {
        "authenticated": True,
        "audiences": [DEFAULT_ISSUER],
        "user": {
            "username": NAME,
            "uid": uid,
            "groups": [
                "system:serviceaccounts",
                "system:serviceaccounts:default",
                "system:authenticated",
            ],
            "extra": {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]},
        },
    }


async def test_a_token_is_for_its_audiences(api: API) -> None:
    token = (await request_token(api, audiences=["vault", "x"]))["token"]
    refused = await review(api, token)
    assert refused == {
        "user": {},
        "error": "[invalid bearer token, token audiences is invalid for the target audiences]",
    }
    assert (await review(api, token, "y", "vault"))["audiences"] == ["vault"]


@pytest.mark.parametrize("seconds", [599, 0, -1, 2**32 + 1])
async def test_how_long_a_token_may_last(api: API, seconds: int) -> None:
    with pytest.raises(StatusError) as failure:
        await request_token(api, expirationSeconds=seconds)
    assert failure.value.code == 422
    assert "spec.expirationSeconds: Invalid value" in failure.value.message


async def test_a_token_ends(api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await request_token(api, expirationSeconds=600))["token"]
    end = claims_of(token)["exp"]
    monkeypatch.setattr(service_accounts.time, "time", lambda: end - 1)
    assert (await review(api, token))["authenticated"]
    monkeypatch.setattr(service_accounts.time, "time", lambda: end)
    refused = await review(api, token)
    assert refused["error"] == "[invalid bearer token, service account token has expired]"


async def test_a_token_bound_to_a_pod_ends_with_it(api: API) -> None:
    made = await api("POST", "pods", pod())
    uid = made["metadata"]["uid"]
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": uid}
    status = await request_token(api, boundObjectRef=bound, expirationSeconds=3607)
    claims = claims_of(status["token"])
    assert claims["kubernetes.io"]["pod"] == {"name": "web", "uid": uid}
    # it is late after the time that was asked for, and ends a year later
    assert claims["kubernetes.io"]["warnafter"] - claims["iat"] == 3607
    assert claims["exp"] - claims["iat"] == 365 * 24 * 3600
    user = (await review(api, status["token"]))["user"]
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["web"]
    assert user["extra"]["authentication.kubernetes.io/pod-uid"] == [uid]

    await api("DELETE", "pods/web", gracePeriodSeconds="0")
    assert "it is gone" in (await review(api, status["token"]))["error"]
    await api("POST", "pods", pod())
    assert "its UID is another one" in (await review(api, status["token"]))["error"]


async def test_what_a_token_cannot_be_bound_to(api: API) -> None:
    await api("POST", "pods", pod())
    await api("POST", "serviceaccounts", {"metadata": {"name": "other"}})

    async def refused(account: str = ACCOUNT, **reference: str) -> StatusError:
        with pytest.raises(StatusError) as failure:
            await request_token(api, account, boundObjectRef={"apiVersion": "v1", **reference})
        return failure.value

    assert (await refused(kind="Pod", name="none")).message == 'pods "none" not found'
    assert (await refused(kind="ConfigMap", name="x")).code == 400
    other = await refused("serviceaccounts/other", kind="Pod", name="web")
    assert other.message == (
        'cannot bind token for serviceaccount "other" to pod running with different '
        "serviceaccount name."
    )
    again = await refused(kind="Pod", name="web", uid="1-2-3")
    assert again.code == 409 and "the UID in the bound object reference (1-2-3)" in again.message
    assert (await refused("serviceaccounts/none")).message == 'serviceaccounts "none" not found'


async def test_a_token_ends_with_its_account(api: API) -> None:
    await api("POST", "serviceaccounts", {"metadata": {"name": "robot"}})
    token = (await request_token(api, "serviceaccounts/robot"))["token"]
    assert (await review(api, token))["authenticated"]
    await api("DELETE", "serviceaccounts/robot")
    assert "authenticated" not in await review(api, token)
    await api("POST", "serviceaccounts", {"metadata": {"name": "robot"}})
    assert "its UID is another one" in (await review(api, token))["error"]


async def test_a_forged_token_is_refused(api: API, server: APIServer) -> None:
    token = (await request_token(api))["token"]
    header, _, signature = token.split(".")
    claims = {**claims_of(token), "sub": "system:serviceaccount:kube-system:admin"}
    other = jose.generate()
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    for forged in (
        f"{header}.{body}.{signature}",
        f"{none}.{body}.",
        jose.sign(other, claims_of(token)),
        "nonsense",
        "é.é.é",
        "\udcff",
    ):
        assert "authenticated" not in await review(api, forged)
    # signed by us, but saying what we would not
    ours = server._identities.service_accounts.keys.signer
    for changes in (
        {"sub": "system:serviceaccount:kube-system:admin"},
        {"exp": "never"},
        {"exp": None},
        {"nbf": 2**40},
        {"aud": 3},
        {"kubernetes.io": None},
        {"kubernetes.io": {"namespace": "default"}},
        {"kubernetes.io": {"namespace": "default", "serviceaccount": {"name": 3}}},
        {"kubernetes.io": {**claims_of(token)["kubernetes.io"], "pod": "x"}},
        {"iss": "https://somebody.example"},
    ):
        signed = jose.sign(ours, {**claims_of(token), **changes})
        assert "authenticated" not in await review(api, signed), changes


async def test_a_token_in_a_secret_holds_as_long_as_the_secret(api: API, server: APIServer) -> None:
    account = await api("GET", ACCOUNT)
    secret = {
        "metadata": {
            "name": "old",
            "annotations": {"kubernetes.io/service-account.name": "default"},
        },
        "type": "kubernetes.io/service-account-token",
    }
    made = await api("POST", "secrets", secret)
    token = jose.sign(server._identities.service_accounts.keys.signer, legacy_claims(made, account))
    assert "Token does not match server's copy" in (await review(api, token))["error"]
    await api.merge("secrets/old", {"data": {"token": base64.b64encode(token.encode()).decode()}})
    status = await review(api, token)
    assert status["user"]["username"] == NAME and "extra" not in status["user"]
    await api("DELETE", "secrets/old")
    assert "Token has been invalidated" in (await review(api, token))["error"]


async def test_a_review_needs_a_token(api: API) -> None:
    with pytest.raises(StatusError, match="token is required for TokenReview in authentication"):
        await review(api, "")


async def test_everybody_may_ask_who_they_are(api: API) -> None:
    body = {"metadata": {}}
    answer = await api("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
    assert answer["status"]["userInfo"]["username"] == SELF.name


async def test_old_keys_are_believed_and_the_new_one_signs(tmp_path, store) -> None:
    old, new = tmp_path / "old.key", tmp_path / "new.key"
    for path in (old, new):
        path.write_bytes(jose.generate().private_pem())
    tokens = []
    for signing, believed in ((old, ()), (new, (old,)), (new, ())):
        told = Authentication(signing_key=signing, believed_keys=believed)
        server = APIServer(config(tmp_path, authentication=told), store)
        await server.open()
        api = API(server.transport(SELF))
        if not tokens:
            await api("POST", "serviceaccounts", {"metadata": {"name": "default"}})
        tokens.append((await request_token(api))["token"])
        good = [("authenticated" in await review(api, token)) for token in tokens]
        listed = [key["kid"] for key in server._identities.service_accounts.keys.key_set()["keys"]]
        await server.close()
        assert good == [[True], [True, True], [False, True, True]][len(tokens) - 1]
        assert len(listed) == 1 + len(believed)


async def test_a_longest_token_is_told_of(tmp_path, store) -> None:
    told = Authentication(longest_token=7200)
    server = APIServer(config(tmp_path, authentication=told), store)
    await server.open()
    api = API(server.transport(SELF))
    await api("POST", "serviceaccounts", {"metadata": {"name": "default"}})
    answer = await api("POST", f"{ACCOUNT}/token", {"spec": {"expirationSeconds": 10000}})
    claims = claims_of(answer["status"]["token"])
    assert claims["exp"] - claims["iat"] == 7200 == answer["spec"]["expirationSeconds"]
    await server.close()


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "x",
        {"spec": None},
        {"spec": []},
        {"spec": {"token": 3}},
        {"spec": {"token": "x", "audiences": "y"}},
        {"metadata": 3, "spec": {"token": "x"}},
        {"metadata": {"namespace": "n"}, "spec": {"token": "x"}},
    ],
)
async def test_a_bad_review_is_refused_in_a_status(api: API, body: Any) -> None:
    with pytest.raises(StatusError) as failure:
        await api("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
    assert 400 <= failure.value.code < 500


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"spec": []},
        {"spec": {"expirationSeconds": "x"}},
        {"spec": {"expirationSeconds": 10**30}},
        {"spec": {"boundObjectRef": 3}},
        {"spec": {"boundObjectRef": {"kind": "Pod"}}},
        {"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": 3}}},
        {"metadata": {"name": "other"}},
        {"metadata": {"namespace": "other"}},
    ],
)
async def test_a_bad_request_is_refused_in_a_status(api: API, body: Any) -> None:
    with pytest.raises(StatusError) as failure:
        await api("POST", f"{ACCOUNT}/token", body)
    assert 400 <= failure.value.code < 500
