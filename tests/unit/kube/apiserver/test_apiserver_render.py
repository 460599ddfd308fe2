from __future__ import annotations

import orjson
import pytest
import yaml
from apiserver_harness import API, config_map, pod

from wherry.kube.api.errors import StatusError
from wherry.kube.api.kinds import KINDS
from wherry.kube.api.resources import CONFIG_MAPS, PODS
from wherry.kube.apiserver.answers import Collection, Seen, Single
from wherry.kube.apiserver.negotiate import JSON, YAML, Form
from wherry.kube.apiserver.objects import Stored, encode, splice
from wherry.kube.apiserver.render import (
    collection_length,
    collection_pieces,
    dump,
    frames,
    render_collection,
    render_single,
)
from wherry.kube.apiserver.server import APIServer

POD_KIND = KINDS["", "v1", "pods"]
TABLE = Form(JSON, "Table")


def test_the_version_is_spliced_into_what_was_encoded_once() -> None:
    o = {"metadata": {"name": "c", "resourceVersion": "3"}, "kind": "ConfigMap", "apiVersion": "v1"}
    value = encode(o)
    assert b"resourceVersion" not in value
    data = splice(value, 12)
    assert orjson.loads(data) == {**o, "metadata": {"name": "c", "resourceVersion": "12"}}
    assert o["metadata"]["resourceVersion"] == "3"  # type: ignore[index]


async def test_what_is_stored_and_what_is_answered_are_the_same(
    api: API, server: APIServer
) -> None:
    made = await api("POST", "configmaps", config_map(a="1"))
    stored = server._cache.of(CONFIG_MAPS).get("default", "c")
    assert stored is not None and orjson.loads(stored.data) == made == stored.object


async def _pods(api: API, server: APIServer) -> Collection:
    for name in ("a", "b"):
        await api("POST", "pods", pod(name))
    return Collection(POD_KIND, server._cache.of(PODS).list("default"), 7, "token", 3)


async def test_json_ends_with_its_line(api: API, server: APIServer) -> None:
    found = await _pods(api, server)
    one = Single(found.items[0], POD_KIND)
    for form in (Form(), TABLE, Form(pretty=True)):
        for body in (render_single(one, form, ""), render_collection(found, form, "")):
            assert body.endswith(b"}\n") and not body.endswith(b"\n\n")
    assert dump(StatusError(404, "NotFound", "no").status(), Form()).endswith(b"}\n")


async def test_a_list_is_joined_from_its_items(api: API, server: APIServer) -> None:
    found = await _pods(api, server)
    value = orjson.loads(render_collection(found, Form(), ""))
    assert value == found.object
    assert value["metadata"] == {
        "resourceVersion": "7",
        "continue": "token",
        "remainingItemCount": 3,
    }


async def test_a_table_has_a_row_an_object_and_the_lists_metadata(
    api: API, server: APIServer
) -> None:
    found = await _pods(api, server)
    table = orjson.loads(render_collection(found, TABLE, ""))
    assert (table["kind"], table["metadata"]) == ("Table", found.metadata)
    assert [row["cells"][0] for row in table["rows"]] == ["a", "b"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    whole = orjson.loads(render_collection(found, TABLE, "Object"))
    assert whole["rows"][0]["object"]["kind"] == "Pod"
    old = orjson.loads(render_collection(found, Form(JSON, "Table", "v1beta1"), "None"))
    assert old["apiVersion"] == "meta.k8s.io/v1beta1" and not old["rows"][0].get("object")


async def test_metadata_can_be_had_alone(api: API, server: APIServer) -> None:
    found = await _pods(api, server)
    value = orjson.loads(render_collection(found, Form(JSON, "PartialObjectMetadataList"), ""))
    assert value["kind"] == "PartialObjectMetadataList"
    assert value["items"][0].keys() == {"kind", "apiVersion", "metadata"}
    single = Single(found.items[0], POD_KIND)
    one = orjson.loads(render_single(single, Form(JSON, "PartialObjectMetadata"), ""))
    assert one["kind"] == "PartialObjectMetadata"


async def test_yaml_and_indented_json_say_the_same(api: API, server: APIServer) -> None:
    found = await _pods(api, server)
    single = Single(found.items[0], POD_KIND)
    assert yaml.safe_load(render_single(single, Form(YAML), "")) == single.object
    pretty = render_single(single, Form(pretty=True), "")
    assert pretty.startswith(b"{\n  ") and orjson.loads(pretty) == single.object


async def test_only_the_first_table_of_a_watch_describes_its_columns(
    api: API, server: APIServer
) -> None:
    found = await _pods(api, server)
    encode_frames = frames(POD_KIND, TABLE, "")
    seen = [Seen("ADDED", stored) for stored in found.items]
    lines = [orjson.loads(line) for line in encode_frames(seen).splitlines()]
    assert lines[0]["object"]["columnDefinitions"] and not lines[1]["object"]["columnDefinitions"]
    assert [line["object"]["rows"][0]["cells"][0] for line in lines] == ["a", "b"]


def test_a_bookmark_among_tables_has_a_version_and_no_rows() -> None:
    mark = Stored("", 9, object={"kind": "Pod", "metadata": {"resourceVersion": "9"}})
    (line,) = frames(POD_KIND, TABLE, "")([Seen("BOOKMARK", mark)]).splitlines()
    event = orjson.loads(line)
    assert event["type"] == "BOOKMARK" and event["object"]["rows"] == []
    assert event["object"]["metadata"]["resourceVersion"] == "9"


def test_tables_hold_no_unheard_of_objects() -> None:
    found = Collection(POD_KIND, [Stored("", 0, object=pod())], 1)
    with pytest.raises(StatusError, match="includeObject: Unsupported value"):
        render_collection(found, TABLE, "Some")


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 1000])
@pytest.mark.parametrize("weight", [10, 3000, 300_000])
def test_the_pieces_of_a_list_are_the_list_and_its_length_is_known(count: int, weight: int) -> None:
    if count * weight > 1 << 25:
        pytest.skip("large")
    data = [b'{"n":%d,"x":"%b"}' % (n, b"x" * weight) for n in range(count)]
    items = [Stored(str(n), n, data=each) for n, each in enumerate(data)]
    found = Collection(POD_KIND, items, 7)
    pieces = list(collection_pieces(found, Form(), ""))
    body = b"".join(pieces)
    assert [o["n"] for o in orjson.loads(body)["items"]] == list(range(count))
    assert len(body) == collection_length(found, Form())
    assert all(len(piece) < 256 * 1024 + weight + 1000 for piece in pieces)
