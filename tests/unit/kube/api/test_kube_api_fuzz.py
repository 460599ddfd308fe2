"""Whatever a client sends: an object, or a sentence about what is wrong; never a traceback."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.kube.api import schema
from wherry.kube.api.apply import apply, track_update
from wherry.kube.api.definitions import definition
from wherry.kube.api.errors import StatusError
from wherry.kube.api.meta import clone
from wherry.kube.api.patch import merge_patch, strategic_merge_patch
from wherry.kube.api.resources import RESOURCES

SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "1", "10Mi", "2026-01-01T00:00:00Z", "YQ==", "TCP", "-1", "é\x00"]),
)
NOISE = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "spec", "$patch", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def _right(part: dict[str, Any], levels: int) -> st.SearchStrategy[Any]:
    """Values of a part of a definition, now and then of another type."""
    if "$ref" in part:
        return _object(part["$ref"].rpartition("/")[2], levels)
    kind = part.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "array" and levels:
        return st.lists(_right(part["items"], levels - 1), max_size=3)
    if kind == "object" and levels and "additionalProperties" in part:
        return st.dictionaries(
            st.sampled_from(["a", "b"]),
            _right(part["additionalProperties"], levels - 1),
            max_size=2,
        )
    if kind == "integer":
        return st.integers(0, 3)
    return st.booleans() if kind == "boolean" else st.sampled_from(["a", "b", "YQ=="])


@st.composite
def _object(draw: st.DrawFn, name: str, levels: int) -> Any:
    known = definition(name).get("properties")
    if not known or not levels:
        return draw(NOISE)
    out = {}
    for key in draw(st.lists(st.sampled_from(sorted(known)), max_size=4, unique=True)):
        if draw(st.integers(0, 9)) == 0:
            out[key] = draw(NOISE)
        else:
            out[key] = draw(_right(known[key], levels - 1))
    return out


@st.composite
def objects(draw: st.DrawFn) -> Any:
    """A resource and a JSON value that is more or less an object of it."""
    resource = draw(st.sampled_from(RESOURCES))
    value = draw(_object(resource.schema, 6))
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if k not in ("kind", "apiVersion")}
    return resource, value


@settings(max_examples=300)
@given(objects())
def test_any_value_is_decoded_or_refused(given_: Any):
    resource, value = given_
    before = clone(value)
    try:
        decoded = schema.decode(resource, value).value
    except StatusError as error:
        assert error.code == 400
        return
    finally:
        assert value == before
    again = schema.decode(resource, decoded)
    assert again.value == decoded and again.unknown == []


@settings(max_examples=200)
@given(objects(), st.data())
def test_any_decoded_objects_can_be_applied_updated_and_patched(given_: Any, data: Any):
    resource, _ = given_
    found = []
    for _ in range(2):
        value = data.draw(_object(resource.schema, 6))
        try:
            decoded = schema.decode(resource, value if isinstance(value, dict) else {}).value
        except StatusError:
            decoded = {}
        decoded.setdefault("metadata", {}).pop("managedFields", None)
        decoded["metadata"]["name"] = "x"
        found.append(decoded)
    old, new = found
    track_update(resource, None, old, "a", now="2026-01-01T00:00:00Z")
    before = clone(found)
    try:
        result = apply(resource, old, new, "b", force=True, now="2026-01-01T00:00:00Z")
        assert apply(resource, result, new, "b", now="2026-01-02T00:00:00Z") is result
        strategic_merge_patch(resource, old, new)
    except StatusError as error:
        assert error.code in (400, 422)
    merge_patch(old, new)
    assert found == before
    track_update(resource, old, new, "c", now="2026-01-01T00:00:00Z")
