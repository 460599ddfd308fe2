from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import field_sets
from wherry.kube.api.field_sets import Fields, difference, intersection, union

STEP = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"'])


def tree(paths: list[list[str]]) -> Fields:
    root: dict[str, Any] = {}
    for path in paths:
        node = root
        for step in path:
            node = node.setdefault(step, {})
        if path:
            node["\0"] = {}

    def finish(node: Fields) -> Fields:
        member = node.pop("\0", None) is not None
        children = {key: finish(each) for key, each in sorted(node.items())}
        return {".": {}, **children} if member and children else children

    return finish(root)


SETS = st.lists(st.lists(STEP, min_size=1, max_size=3), max_size=6).map(tree)


def members(fields: Fields) -> set[tuple[str, ...]]:
    return set(field_sets.paths(fields))


@given(SETS, SETS)
def test_the_algebra_is_that_of_sets_of_paths(a: Fields, b: Fields):
    assert members(union(a, b)) == members(a) | members(b)
    assert members(difference(a, b)) == members(a) - members(b)
    assert members(intersection(a, b)) == members(a) & members(b)


@given(SETS)
def test_every_set_is_well_formed_and_what_is_left_of_it_minus_itself_is_empty(a: Fields):
    assert field_sets.is_well_formed(a)
    assert difference(a, a) == {} and intersection(a, a) == a and union(a, a) == a


def test_paths_read_as_conflicts_show_them():
    path = ("f:spec", 'k:{"containerPort":80,"protocol":"TCP"}', "f:name")
    assert field_sets.path_text(path) == '.spec[containerPort=80,protocol="TCP"].name'
    assert field_sets.path_text(("f:metadata", "f:finalizers", 'v:"x"')) == (
        '.metadata.finalizers[="x"]'
    )
    assert field_sets.path_text(("i:3",)) == "[3]"


@pytest.mark.parametrize(
    "fields", [[], {"x": {}}, {"k:x": {}}, {"k:1": {}}, {"i:x": {}}, {".": {"f:a": {}}}, {"f:a": 1}]
)
def test_what_is_no_set_of_fields_is_known(fields: Any):
    assert not field_sets.is_well_formed(fields)
