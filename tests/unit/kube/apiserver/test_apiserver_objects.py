"""Objects in both forms, and how many of them are held decoded."""

from __future__ import annotations

import orjson

from wherry.kube.apiserver.objects import Stored, _Decoded


def stored(name: str) -> Stored:
    return Stored(name, 1, data=orjson.dumps({"name": name}))


def test_what_is_decoded_is_held_for_a_while() -> None:
    one = stored("one")
    assert one.object == {"name": "one"}
    assert one.object is one.object


def test_of_many_only_the_last_are_held_decoded_and_the_others_can_be_read_again() -> None:
    held = _Decoded(100)
    objects = [Stored(str(n), n, data=b"{}", object=None) for n in range(5)]
    for each in objects:
        each._object = {"n": 1}
        held.add(each, 40)
    assert [each._object is None for each in objects] == [True, True, True, False, False]
    assert objects[0].object == {}


def test_what_was_never_encoded_is_not_forgotten() -> None:
    only = Stored("x", 1, object={"name": "x"})
    only.forget_object()
    assert only.object == {"name": "x"}
