"""What pods may use, in the kernel's units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.kubelet import resources
from wherry.kube.kubelet.resources import linux_resources, pod_resources, qos_class

GI, MI = 1 << 30, 1 << 20
SIZES = ("1Gi", "2Mi")


def box(name="a", *, requests=None, limits=None):
    return {"name": name, "resources": {"requests": requests or {}, "limits": limits or {}}}


def pod(*containers, **spec):
    return {
        "metadata": {"name": "p", "namespace": "d", "uid": "u"},
        "spec": {"containers": list(containers), **spec},
    }


@pytest.mark.parametrize(
    ("containers", "kind"),
    [
        ([box()], "BestEffort"),
        ([box(requests={"cpu": "0"})], "BestEffort"),
        ([box(requests={"ephemeral-storage": "1Gi", "example.com/x": "1"})], "BestEffort"),
        ([box(requests={"cpu": "1"})], "Burstable"),
        ([box(limits={"cpu": "1"})], "Burstable"),
        ([box(limits={"cpu": "1", "memory": "1Gi"})], "Guaranteed"),
        ([box(limits={"cpu": "1", "memory": "1Gi"}), box("b")], "Burstable"),
        ([box(limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "900m"})], "Burstable"),
        ([box(limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "1000m"})], "Guaranteed"),
    ],
)
def test_quality_of_service_is_of_the_pod_as_a_whole(containers, kind):
    assert qos_class(pod(*containers)) == kind


def test_where_pods_lie_says_their_class():
    limits = {"cpu": "1", "memory": "1Gi"}
    assert resources.cgroup_parent(pod(box(limits=limits))) == "kubepods/podu"
    assert resources.cgroup_parent(pod(box(limits={"cpu": "1"}))) == "kubepods/burstable/podu"
    assert resources.cgroup_parent(pod(box())) == "kubepods/besteffort/podu"


def test_cpu_and_memory_are_in_the_kernels_units():
    made = linux_resources(
        pod(), box(requests={"cpu": "100m"}, limits={"cpu": "500m", "memory": "64Mi"}), 4 * GI
    )
    assert (made.cpu_shares, made.cpu_quota, made.cpu_period) == (102, 50_000, 100_000)
    assert made.memory_limit == 64 * MI
    free = linux_resources(pod(), box(), 4 * GI)
    assert (free.cpu_shares, free.cpu_quota, free.memory_limit) == (2, 0, 0)
    unbound = linux_resources(pod(), box(limits={"cpu": "500m"}), 4 * GI, quota=False)
    assert (unbound.cpu_shares, unbound.cpu_quota) == (512, 0)


@given(st.integers(0, 64 * GI), st.integers(1, 64 * GI), st.sampled_from([0, 2 * 10**9]))
def test_the_kernel_kills_best_effort_first_and_guaranteed_last(request, capacity, priority):
    def score(*containers):
        made = pod(*containers, priority=priority)
        return resources.oom_score_adjustment(made, containers[0], capacity)

    humble = score(box())
    middle = score(box(requests={"memory": str(request), "cpu": "1"}))
    high = score(box(limits={"memory": "1Gi", "cpu": "1"}))
    if priority:
        assert humble == middle == high == -997
    else:
        assert -997 == high < 2 < middle < humble == 1000


def test_a_pod_is_limited_where_all_of_its_containers_are():
    limits = {"cpu": "500m", "memory": "64Mi"}
    both = pod_resources(pod(box(limits=limits), box("b", limits=limits)))
    assert (both.memory_limit, both.cpu_quota) == (128 * MI, 100_000)
    one = pod_resources(pod(box(limits=limits), box("b")))
    assert (one.memory_limit, one.cpu_quota) == (0, 0)
    whole = pod_resources(pod(box(), resources={"limits": {"memory": "1Gi"}}))
    assert whole.memory_limit == GI


def test_huge_pages_are_none_unless_there_is_a_limit():
    plain = pod(box())
    assert pod_resources(plain, page_sizes=SIZES).hugepage_limits == {"1GB": 0, "2MB": 0}
    assert linux_resources(plain, box(), GI, page_sizes=SIZES).hugepage_limits == {}
    some = box(limits={"hugepages-2Mi": "4Mi", "memory": "1Gi"})
    mixed = pod(some, box("b", limits={"hugepages-2Mi": "2Mi"}), box("c"))
    assert pod_resources(mixed, page_sizes=SIZES).hugepage_limits == {"1GB": 0, "2MB": 6 * MI}
    own = [
        linux_resources(mixed, c, GI, page_sizes=SIZES).hugepage_limits["2MB"]
        for c in mixed["spec"]["containers"]
    ]
    assert own == [4 * MI, 2 * MI, 0]
    assert pod_resources(mixed).hugepage_limits == {}
