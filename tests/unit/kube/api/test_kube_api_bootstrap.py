"""Tokens, and what they sign."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import bootstrap

TOKENS = st.from_regex(r"[a-z0-9]{6}\.[a-z0-9]{16}", fullmatch=True)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_signature_is_that_of_upstream() -> None:
    # From the documentation of cluster-info: header of HS256 with the token's id, detached.
    made = bootstrap.sign("content", "abcdef", "0123456789abcdef")
    assert made.startswith("eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..")


@given(TOKENS, st.text(), st.text())
def test_a_signature_is_good_for_what_was_signed_alone(token: str, said: str, other: str) -> None:
    identity, kept = bootstrap.split(token)
    made = bootstrap.sign(said, identity, kept)
    assert bootstrap.verified(made, said, identity, kept)
    assert bootstrap.verified(made, other, identity, kept) == (said == other)
    assert not bootstrap.verified(made, said, identity, "x" * 17)


@given(st.text())
def test_nonsense_is_no_signature(text: str) -> None:
    assert not bootstrap.verified(text, "content", "abcdef", "0123456789abcdef")


def test_new_tokens_have_the_form_of_tokens() -> None:
    assert bootstrap.split(bootstrap.new_token())
    with pytest.raises(bootstrap.BadToken, match="was not of the form"):
        bootstrap.split("ABCDEF.0123456789abcdef")
    assert bootstrap.token_id("abcdef.0123456789abcdef") == "abcdef"
    assert bootstrap.token_id("abcdef") == "abcdef"
    with pytest.raises(bootstrap.BadToken, match="didn't match"):
        bootstrap.token_id("abc")


def test_groups_and_usages_are_judged() -> None:
    token = "abcdef.0123456789abcdef"
    with pytest.raises(bootstrap.BadToken, match="is invalid"):
        bootstrap.secret(token, expires=None, groups=["system:masters"])
    with pytest.raises(bootstrap.BadToken, match="usage"):
        bootstrap.secret(token, expires=None, usages=["ruling"])
    made = bootstrap.secret(token, expires=NOW, description="for b")
    assert made["metadata"]["name"] == "bootstrap-token-abcdef"
    assert bootstrap.is_token(made)
    assert bootstrap.expiry(made) == NOW
    assert bootstrap.field(made, "auth-extra-groups") == bootstrap.GROUP


def test_only_tokens_that_are_good_for_it_sign() -> None:
    def token(identity: str, **said: object) -> dict[str, object]:
        text = f"{identity}.0123456789abcdef"
        return bootstrap.secret(text, **{"expires": None, **said})  # type: ignore[arg-type]

    tokens = [
        token("good00"),
        token("later0", expires=NOW + timedelta(seconds=1)),
        token("ended0", expires=NOW),
        token("silent", usages=["authentication"]),
    ]
    info = {"kubeconfig": "text", "jws-kubeconfig-gone00": "old", "note": "kept"}
    data = bootstrap.signed(info, tokens, NOW)
    assert set(data) == {"kubeconfig", "note", "jws-kubeconfig-good00", "jws-kubeconfig-later0"}
    assert bootstrap.signed(data, tokens, NOW) == data
