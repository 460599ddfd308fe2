"""How long a node's certificates hold, and what is said of a node that has none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import self_signed
from hypothesis import given
from hypothesis import strategies as st

from wherry.launcher import credentials
from wherry.launcher import instance as instances
from wherry.launcher.instance import Cluster, Instance

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=3))
def test_certificates_are_renewed_before_the_first_of_them_ends_and_not_at_once(
    seconds: list[int],
) -> None:
    term = credentials.term(NOW, [NOW + timedelta(seconds=n) for n in seconds])
    assert NOW < term.due < term.ends == NOW + timedelta(seconds=min(seconds))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    monkeypatch.setattr(instances, "RUN_ROOT", tmp_path / "run")
    monkeypatch.setattr(instances.surroundings, "networks_in_use", list)
    cluster = Cluster("https://192.0.2.1:6443", "10.50.0.0/16", "10.60.0.0/16", "cluster.local")
    return instances.open_or_create(tmp_path / "data", node_name="n", joined=cluster)


def _joined(node: Instance, days: float) -> None:
    for path in (node.data_dir / "kubelet.conf", node.data_dir / "proxy.conf", node.pki / "ca.crt"):
        path.write_text("x")
    credentials.server_file(node).write_text("x")
    lasts = [timedelta(days=days), timedelta(days=days + 1)]
    credentials._note(node, [self_signed.authority(each) for each in lasts])


def test_who_was_stopped_while_joining_is_told_to_join(node: Instance) -> None:
    assert "has not joined https://192.0.2.1:6443 to the end" in credentials.fault(node)
    _joined(node, 1)
    assert credentials.fault(node) == ""
    for path in (node.data_dir / "proxy.conf", credentials.server_file(node)):
        kept = path.read_text()
        path.unlink()
        assert "`wherry join` does" in credentials.fault(node)
        path.write_text(kept)
    (node.pki / "renew-at").write_text("2026-01-01T00:00:00+00:00")
    assert "has not joined" in credentials.fault(node)


def test_whose_certificates_have_ended_is_told_to_join_again(node: Instance) -> None:
    _joined(node, -1)
    assert "`wherry join` with a new token gets others" in credentials.fault(node)


def test_an_address_of_a_family_that_the_cluster_has_not_is_refused(node: Instance) -> None:
    assert instances.address_field(node, "192.0.2.9") == "node_ip"
    with pytest.raises(instances.InstanceError, match="2001:db8::1 is no IPv4 address"):
        instances.address_field(node, "2001:db8::1")
