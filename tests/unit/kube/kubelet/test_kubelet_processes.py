"""How many processes pods may have."""

from wherry.kube.kubelet.processes import of_a_pod, of_all_pods


def test_a_pod_without_a_limit_has_a_share_and_the_node_keeps_some():
    assert of_a_pod(100, 32768) == 100
    assert of_a_pod(-1, 32768) == 8192
    assert of_all_pods(32768, 0) == 32768 - 3276
    assert of_all_pods(32768, 10000) == 22768
    assert of_all_pods(0, 0) == 0  # the kernel has not said
