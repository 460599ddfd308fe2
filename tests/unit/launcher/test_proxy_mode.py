"""The proxy's mode as `wherry up` is told it."""

import shutil
from pathlib import Path

import pytest

from wherry.launcher import proxy_mode
from wherry.launcher.instance import Instance
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


def instance(**fields):
    return Instance(
        data_dir=Path("/nowhere"),
        slot=1,
        node_name="a",
        node_ip="192.0.2.1",
        api_port=6444,
        kubelet_port=10251,
        **fields,
    )


def test_what_is_said_of_the_mode_comes_before_the_configuration():
    file = (
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: iptables"
    )
    assert proxy_mode.of(instance()) == "nftables"
    assert proxy_mode.of(instance(proxy_config=file)) == "iptables"
    assert proxy_mode.of(instance(proxy_config=file, proxy_mode="userspace")) == "userspace"


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("iptables", "iptables"),
        ("userspace", "userspace"),
        ("nftables", ""),
        ("", ""),
        ("ipvs", ""),
    ],
)
def test_a_new_node_keeps_its_clusters_mode_where_it_is_known_and_not_the_default(told, kept):
    assert proxy_mode.of_new_node(told) == kept
