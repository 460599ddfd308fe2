from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wherry.runtime.workspace import Workspace


@pytest.mark.parametrize(
    ("parent", "group"),
    [
        ("", "/wherry3/id"),
        ("kubepods/pod1", "/wherry3/kubepods/pod1/id"),
        ("/abs/", "/wherry3/abs/id"),
        ("../../etc", "/wherry3/etc/id"),
        ("/../a/../../b", "/wherry3/b/id"),
        ("//x", "/wherry3/x/id"),
    ],
)
def test_no_parent_group_lies_outside_the_root(parent: str, group: str) -> None:
    layout: Any = SimpleNamespace()
    space = Workspace(Path("/run"), Path("/exits"), "/wherry3", layout, layout)
    assert space.cgroup("id", parent) == group
