"""The proxy's mode as `wherry up` is told it."""

import shutil

import pytest

from wherry.launcher.up import UpFailed, up


def test_what_is_missing_for_mode_iptables_is_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    wanted = r"iptables-nft-restore is not installed \(Debian package iptables\)"
    with pytest.raises(UpFailed, match=f"mode iptables: {wanted}"):
        up(tmp_path / "data", proxy_mode="iptables")
    file = tmp_path / "config.yaml"
    head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
    file.write_text(f"{head}mode: iptables\n")
    with pytest.raises(UpFailed, match=f"mode iptables: {wanted}"):
        up(tmp_path / "data", proxy_config=str(file))
    file.write_text(f"{head}mode: ipvs\n")
    with pytest.raises(UpFailed, match="must be nftables, iptables or userspace"):
        up(tmp_path / "data", proxy_config=str(file))
    assert not (tmp_path / "data").exists()
