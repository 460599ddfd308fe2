"""How faults are worded: k8s.io/apimachinery/pkg/util/validation/field."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.kube.api.kinds import fields


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a", '"a"'),
        ('say "hi"\\', '"say \\"hi\\"\\\\"'),
        ("line\n\x00é\u200b", '"line\\n\\x00é\\u200b"'),
        (5, "5"),
        (True, "true"),
        (None, "null"),
        (["b", "a"], '["b","a"]'),
        ({"b": 1, "a": "<&>"}, '{"a":"\\u003c\\u0026\\u003e","b":1}'),
        (fields.Struct(Type="x", Address=None), '{"Type":"x","Address":null}'),
    ],
)
def test_a_bad_value_is_printed_as_go_prints_it(value: Any, shown: str) -> None:
    assert str(fields.invalid("f", value, "why")) == f"f: Invalid value: {shown}: why"


def test_each_kind_of_fault_has_its_words_and_its_reason() -> None:
    faults = [
        (fields.required("a"), "a: Required value", "FieldValueRequired"),
        (fields.required("a", "why"), "a: Required value: why", "FieldValueRequired"),
        (fields.invalid("a", "x", ""), 'a: Invalid value: "x"', "FieldValueInvalid"),
        (
            fields.type_invalid("a", 1, "why"),
            "a: Invalid value: 1: why",
            "FieldValueTypeInvalid",
        ),
        (
            fields.not_supported("a", "x", ("A", "B")),
            'a: Unsupported value: "x": supported values: "A", "B"',
            "FieldValueNotSupported",
        ),
        (fields.duplicate("a", "x"), 'a: Duplicate value: "x"', "FieldValueDuplicate"),
        (fields.not_found("a", "x"), 'a: Not found: "x"', "FieldValueNotFound"),
        (fields.forbidden("a", "why"), "a: Forbidden: why", "FieldValueForbidden"),
        (
            fields.too_long("a", 1),
            "a: Too long: may not be more than 1 byte",
            "FieldValueTooLong",
        ),
        (
            fields.too_many("a", 5, 3),
            "a: Too many: 5: must have at most 3 items",
            "FieldValueTooMany",
        ),
    ]
    assert [(str(f), f.reason) for f, _, _ in faults] == [(text, r) for _, text, r in faults]


def test_absent_and_empty_are_no_change_of_an_immutable_field() -> None:
    assert fields.immutable("a", None, "") == []
    assert [str(f) for f in fields.immutable("a", "x", "y")] == [
        'a: Invalid value: "x": field is immutable'
    ]
