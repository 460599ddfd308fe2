"""What a new node is told, and whom it believes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import self_signed
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import bootstrap
from wherry.launcher import join, tokens
from wherry.launcher.join import Introduction, JoinFailed, introduction, verified

TOKEN = "abcdef.0123456789abcdef"
PIN = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1:6443", "192.0.2.1", 6443),
        ("api.example", "api.example", join.DEFAULT_PORT),
        ("https://api.example:443/", "api.example", 443),
        ("[2001:db8::1]:7443", "2001:db8::1", 7443),
        ("2001:db8::1", "2001:db8::1", join.DEFAULT_PORT),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    found = introduction(text, TOKEN, [PIN.upper().replace("SHA", "sha")], unpinned=False)
    assert (found.host, found.port, found.pins) == (host, port, (PIN,))


@pytest.mark.parametrize(
    "text", ["", ":6443", "a:b", "a:0", "a:65536", "[::1", "[a]:1", "http://a:1", "a/b", "a:1:2"]
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(JoinFailed, match="want HOST:PORT"):
        introduction(text, TOKEN, [PIN], unpinned=False)


@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.text(max_size=70)), st.booleans())
def test_whatever_is_said_is_an_introduction_or_a_sentence(
    endpoint: str, token: str, pins: list[str], unpinned: bool
) -> None:
    for given_token in (token, TOKEN):
        try:
            found = introduction(endpoint, given_token, pins, unpinned=unpinned)
        except JoinFailed as error:
            assert str(error)
        else:
            assert found.host and 0 < found.port < 65536


# ---- cluster-info


@pytest.fixture(scope="module")
def authority() -> bytes:
    return self_signed.authority()


def info(authority: bytes, **changes: Any) -> dict[str, str]:
    published = bootstrap.cluster_info("https://192.0.2.1:6443", authority.decode())
    secret = bootstrap.secret(TOKEN, expires=None)
    return {**bootstrap.signed(published["data"], [secret]), **changes}


def known(*pins: str, token: str = TOKEN) -> Introduction:
    return Introduction("192.0.2.1", 6443, token, pins)


def test_what_token_and_pin_vouch_for_is_believed(authority: bytes) -> None:
    pin = tokens.authority_pin(authority)
    told = "https://192.0.2.1:6443", authority.decode()
    assert verified(info(authority), known(pin)) == told
    assert verified(info(authority), known(PIN, pin)) == told
    assert verified(info(authority), known()) == told


def test_what_they_do_not_is_not(authority: bytes) -> None:
    pin = tokens.authority_pin(authority)
    with pytest.raises(JoinFailed, match="are pinned"):
        verified(info(authority), known(PIN))
    with pytest.raises(JoinFailed, match="could not find a JWS signature"):
        verified(info(authority), known(pin, token="bbbbbb.0123456789abcdef"))
    with pytest.raises(JoinFailed, match="failed to verify JWS signature"):
        verified(info(authority), known(pin, token="abcdef.fedcba9876543210"))
    other = bootstrap.cluster_info("https://198.51.100.1:6443", authority.decode())["data"]
    with pytest.raises(JoinFailed, match="failed to verify JWS signature"):
        verified({**info(authority), **other}, known(pin))
    with pytest.raises(JoinFailed, match="could not find a JWS signature"):
        verified({}, known(pin))


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_published_is_believed_or_told(content: str, signature: str) -> None:
    data = {
        bootstrap.INFO_KUBECONFIG: content,
        bootstrap.SIGNATURE_PREFIX + "abcdef": signature,
    }
    with pytest.raises(JoinFailed):
        verified(data, known())
    secret = bootstrap.secret(TOKEN, expires=None)
    with pytest.raises(JoinFailed):
        verified(bootstrap.signed({bootstrap.INFO_KUBECONFIG: content}, [secret]), known())
    odd = json.dumps({"clusters": [{"cluster": {"certificate-authority-data": content}}]})
    with pytest.raises(JoinFailed):
        verified(bootstrap.signed({bootstrap.INFO_KUBECONFIG: odd}, [secret]), known())
