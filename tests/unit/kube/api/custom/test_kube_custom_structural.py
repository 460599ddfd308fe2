"""Structural schemas: pruning, defaults, validation, rules."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.kube.api.custom.rules import check_rules
from wherry.kube.api.custom.structural import Structural


def schema(**properties: Any) -> Structural:
    return Structural({"type": "object", "properties": properties})


def faults(made: Structural, value: Any) -> list[str]:
    found: list[Any] = []
    made.validate(value, "", found)
    return [str(fault) for fault in found]


class TestPruning:
    def test_unknown_fields_go_and_are_told_of(self):
        unknown: list[str] = []
        made = schema(a={"type": "object", "properties": {"b": {"type": "string"}}})
        given = {"a": {"b": "x", "c": 1}, "d": 2}
        assert made.prune(given, "", unknown, root=True) == {"a": {"b": "x"}}
        assert unknown == ['unknown field "a.c"', 'unknown field "d"']
        assert given == {"a": {"b": "x", "c": 1}, "d": 2}

    def test_what_loses_nothing_is_the_same_object(self):
        given = {"a": "x"}
        assert schema(a={"type": "string"}).prune(given, "", [], root=True) is given

    def test_identity_stays_at_the_root(self):
        given = {"apiVersion": "v1", "kind": "A", "metadata": {"name": "a"}}
        assert schema().prune(given, "", [], root=True) == given

    @pytest.mark.parametrize(
        "free",
        [
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            {"type": "object", "additionalProperties": True},
        ],
    )
    def test_free_objects_keep_all(self, free: Any):
        assert schema(a=free).prune({"a": {"x": 1}}, "", [], root=True) == {"a": {"x": 1}}

    def test_items_of_lists_and_maps_are_pruned(self):
        item = {"type": "object", "properties": {"x": {"type": "integer"}}}
        made = schema(
            l={"type": "array", "items": item}, m={"type": "object", "additionalProperties": item}
        )
        given = {"l": [{"x": 1, "y": 2}], "m": {"k": {"x": 1, "y": 2}}}
        assert made.prune(given, "", [], root=True) == {"l": [{"x": 1}], "m": {"k": {"x": 1}}}


class TestDefaults:
    def test_they_fill_what_is_not_there_and_below(self):
        inner = {
            "type": "object",
            "default": {},
            "properties": {"b": {"type": "integer", "default": 1}},
        }
        o: dict[str, Any] = {}
        schema(a=inner).fill(o)
        assert o == {"a": {"b": 1}}

    def test_null_is_nothing_unless_it_may_be(self):
        made = schema(
            a={"type": "string", "default": "x"},
            b={"type": "string", "default": "x", "nullable": True},
        )
        o = {"a": None, "b": None}
        made.fill(o)
        assert o == {"a": "x", "b": None}

    def test_defaults_are_not_shared(self):
        made = schema(a={"type": "object", "default": {"l": []}, "properties": {}})
        one: dict[str, Any] = {}
        two: dict[str, Any] = {}
        made.fill(one)
        made.fill(two)
        one["a"]["l"].append(1)
        assert two == {"a": {"l": []}}


class TestValidation:
    @pytest.mark.parametrize(
        ("raw", "value", "said"),
        [
            ({"type": "string"}, 1, 'a in body must be of type string: "integer"'),
            ({"type": "integer"}, "x", 'a in body must be of type integer: "string"'),
            ({"type": "integer", "minimum": 2}, 1, "should be greater than or equal to 2"),
            ({"type": "integer", "maximum": 2, "exclusiveMaximum": True}, 2, "less than 2"),
            ({"type": "number", "multipleOf": 0.5}, 0.7, "should be a multiple of 0.5"),
            ({"type": "string", "maxLength": 1}, "ab", "Too long: may not be more than 1 byte"),
            ({"type": "string", "minLength": 3}, "ab", "should be at least 3 chars long"),
            ({"type": "string", "pattern": "^a+$"}, "b", "should match '^a+$'"),
            ({"type": "string", "enum": ["x"]}, "y", 'Unsupported value: "y"'),
            ({"type": "string", "format": "date"}, "y", "must be of type date"),
            ({"type": "array", "items": {"type": "string"}, "maxItems": 1}, ["a", "b"], "Too many"),
            (
                {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                ["a", "a"],
                "a[1]: Duplicate value",
            ),
            ({"type": "object", "required": ["b"], "properties": {}}, {}, "a.b: Required value"),
            ({"x-kubernetes-int-or-string": True}, True, "must be of type integer,string"),
            ({"type": "integer", "oneOf": [{"minimum": 1}, {"maximum": 5}]}, 3, "(oneOf)"),
            ({"type": "integer", "anyOf": [{"minimum": 5}, {"maximum": 1}]}, 3, "(anyOf)"),
            ({"type": "integer", "allOf": [{"minimum": 5}]}, 3, "(allOf)"),
            ({"type": "integer", "not": {"minimum": 1}}, 3, "(not)"),
        ],
    )
    def test_what_breaks_the_schema_is_told(self, raw: Any, value: Any, said: str):
        found = faults(schema(a=raw), {"a": value})
        assert any(said in fault for fault in found), found

    @pytest.mark.parametrize("value", [1, "80%"])
    def test_an_int_or_string_is_either(self, value: Any):
        assert faults(schema(a={"x-kubernetes-int-or-string": True}), {"a": value}) == []

    def test_whole_floats_are_integers(self):
        assert faults(schema(a={"type": "integer"}), {"a": 3.0}) == []


class TestRules:
    def judged(self, rule: dict[str, Any], new: Any, old: Any = None) -> list[str]:
        raw = {
            "type": "object",
            "x-kubernetes-validations": [rule],
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        }
        found: list[Any] = []
        check_rules(Structural({"type": "object", "properties": {"spec": raw}}), new, old, found)
        return [str(fault) for fault in found]

    def test_a_rule_that_fails_is_told_in_its_words(self):
        rule = {"rule": "self.a < self.b", "messageExpression": "'a is ' + string(self.a)"}
        assert self.judged(rule, {"spec": {"a": 2, "b": 1}}) == [
            'spec: Invalid value: "object": a is 2'
        ]
        assert self.judged(rule, {"spec": {"a": 1, "b": 2}}) == []

    def test_rules_about_changes_wait_for_one(self):
        rule = {"rule": "self.a >= oldSelf.a", "message": "a may not shrink"}
        assert self.judged(rule, {"spec": {"a": 1}}) == []
        assert self.judged(rule, {"spec": {"a": 1}}, {"spec": {"a": 2}}) == [
            'spec: Invalid value: "object": a may not shrink'
        ]

    def test_an_error_is_told(self):
        (said,) = self.judged({"rule": "self.b == 1"}, {"spec": {"a": 1}})
        assert "rule evaluation error: 'self.b == 1': no such key: b" in said

    def test_reason_and_path_are_as_it_says(self):
        rule = {
            "rule": "false",
            "reason": "FieldValueForbidden",
            "fieldPath": ".a",
            "message": "no",
        }
        assert self.judged(rule, {"spec": {"a": 1}}) == ["spec.a: Forbidden: no"]
