"""Which trees of cgroups there are, and what their files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherry.runtime import cgroups, groups, usage
from wherry.runtime.cgroups import Layout, layout_of
from wherry.runtime.groups import GroupLimits
from wherry.runtime.types import BlockCount

V2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
OURS = "42 31 0:39 / /sys/fs/cgroup/hugetlb rw - cgroup wherry rw,hugetlb,favordynmods\n"
ELSEWHERE = "50 1 0:50 /x /srv/copy rw - cgroup cgroup rw,pids\n"
ROOT = Path("/sys/fs/cgroup")


def test_one_tree_is_v2() -> None:
    layout = layout_of(V2)
    assert layout.is_v2
    assert layout.trees == (ROOT,)
    assert layout.group("memory", "/a/b") == ROOT / "a/b"


def test_a_tree_for_each_controller_is_v1() -> None:
    layout = layout_of(V1 + ELSEWHERE)
    assert not layout.is_v2
    assert layout.trees == (ROOT / "cpu,cpuacct", ROOT / "memory", ROOT / "systemd")
    assert layout.group("cpuacct", "/a") == ROOT / "cpu,cpuacct/a"
    assert layout.group("pids", "/a") is None


def test_both_are_hybrid_and_v1_counts() -> None:
    layout = layout_of(V1 + UNIFIED)
    assert not layout.is_v2
    assert layout.unified == ROOT / "unified"
    assert ROOT / "unified" in layout.trees
    assert not layout.hugetlb_is_ours
    assert layout_of(V1 + UNIFIED + OURS).hugetlb_is_ours


@pytest.fixture
def v1(tmp_path: Path) -> Layout:
    names = ("memory", "cpuacct", "cpuset", "freezer", "pids", "blkio")
    for name in names:
        (tmp_path / name).mkdir()
    for name in ("cpuset.cpus", "cpuset.mems"):
        (tmp_path / "cpuset" / name).write_text("0-1\n")
    return Layout({name: tmp_path / name for name in names}, None)


@pytest.fixture
def v2(tmp_path: Path) -> Layout:
    (tmp_path / "unified").mkdir()
    return Layout({}, tmp_path / "unified")


def test_a_group_is_made_in_every_tree_and_a_cpuset_is_filled(v1: Layout) -> None:
    cgroups.make(v1, "/w/monitors")
    cgroups.make(v1, "/w/monitors")
    for tree in v1.trees:
        assert (tree / "w/monitors").is_dir()
    assert (v1.v1["cpuset"] / "w/monitors/cpuset.cpus").read_text() == "0-1\n"


def test_a_cpuset_whose_maker_was_killed_is_filled_by_the_next(v1: Layout) -> None:
    group = v1.v1["cpuset"] / "w"
    group.mkdir()
    (group / "cpuset.cpus").write_text("0\n")  # the kernel has both files from the beginning
    (group / "cpuset.mems").write_text("\n")
    cgroups.make(v1, "/w/monitors")
    assert (group / "cpuset.mems").read_text() == "0-1\n"
    for group_or_inner in (group, group / "monitors"):
        assert (group_or_inner / "cpuset.cpus").read_text() == "0\n"


def test_empty_groups_go_up_to_the_root_and_no_further(v2: Layout) -> None:
    cgroups.make(v2, "/w/kubepods/pod1/c1")
    cgroups.make(v2, "/w/kubepods/pod2/c2")
    assert cgroups.remove(v2, "/w/kubepods/pod1/c1")
    cgroups.prune(v2, "/w/kubepods/pod1/c1", "/w")
    assert v2.unified is not None
    assert not (v2.unified / "w/kubepods/pod1").exists()
    assert (v2.unified / "w/kubepods/pod2/c2").exists()
    assert cgroups.remove(v2, "/w/kubepods/pod2/c2")
    cgroups.prune(v2, "/w/kubepods/pod2/c2", "/w")
    assert [path.name for path in v2.unified.rglob("*")] == ["w"]
    assert cgroups.remove(v2, "/none")


def test_processes_of_inner_groups_count(v2: Layout) -> None:
    cgroups.make(v2, "/w/c/inner")
    assert v2.unified is not None
    (v2.unified / "w/c/cgroup.procs").write_text("3\n1\n")
    (v2.unified / "w/c/inner/cgroup.procs").write_text("2\n")
    assert cgroups.processes(v2, "/w/c") == [1, 2, 3]
    assert cgroups.processes(v2, "/gone") == []


def test_freezing_is_seen_and_undone(v1: Layout, v2: Layout) -> None:
    for layout, name, shown, thawed in (
        (v1, "freezer/w/freezer.state", "FROZEN\n", "THAWED"),
        (v2, "unified/w/cgroup.freeze", "1\n", "0"),
    ):
        cgroups.make(layout, "/w")
        file = layout.trees[0].parent / name
        file.write_text(shown)
        assert cgroups.frozen(layout, "/w")
        cgroups.thaw(layout, "/w")
        assert file.read_text() == thawed
        assert not cgroups.frozen(layout, "/w")
    assert not cgroups.frozen(v2, "/gone")


def test_usage_in_v1(v1: Layout) -> None:
    cgroups.make(v1, "/w")
    tree = v1.trees[0].parent
    for name, text in {
        "cpuacct/w/cpuacct.usage": "5000\n",
        "cpuacct/w/cpuacct.stat": "user 2\nsystem 3\n",
        "memory/w/memory.usage_in_bytes": "1000\n",
        "memory/w/memory.limit_in_bytes": "4096\n",
        "memory/w/memory.stat": "cache 1\ntotal_inactive_file 300\n",
        "memory/w/memory.oom_control": "oom_kill_disable 0\noom_kill 2\n",
        "pids/w/pids.current": "4\n",
        "pids/w/pids.max": "max\n",
        "blkio/w/blkio.throttle.io_service_bytes_recursive": "8:0 Read 7\n8:0 Write 9\nTotal 16\n",
    }.items():
        (tree / name).write_text(text)
    found = usage.read(v1, "/w")
    assert (found.cpu_total, found.memory, found.memory_working_set) == (5000, 1000, 700)
    assert (found.memory_limit, found.pids) == (4096, 4)
    assert list(found.block["io_service_bytes_recursive"]) == [
        BlockCount(8, 0, "Read", 7),
        BlockCount(8, 0, "Write", 9),
    ]
    assert found.cpu_user == 20_000_000
    assert usage.oom_kills(v1, "/w") == 2


def test_groups_limit_huge_pages_used_and_reserved_in_both_versions() -> None:
    limits = GroupLimits(huge_pages={"2MB": 4096})
    assert groups.files(limits, v2=True) == [
        ("hugetlb", "hugetlb.2MB.max", "4096"),
        ("hugetlb", "hugetlb.2MB.rsvd.max", "4096"),
    ]
    assert groups.files(limits, v2=False) == [
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4096"),
        ("hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", "4096"),
    ]


def test_usage_in_v2(v2: Layout) -> None:
    cgroups.make(v2, "/w")
    assert v2.unified is not None
    for name, text in {
        "cpu.stat": "usage_usec 5\nuser_usec 2\nsystem_usec 3\n",
        "memory.current": "1000\n",
        "memory.max": "max\n",
        "memory.stat": "inactive_file 2000\n",
        "memory.events": "oom 1\noom_kill 1\n",
        "pids.current": "4\n",
        "io.stat": "8:0 rbytes=7 wbytes=9 rios=1\n254:0 rbytes=1\n",
    }.items():
        (v2.unified / "w" / name).write_text(text)
    found = usage.read(v2, "/w")
    assert (found.cpu_total, found.memory, found.memory_working_set) == (5000, 1000, 0)
    assert found.memory_limit == usage.total_memory() > 0
    assert list(found.block["io_service_bytes_recursive"]) == [
        BlockCount(8, 0, "read", 7),
        BlockCount(8, 0, "write", 9),
        BlockCount(254, 0, "read", 1),
    ]
    assert found.memory_failures == 1
    assert usage.oom_kills(v2, "/w") == 1


def test_usage_of_a_group_that_is_gone_is_nothing(v1: Layout, v2: Layout) -> None:
    for layout in (v1, v2):
        found = usage.read(layout, "/gone")
        assert (found.cpu_total, found.memory, found.pids) == (0, 0, 0)
        assert usage.oom_kills(layout, "/gone") == 0
