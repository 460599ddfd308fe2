"""The controllers' options, by upstream's names."""

from __future__ import annotations

import pytest

from wherry.kube.controllers import Options, UnknownController, flags


def test_what_is_not_said_stays_as_it_is():
    base = Options(cluster_cidr="10.244.0.0/16", node_grace=3.0)
    assert flags.read([], base) == base


def test_options_have_upstreams_names_with_or_without_dashes():
    read = flags.read(
        [
            "controllers=*,-job-controller",
            "--node-monitor-grace-period=1m30s",
            "terminated-pod-gc-threshold=10",
            "load-balancer-pool=192.0.2.0/28,2001:db8::/64",
        ]
    )
    assert read.enabled == ("*", "-job-controller")
    assert read.node_grace == 90.0
    assert read.terminated_pods == 10
    assert read.load_balancer_pool == ("192.0.2.0/28", "2001:db8::/64")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("colour=red", "colour"),
        ("node-monitor-grace-period=40", "want a duration"),
        ("load-balancer-pool=here", "here"),
        ("cluster-signing-key-file=/x", "go together"),
    ],
)
def test_what_is_wrong_is_said(given: str, what: str):
    with pytest.raises(flags.BadOptions, match=what):
        flags.read([given])


def test_a_controller_that_there_is_not_is_refused():
    with pytest.raises(UnknownController, match='"colour" is not in the list'):
        flags.read(["controllers=*,-colour"])


def test_options_of_autoscalers_are_those_of_kube_controller_manager() -> None:
    told = flags.read(
        (
            "horizontal-pod-autoscaler-sync-period=1s",
            "--horizontal-pod-autoscaler-tolerance=0.2",
            "horizontal-pod-autoscaler-downscale-stabilization=1m",
        )
    ).autoscaling
    assert (told.period, told.tolerance, told.downscale_stabilization) == (1, 0.2, 60)
    assert told.cpu_initialization == 300


def test_files_are_kept_by_their_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.crt").write_text("PEM")
    assert flags.canonical(["root-ca-file=ca.crt", "controllers=*"]) == (
        f"root-ca-file={tmp_path / 'ca.crt'}",
        "controllers=*",
    )
