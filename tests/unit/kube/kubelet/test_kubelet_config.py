"""The kubelet's configuration file."""

import re

import pytest

from wherry.kube.kubelet.config import DEFAULTS, ConfigFault, duration, load, parse
from wherry.kube.kubelet.eviction.thresholds import Amount

HEAD = b"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"


def test_without_a_file_upstreams_defaults_hold():
    assert DEFAULTS.max_pods == 110
    assert DEFAULTS.container_log_max_size == 10 << 20
    assert {t.signal: t.amount for t in DEFAULTS.thresholds} == {
        "memory.available": Amount(100 << 20),
        "nodefs.available": Amount(part=0.1),
        "nodefs.inodesFree": Amount(part=0.05),
        "imagefs.available": Amount(part=0.15),
        "imagefs.inodesFree": Amount(part=0.05),
    }
    assert DEFAULTS.shutdown == ()


def test_a_file_says_what_it_wants_and_leaves_the_rest(tmp_path):
    file = tmp_path / "kubelet.yaml"
    file.write_bytes(
        HEAD
        + b"""
maxPods: 7
evictionHard: {memory.available: 1Gi, pid.available: 10%}
evictionSoft: {memory.available: 2Gi}
evictionSoftGracePeriod: {memory.available: 1m30s}
evictionMinimumReclaim: {memory.available: 500Mi}
systemReserved: {cpu: 100m, memory: 1Gi}
shutdownGracePeriod: 30s
shutdownGracePeriodCriticalPods: 10s
authentication: {anonymous: {enabled: true}}
"""
    )
    told = load(file)
    assert told.max_pods == 7 and told.image_gc_high == 85
    assert [(t.signal, t.soft, t.grace) for t in told.thresholds] == [
        ("memory.available", False, 0),
        ("pid.available", False, 0),
        ("memory.available", True, 90),
    ]
    assert told.thresholds[0].reclaim == Amount(500 << 20)
    assert [(s.priority, s.seconds) for s in told.shutdown] == [(0, 20), (2_000_000_000, 10)]
    assert told.anonymous and told.document["authentication"]["webhook"]["enabled"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"kind: Pod\napiVersion: v1", 'no kind "Pod" is registered for version "v1"'),
        (HEAD + b"maxPodz: 1", 'strict decoding error: unknown field "maxPodz"'),
        (HEAD + b"maxPods: many", "maxPods: 'many' is not an int"),
        (HEAD + b"maxPods: true", "maxPods: True is not an int"),
        (HEAD + b"maxPods: -1", "must not be a negative number"),
        (HEAD + b"evictionHard: {disk.available: 1Gi}", "unsupported eviction signal"),
        (HEAD + b"evictionSoft: {memory.available: 1Gi}", "grace period must be specified"),
        (HEAD + b"evictionHard: {memory.available: 101%}", "must be between 0 and 100%"),
        (HEAD + b"evictionHard: {memory.available: much}", "quantities must match"),
        (HEAD + b"imageGCHighThresholdPercent: 70", "must be less than"),
        (HEAD + b"syncFrequency: [1]", "syncFrequency"),
        (HEAD + b"shutdownGracePeriod: soon", "invalid duration"),
        (b"[1]", "no object"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(body, fault):
    with pytest.raises(ConfigFault, match=re.escape(fault)):
        parse(body)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigFault, match="no such file or directory"):
        load(tmp_path / "none.yaml")


def test_durations_are_gos():
    assert [duration(t) for t in ("0s", "1h30m", "1.5s", "250ms", "0", "-3s")] == [
        *(0, 5400, 1.5, 0.25, 0, -3),
    ]
    for wrong in ("", "5", "s", "1 m", "1x"):
        with pytest.raises(ValueError, match="invalid duration"):
            duration(wrong)
