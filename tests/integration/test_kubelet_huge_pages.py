"""Huge pages on a real kernel: what the node has, what pods may use, volumes made of them."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually
from pods_on_node import container, events, make, ready

PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
PATIENCE = 60.0


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """Nobody beside us changes how many huge pages the machine has."""
    if not PAGES.exists():
        pytest.skip("this kernel has no huge pages of 2 MiB")
    with PAGES.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def paged(alone: None, new_instance: Callable[[], Instance]) -> Iterator[Instance]:
    """An instance on a kernel with eight huge pages more than before, which are given back."""
    before = int(PAGES.read_text())
    try:
        PAGES.write_text(str(before + 8))
    except OSError as error:
        pytest.skip(f"huge pages cannot be had here: {error}")
    instance = new_instance()
    try:
        if int(PAGES.read_text()) < before + 8:
            pytest.skip("there is no memory in one piece for huge pages")
        instance.wherry("up", "--sample")
        yield instance
        instance.wherry("down", "--purge", "--grace", "1")
    finally:
        PAGES.write_text(str(max(0, int(PAGES.read_text()) - 8)))


def sh(cluster: Instance, name: str, script: str) -> tuple[int, str]:
    done = cluster.kubectl("exec", name, "--", "sh", "-c", script, ok=False)
    return done.code, done.out


def asking(pages: str, **fields: Any) -> dict[str, Any]:
    return container(resources={"limits": {"hugepages-2Mi": pages, "memory": "64Mi"}}, **fields)


def limit_of(uid: str) -> str:
    """What the pod may use as a whole, in bytes."""
    for pattern in (
        f"hugetlb/wherry*/kubepods/**/pod{uid}/hugetlb.2MB.limit_in_bytes",
        f"wherry*/kubepods/**/pod{uid}/hugetlb.2MB.max",
    ):
        for file in Path("/sys/fs/cgroup").glob(pattern):
            return file.read_text().strip()
    pytest.skip("this kernel does not limit huge pages")


def test_the_node_tells_of_its_huge_pages(paged: Instance) -> None:
    (node,) = paged.get("nodes")["items"]
    there = f"{int(PAGES.read_text()) * 2}Mi"
    assert node["status"]["capacity"]["hugepages-2Mi"] == there
    assert node["status"]["allocatable"]["hugepages-2Mi"] == there
    kept = int(node["status"]["capacity"]["memory"][:-2])
    assert int(node["status"]["allocatable"]["memory"][:-2]) <= kept - 16 * 1024
    described = paged.kubectl("describe", "node", node["metadata"]["name"]).out
    assert "hugepages-2Mi" in described


def test_a_pod_uses_as_many_as_it_may_in_volumes_of_them(paged: Instance) -> None:
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("any", "sized")]
    make(
        *(paged, "default", "huge", asking("4Mi", volumeMounts=mounts)),
        volumes=[
            {"name": "any", "emptyDir": {"medium": "HugePages"}},
            {"name": "sized", "emptyDir": {"medium": "HugePages-2Mi"}},
        ],
    )
    make(paged, "default", "plain")
    ready(paged, "default", "huge", "plain")
    code, told = sh(paged, "huge", "grep hugetlbfs /proc/mounts")
    assert code == 0 and {line.split()[1] for line in told.splitlines()} == {"/any", "/sized"}
    assert "pagesize=2M" in told
    code, _ = sh(paged, "huge", "fallocate -l 2M /any/a && fallocate -l 2M /sized/b")
    assert code == 0
    code, _ = sh(paged, "huge", "fallocate -l 2M /any/c")
    assert code != 0, "more than the limit, though the node has more"
    code, _ = sh(paged, "huge", "rm /any/* && fallocate -l 2M /sized/d")
    assert code == 0
    pod, plain = (paged.get("pod", name) for name in ("huge", "plain"))
    assert limit_of(pod["metadata"]["uid"]) == str(4 << 20)
    assert limit_of(plain["metadata"]["uid"]) == "0"
    paged.kubectl("delete", "pod", "huge", "plain", "--now")
    assert not [line for line in mounted() if pod["metadata"]["uid"] in line]


def mounted() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def test_what_the_node_has_not_is_told(paged: Instance) -> None:
    more = f"{int(PAGES.read_text()) * 2 + 2}Mi"
    make(paged, "default", "many", asking(more))
    eventually(
        lambda: "Insufficient hugepages-2Mi" in events(paged, "default", "many"),
        seconds=PATIENCE,
    )
    odd = {"limits": {"hugepages-64Ki": "64Ki", "memory": "64Mi"}}
    node = paged.get("nodes")["items"][0]["metadata"]["name"]
    make(paged, "default", "odd", container(resources=odd), nodeName=node)
    eventually(
        lambda: paged.get("pod", "odd")["status"].get("reason") == "OutOfhugepages-64Ki",
        seconds=PATIENCE,
    )
    make(
        *(paged, "default", "none"),
        container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "emptyDir": {"medium": "HugePages"}}],
    )
    text = "hugePages storage requested, but there is no resource request for huge pages"
    eventually(lambda: text in events(paged, "default", "none"), seconds=PATIENCE)
    paged.kubectl("delete", "pod", "--all", "--now")
