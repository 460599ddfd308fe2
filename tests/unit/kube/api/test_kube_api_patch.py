import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api.errors import StatusError
from wherry.kube.api.meta import clone
from wherry.kube.api.patch import json_patch, merge_patch


def test_merge_patch_follows_the_examples_of_rfc_7396():
    for doc, patch, result in [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ]:
        assert merge_patch(doc, patch) == result


@pytest.mark.parametrize("patch", [[], "x", None, 3])
def test_a_merge_patch_must_be_an_object(patch: Any):
    with pytest.raises(StatusError, match="error decoding patch: json: cannot unmarshal") as caught:
        merge_patch({}, patch)
    assert caught.value.code == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc/~"), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return value


def _difference(old: Any, new: Any) -> Any:
    """The merge patch that makes ``new`` of ``old``."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old or old[key] != value or type(old[key]) is not type(value):
            patch[key] = _difference(old.get(key), value)
    return patch


@given(OBJECT, OBJECT.map(_without_nulls))
def test_a_merge_patch_made_from_a_difference_leads_there(old: Any, new: Any):
    before = clone(old)
    result = merge_patch(old, _difference(_without_nulls(old), new))
    assert _without_nulls(result) == new
    assert old == before


@given(OBJECT, OBJECT)
def test_a_merge_patch_twice_changes_nothing_more(doc: Any, patch: Any):
    once = merge_patch(doc, patch)
    assert merge_patch(once, patch) == once


DOC = {"a": {"b": [1, 2, 3]}, "c/d": 1, "e~f": 2, "n": None}


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([], DOC),
        ([{"op": "add", "path": "/x", "value": {"y": 1}}], {**DOC, "x": {"y": 1}}),
        ([{"op": "add", "path": "/n", "value": 1}], {**DOC, "n": 1}),
        ([{"op": "add", "path": "/a/b/1", "value": 9}], {**DOC, "a": {"b": [1, 9, 2, 3]}}),
        ([{"op": "add", "path": "/a/b/-", "value": 9}], {**DOC, "a": {"b": [1, 2, 3, 9]}}),
        ([{"op": "add", "path": "/a/b/-1", "value": 9}], {**DOC, "a": {"b": [1, 2, 3, 9]}}),
        ([{"op": "add", "path": "/a/b/3", "value": 9}], {**DOC, "a": {"b": [1, 2, 3, 9]}}),
        ([{"op": "remove", "path": "/a/b/-1"}], {**DOC, "a": {"b": [1, 2]}}),
        ([{"op": "replace", "path": "/c~1d", "value": 5}], {**DOC, "c/d": 5}),
        ([{"op": "replace", "path": "/e~0f", "value": 5}], {**DOC, "e~f": 5}),
        ([{"op": "replace", "path": "", "value": {}}], {}),
        (
            [{"op": "add", "path": "/x"}, {"op": "replace", "path": "/a"}],
            {**DOC, "x": None, "a": None},
        ),
        ([{"op": "test", "path": "/a", "value": {"b": [1, 2, 3]}}], DOC),
        ([{"op": "test", "path": "/n", "value": None}, {"op": "test", "path": "/zz"}], DOC),
        (
            [{"op": "copy", "from": "/a/b/0", "path": "/x"}, {"op": "remove", "path": "/a"}],
            {"c/d": 1, "e~f": 2, "n": None, "x": 1},
        ),
        ([{"op": "move", "from": "/a/b/0", "path": "/a/b/2"}], {**DOC, "a": {"b": [2, 3, 1]}}),
        ([{"op": "move", "from": "/a", "path": "/a"}], DOC),
    ],
)
def test_json_patch_operations(operations: list[Any], result: Any):
    before = json.dumps(DOC)
    assert json_patch(DOC, operations) == result
    assert json.dumps(DOC) == before


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "/x/y", "value": 1},
        {"op": "add", "path": "/a/b/4", "value": 1},
        {"op": "add", "path": "/a/b/01", "value": 1},
        {"op": "add", "path": "/a/b/x", "value": 1},
        {"op": "add", "path": "x", "value": 1},
        {"op": "add", "value": 1},
        {"op": "remove", "path": "/x"},
        {"op": "remove", "path": ""},
        {"op": "remove", "path": "/a/b/3"},
        {"op": "replace", "path": "/x", "value": 1},
        {"op": "replace", "path": "/c~1d/x", "value": 1},
        {"op": "move", "from": "/x", "path": "/y"},
        {"op": "move", "from": "/a", "path": "/a/b"},
        {"op": "copy", "from": "/x", "path": "/y"},
        {"op": "test", "path": "/c~1d", "value": True},
        {"op": "test", "path": "/zz/y", "value": None},
        {"op": "frob", "path": "/a"},
        {"path": "/a"},
    ],
)
def test_an_operation_that_does_not_fit_refuses_the_patch(operation: dict[str, Any]):
    before = json.dumps(DOC)
    with pytest.raises(StatusError) as caught:
        json_patch(DOC, [{"op": "add", "path": "/ok", "value": 1}, operation])
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    assert caught.value.message == "the server rejected our request due to an error in our request"
    assert json.dumps(DOC) == before


def test_a_json_patch_must_be_a_list_of_operations():
    with pytest.raises(StatusError) as caught:
        json_patch({}, {"op": "add"})
    assert caught.value.code == 400
    assert caught.value.message == (
        "json: cannot unmarshal object into Go value of type jsonpatch.Patch"
    )
    with pytest.raises(StatusError, match="cannot unmarshal string into Go value of type"):
        json_patch({}, ["x"])


def test_too_many_operations_are_refused():
    with pytest.raises(StatusError, match="is 10000, got 10001") as caught:
        json_patch({}, [{"op": "test", "path": "/a"}] * 10_001)
    assert caught.value.code == 413


def test_a_patch_cannot_copy_without_bound():
    doubling = [{"op": "copy", "from": "/a", "path": f"/a/{i}"} for i in range(64)]
    with pytest.raises(StatusError) as caught:
        json_patch({"a": {"x": "y" * 100}}, doubling)
    assert caught.value.code == 422


@given(OBJECT, st.lists(st.fixed_dictionaries({}, optional={
    "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
    "path": st.sampled_from(["", "/a", "/a/b", "/a/0", "/b/-", "/a~1b", "x"]),
    "from": st.sampled_from(["", "/a", "/b"]),
    "value": JSON,
}), max_size=4))  # fmt: skip
def test_any_json_patch_applies_or_is_refused_and_leaves_its_input(doc: Any, operations: Any):
    before = clone(doc)
    try:
        json_patch(doc, operations)
    except StatusError as error:
        assert error.code in (400, 422)
    assert doc == before
