from __future__ import annotations

import json
from pathlib import Path

import pytest

from wherry.kube.apiserver.flags import BadOptions, canonical, read, settings


def test_options_are_kept_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("t,alice,1\n")
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
    (tmp_path / "p.yaml").write_text(json.dumps(policy))
    kept = canonical(
        ["--token-auth-file=t.csv", "audit-policy-file=p.yaml", "audit-log-path=a.log"]
    )
    assert kept == (
        f"token-auth-file={tmp_path}/t.csv",
        f"audit-policy-file={tmp_path}/p.yaml",
        f"audit-log-path={tmp_path}/a.log",
    )
    assert settings(read(kept))["audit"].log == f"{tmp_path}/a.log"


def test_nothing_given_is_what_a_server_has_by_itself() -> None:
    given = settings(read([]))
    assert given["audit"] is None and given["encryption"] is None and given["anonymous"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["no-such=1"],
        ["anonymous-auth=perhaps"],
        ["audit-policy-file=/nowhere", "audit-log-path=-"],
        ["token-auth-file=/nowhere"],
        ["encryption-provider-config=/nowhere"],
        ["authentication-config=/nowhere"],
    ],
)
def test_what_is_wrong_is_said_before_anything_is_kept(wrong: list[str]) -> None:
    with pytest.raises((BadOptions, OSError)):
        canonical(wrong)
