from __future__ import annotations

from typing import Any

import pytest

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}

NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    r"for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


def config(**meta: Any) -> dict[str, Any]:
    return {**CONFIG, "metadata": {"name": "a", **meta}}


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({}, []),
        ({"name": "Web"}, [f'metadata.name: Invalid value: "Web": {NAME_RULE}']),
        ({"name": ""}, ["metadata.name: Required value: name or generateName is required"]),
        ({"generateName": "a-"}, []),
        ({"generateName": "A-"}, [f'metadata.generateName: Invalid value: "A-": {NAME_RULE}']),
        (
            {"finalizers": ["mine"]},
            [
                'metadata.finalizers[0]: Invalid value: "mine": name is neither a standard '
                "finalizer name nor is it fully qualified"
            ],
        ),
        ({"finalizers": ["example.com/mine", "orphan"]}, []),
        (
            {"finalizers": ["orphan", "foregroundDeletion"]},
            [
                'metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer '
                "orphan and foregroundDeletion cannot be both set"
            ],
        ),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]},
            ['metadata.ownerReferences.uid: Invalid value: "": must not be empty'],
        ),
        (
            {"annotations": {"a/b": "x" * (256 * 1024)}},
            ["metadata.annotations: Too long: may not be more than 262144 bytes"],
        ),
        ({"annotations": {"Example.com/UPPER": "x"}}, []),
    ],
)
def test_metadata_is_judged_alike_for_every_kind(
    api: Any, meta: dict[str, Any], expected: list[str]
) -> None:
    assert api.faults(config(**meta)) == expected


def test_labels_name_the_key_and_the_value_that_are_wrong(api: Any) -> None:
    first, second = api.faults(config(labels={"-a": "ok", "b": "no/"}))
    assert first.startswith('metadata.labels: Invalid value: "-a": name part must consist of')
    assert second.startswith('metadata.labels: Invalid value: "no/": a valid label must be')


def test_two_controllers_are_one_too_many(api: Any) -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": True}
    (fault,) = api.faults(config(ownerReferences=[owner, {**owner, "name": "q"}]))
    assert fault.endswith(
        'Only one reference can have Controller set to true. Found "true" in references for '
        "Pod/p and Pod/q"
    )


def test_a_namespace_does_not_lie_in_a_namespace(api: Any) -> None:
    o = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "namespace": "b"}}
    assert api.faults(o) == ["metadata.namespace: Forbidden: not allowed on this type"]


def test_an_update_cannot_change_what_the_system_sets(api: Any) -> None:
    old = api.create(CONFIG)
    old["metadata"] |= {"uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}

    def change(o: dict[str, Any]) -> None:
        o["metadata"] |= {"uid": "", "generation": 9, "creationTimestamp": "1999-01-01T00:00:00Z"}

    new, faults = api.update(old, change)
    assert faults == []
    assert new["metadata"] == old["metadata"]


def test_names_and_uids_are_immutable(api: Any) -> None:
    old = api.create(CONFIG)
    old["metadata"]["uid"] = "1"
    _, faults = api.update(old, lambda o: o["metadata"].update(name="b", uid="2"))
    assert faults == [
        'metadata.name: Invalid value: "b": field is immutable',
        'metadata.uid: Invalid value: "2": field is immutable',
    ]


def test_an_object_that_is_being_deleted_takes_no_new_finalizers(api: Any) -> None:
    old = api.create(config(finalizers=["x.io/a"]))
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    _, faults = api.update(old, lambda o: o["metadata"].update(finalizers=["x.io/b", "x.io/a"]))
    assert faults == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being "
        'deleted, found new finalizers []string{"x.io/b"}'
    ]
    _, faults = api.update(old, lambda o: o["metadata"].pop("finalizers"))
    assert faults == []


def test_every_field_a_selector_may_name_has_a_value(api: Any) -> None:
    from wherry.kube.api.kinds import KINDS

    for kind in KINDS.values():
        empty = {"metadata": {"name": "a"}}
        assert set(kind.selectable_fields(empty)) == kind.selectable
