"""How tokens are shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from wherry.kube.api import bootstrap
from wherry.kube.api.bootstrap import BadToken
from wherry.launcher import tokens

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = "abcdef.0123456789abcdef"


@pytest.mark.parametrize(
    ("left", "shown"),
    [
        ({"seconds": -2}, "<invalid>"),
        ({"seconds": -1}, "0s"),
        ({"seconds": 59}, "59s"),
        ({"seconds": 61}, "1m"),
        ({"hours": 1}, "1h"),
        ({"hours": 23, "minutes": 59}, "23h"),
        ({"hours": 24}, "1d"),
        ({"days": 400}, "1y"),
    ],
)
def test_the_time_that_is_left_is_shown_in_one_unit(left: dict[str, int], shown: str) -> None:
    secret = bootstrap.secret(TOKEN, expires=NOW + timedelta(**left), description="mine")
    row = tokens.row(secret, NOW)
    assert row[:2] == (TOKEN, shown)
    assert row[3:] == ("authentication,signing", "mine", bootstrap.GROUP)


def test_a_token_for_ever_and_for_nothing_is_shown_so() -> None:
    secret = bootstrap.secret(TOKEN, expires=None, usages=(), groups=())
    assert tokens.row(secret, NOW)[1:] == ("<forever>", "<never>", *["<none>"] * 3)


def test_a_secret_that_is_no_token_is_told() -> None:
    secret = bootstrap.secret(TOKEN, expires=None)
    with pytest.raises(BadToken, match="not of the form"):
        tokens.row({**secret, "data": {}}, NOW)
    with pytest.raises(BadToken, match="bootstrap-token-abcdef"):
        tokens.row({**secret, "metadata": {"name": "other", "namespace": "kube-system"}}, NOW)
