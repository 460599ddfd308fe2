from datetime import UTC, datetime, timedelta

import pytest

from wherry.kube.api import meta

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web-1",
        "namespace": "demo",
        "uid": "u1",
        "ownerReferences": [
            {"kind": "Node", "name": "n", "uid": "n1"},
            {"kind": "ReplicaSet", "name": "web", "uid": "r1", "controller": True},
        ],
    },
}


def test_readers_bear_an_object_without_metadata():
    assert (meta.name({}), meta.namespace({}), meta.uid({}), meta.key({})) == ("", "", "", "")
    assert meta.labels({}) == {} and meta.annotations({"metadata": {"annotations": None}}) == {}
    assert meta.owner_references({}) == [] and meta.finalizers({}) == []
    assert not meta.is_deleting({}) and meta.controller_of({}) is None


def test_key_joins_namespace_and_name():
    assert meta.key(POD) == "demo/web-1"
    assert meta.key({"metadata": {"name": "node-1"}}) == "node-1"


def test_the_controller_is_the_owner_marked_so():
    controller = meta.controller_of(POD)
    assert controller is not None and controller["name"] == "web"
    assert meta.is_controlled_by(POD, {"metadata": {"uid": "r1"}})
    assert not meta.is_controlled_by(POD, {"metadata": {"uid": "n1"}})


def test_times_have_the_precision_of_their_type():
    moment = datetime(2026, 3, 1, 12, 0, 0, 42, tzinfo=UTC)
    assert meta.format_time(moment) == "2026-03-01T12:00:00Z"
    assert meta.format_micro_time(moment) == "2026-03-01T12:00:00.000042Z"
    assert meta.parse_time("2026-03-01T14:00:00+02:00") == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_now_is_read_back_within_the_second():
    before = datetime.now(UTC)
    told = meta.parse_time(meta.now())
    assert before - timedelta(seconds=1) <= told <= datetime.now(UTC) + timedelta(seconds=1)
    assert len(meta.now()) == 20 and len(meta.now_micro()) == 27


def test_a_time_without_zone_is_refused():
    with pytest.raises(ValueError):
        meta.parse_time("2026-03-01T12:00:00")
