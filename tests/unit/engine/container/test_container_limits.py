"""Limits that make no sense are refused, those that cannot be set are discarded with a warning."""

import os

import pytest
from containers_helper import make

from wherry.engine.container import limits
from wherry.engine.errors import BadParameter, Conflict, EngineError
from wherry.runtime.features import Features

ALL = Features(cpus="0-1", mems="0")
NONE = Features(
    *(False,) * 5,
    cpu_shares=False,
    cpu_quota=False,
    cpu_realtime=False,
    cpuset=False,
    pids=False,
    block_weight=False,
    block_weight_device=False,
    block_throttle=False,
)
CPUS = len(os.sched_getaffinity(0))


def host(**given):
    return make(host=given).host_config


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"Memory": -1}, "Minimum memory limit allowed is 6MB"),
        ({"MemoryReservation": 1}, "Minimum memory reservation allowed is 6MB"),
        (
            {"Memory": 8 << 20, "MemoryReservation": 9 << 20},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        ({"MemorySwappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        (
            {"NanoCpus": 10**15},
            f"range of CPUs is from 0.01 to {CPUS}.00, as there are only {CPUS} CPUs available",
        ),
        (
            {"CpuPeriod": 10},
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ({"CpuQuota": 10}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({"CpusetCpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        (
            {"CpusetCpus": "0-9000"},
            "Invalid value 0-9000 for cpuset cpus: value of out range, maximum is 8192",
        ),
        (
            {"CpusetCpus": "0,7"},
            "Requested CPUs are not available - requested 0,7, available: 0-1",
        ),
        (
            {"CpusetMems": "1"},
            "Requested memory nodes are not available - requested 1, available: 0",
        ),
        ({"BlkioWeight": 5}, "Range of blkio weight is from 10 to 1000"),
        (
            {"IOMaximumIOps": 5},
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps",
        ),
        ({"KernelMemory": 5}, "Minimum kernel memory limit allowed is 6MB"),
    ],
)
def test_limits_out_of_range_are_refused_in_docker_s_words(given, text):
    with pytest.raises(BadParameter) as caught:
        limits.check(host(**given), ALL)
    assert caught.value.message == text


@pytest.mark.parametrize(
    ("given", "word", "left"),
    [
        ({"Memory": 8 << 20}, "memory limit capabilities", {"Memory": 0, "MemorySwap": -1}),
        ({"MemorySwappiness": 5}, "memory swappiness", {"MemorySwappiness": None}),
        ({"MemoryReservation": 8 << 20}, "memory soft limit", {"MemoryReservation": 0}),
        ({"OomKillDisable": True}, "OomKillDisable discarded", {"OomKillDisable": None}),
        ({"PidsLimit": 5}, "PIDs limit discarded", {"PidsLimit": None}),
        ({"CpuShares": 5}, "Shares discarded", {"CpuShares": 0}),
        ({"CpuQuota": 5000}, "CPU period/quota discarded", {"CpuQuota": 0}),
        ({"CpusetCpus": "0"}, "Cpuset discarded", {"CpusetCpus": ""}),
        ({"BlkioWeight": 50}, "Weight discarded", {"BlkioWeight": 0}),
        (
            {"BlkioDeviceReadBps": [{"Path": "/dev/x", "Rate": 1}]},
            "Block I/O BPS read limit discarded",
            {"BlkioDeviceReadBps": []},
        ),
        ({"KernelMemory": 8 << 20}, "deprecated", {"KernelMemory": 0}),
        ({"CpuPercent": 5}, "Percent discarded", {"CpuPercent": 0}),
    ],
)
def test_what_the_kernel_cannot_limit_is_discarded_with_a_warning(given, word, left):
    made = host(**given)
    assert any(word in warning for warning in limits.check(made, NONE))
    assert {name: made[name] for name in left} == left


def test_a_limit_that_is_not_set_needs_no_warning():
    assert limits.check(host(), NONE) == []


def test_disabling_the_killer_without_a_limit_is_warned_of():
    assert "no memory limit is set" in limits.check(host(OomKillDisable=True), ALL)[0]
    assert limits.check(host(OomKillDisable=True, Memory=8 << 20), ALL) == []


def test_an_update_leaves_what_is_not_named():
    before = host(Memory=8 << 20, CpuShares=5, PidsLimit=3)
    after = limits.updated(before, host(CpuShares=7))
    assert (after["Memory"], after["CpuShares"], after["PidsLimit"]) == (8 << 20, 7, 3)
    assert limits.updated(before, {**host(), "PidsLimit": 0})["PidsLimit"] == 0


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            {"CpuQuota": 5000},
            {"NanoCpus": 10**9},
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        ),
        (
            {"NanoCpus": 10**9},
            {"CpuPeriod": 5000},
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        ),
    ],
)
def test_an_update_must_go_with_what_is_set(old, new, text):
    with pytest.raises(Conflict) as caught:
        limits.updated(host(**old), host(**new))
    assert caught.value.message == text


def test_memory_is_not_raised_above_the_swap_that_stays():
    before = host(Memory=8 << 20)
    with pytest.raises(Conflict, match="update the memoryswap at the same time"):
        limits.updated(before, {**host(), "Memory": 32 << 20})
    after = limits.updated(before, {**host(), "Memory": 32 << 20, "MemorySwap": 64 << 20})
    assert after["Memory"] == 32 << 20


def test_block_devices_become_numbers():
    made = limits.limits(host(BlkioDeviceReadBps=[{"Path": "/dev/null", "Rate": 7}]))
    assert [(b.major, b.minor, b.value) for b in made.read_bytes] == [(1, 3, 7)]
    with pytest.raises(EngineError, match="stat /dev/nope: no such file or directory"):
        limits.limits(host(BlkioWeightDevice=[{"Path": "/dev/nope", "Weight": 7}]))


def test_huge_pages_come_from_an_annotation():
    def made(text):
        return limits.limits(host(Annotations={limits.HUGE_PAGES: text})).huge_pages

    assert limits.limits(host()).huge_pages == {}
    assert made("1GB=0,2MB=4194304") == {"1GB": 0, "2MB": 4 << 20}
    with pytest.raises(BadParameter, match="it is like 2MB="):
        made("many")
