"""Ranges of ids for pods with user namespaces."""

import shutil

import pytest

from wherry.kube.kubelet.user_namespaces import SIZE, NoRange, UserNamespaces


def test_each_pod_has_a_range_that_a_next_kubelet_knows_and_that_goes_with_its_directory(tmp_path):
    def kubelet():
        return UserNamespaces(
            SIZE, 2, directory=lambda uid: tmp_path / uid, known=lambda: ["a", "b", "broken"]
        )

    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "userns").write_text("rubbish")
    users = kubelet()
    assert users.allocate("a") == (SIZE, SIZE)
    assert users.allocate("b") == (2 * SIZE, SIZE)
    assert kubelet().allocate("b") == (2 * SIZE, SIZE)
    with pytest.raises(NoRange, match="all 2 are in use"):
        kubelet().allocate("c")
    shutil.rmtree(tmp_path / "a")
    assert users.allocate("c") == (SIZE, SIZE)
