"""What ``wherry status`` says of a node of another's cluster."""

import pytest

from wherry.launcher.standing import of_node


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ([], "NotReady"),
        ([{"type": "Ready", "status": "True", "message": "kubelet is posting"}], "Ready"),
        (
            [
                {"type": "DiskPressure", "status": "True", "message": "full"},
                {"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting"},
            ],
            "NotReady (Kubelet stopped posting)",
        ),
        ([{"type": "Ready", "status": "False", "message": ""}], "NotReady"),
    ],
)
def test_a_node_is_told_as_its_cluster_sees_it(conditions: list[object], said: str) -> None:
    assert of_node({"status": {"conditions": conditions}}) == said
    assert of_node({}) == "NotReady"
