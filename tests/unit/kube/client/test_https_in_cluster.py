"""A pod's way to the API: by the environment and the files of its ServiceAccount."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherry.kube.client.https import KubeconfigError, in_cluster


def test_outside_of_a_pod_it_is_said_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(KubeconfigError, match="KUBERNETES_SERVICE_HOST"):
        in_cluster(account=tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(KubeconfigError, match="token"):
        in_cluster(account=tmp_path)


def test_a_token_that_is_exchanged_is_used(tmp_path: Path):
    from wherry.kube.client.https import HTTPSTransport

    token = tmp_path / "token"
    token.write_text("one\n")
    transport = HTTPSTransport("http://127.0.0.1:1", token_file=token)
    assert transport._who() == {"Authorization": "Bearer one"}
    token.write_text("two\n")
    assert transport._who() == {"Authorization": "Bearer two"}
    token.unlink()
    with pytest.raises(ConnectionError, match="token"):
        transport._who()
