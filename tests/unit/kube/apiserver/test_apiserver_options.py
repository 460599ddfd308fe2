from __future__ import annotations

import pytest

from wherry.kube.api.errors import StatusError
from wherry.kube.api.kinds import KINDS
from wherry.kube.apiserver.options import (
    Continue,
    parse_delete_options,
    parse_list_options,
    parse_write_options,
)
from wherry.kube.apiserver.request import NO_QUERY, parse_query

PODS = KINDS["", "v1", "pods"]


def refused(query: str, *, watch: bool = False) -> str:
    with pytest.raises(StatusError) as failure:
        parse_list_options(parse_query(query), PODS, watch=watch)
    return failure.value.message


def test_match_needs_a_revision() -> None:
    assert "resourceVersionMatch is forbidden unless resourceVersion is provided" in refused(
        "resourceVersionMatch=Exact"
    )


def test_match_and_continue_exclude_each_other() -> None:
    message = refused("resourceVersion=5&resourceVersionMatch=Exact&continue=x")
    assert "resourceVersionMatch is forbidden when continue is provided" in message


def test_exactly_any_revision_makes_no_sense() -> None:
    assert '"exact" is forbidden for resourceVersion "0"' in refused(
        "resourceVersion=0&resourceVersionMatch=Exact"
    )


def test_an_unknown_match_names_the_known_ones() -> None:
    assert 'supported values: "Exact", "NotOlderThan", ""' in refused(
        "resourceVersion=5&resourceVersionMatch=About"
    )


def test_initial_events_are_for_watches_that_say_how_fresh() -> None:
    assert "sendInitialEvents is forbidden for list" in refused("sendInitialEvents=true")
    assert "requires setting resourceVersionMatch to NotOlderThan" in refused(
        "sendInitialEvents=true", watch=True
    )
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    assert parse_list_options(parse_query(query), PODS, watch=True).initial_events


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 30, "١"])
def test_a_revision_is_a_number(text: str) -> None:
    assert "resourceVersion: Invalid value" in refused(f"resourceVersion={text}")


@pytest.mark.parametrize(
    "parameter", ["limit=x", "timeoutSeconds=1e3", "limit=99999999999999999999"]
)
def test_numbers_are_numbers(parameter: str) -> None:
    assert "strconv.ParseInt" in refused(parameter)


def test_a_field_nobody_selects_by_is_named() -> None:
    assert refused("fieldSelector=spec.foo%3Dx") == "field label not supported: spec.foo"


def test_a_continue_token_comes_back_as_it_went() -> None:
    token = Continue(12, "default/p\0")
    assert Continue.decode(token.encode()) == token


@pytest.mark.parametrize("text", ["", "x", "e30", "bnVsbA", "!!!"])
def test_a_made_up_continue_token_is_refused(text: str) -> None:
    with pytest.raises(StatusError, match="continue key is not valid") as failure:
        Continue.decode(text)
    assert failure.value.code == 400


def test_only_all_is_a_dry_run() -> None:
    assert parse_write_options(parse_query("dryRun=All"), "CreateOptions", "").dry_run
    with pytest.raises(StatusError, match=r'dryRun: Unsupported value: "Some"'):
        parse_write_options(parse_query("dryRun=Some"), "CreateOptions", "")


def test_the_manager_is_named_or_taken_from_the_user_agent() -> None:
    options = parse_write_options(NO_QUERY, "CreateOptions", "kubectl/v1.32.4 (linux/amd64)")
    assert options.field_manager == "kubectl"
    query = parse_query("fieldManager=me")
    assert parse_write_options(query, "CreateOptions", "kubectl/v1").field_manager == "me"


def test_an_unknown_validation_is_refused() -> None:
    with pytest.raises(StatusError, match=r'fieldValidation: Unsupported value: "Lax"'):
        parse_write_options(parse_query("fieldValidation=Lax"), "CreateOptions", "")


def test_delete_options_come_from_the_body_or_the_query() -> None:
    body = {"gracePeriodSeconds": 5, "propagationPolicy": "Orphan", "preconditions": {"uid": "u"}}
    options = parse_delete_options(body, NO_QUERY)
    assert (options.grace, options.policy, options.uid) == (5, "Orphan", "u")
    query = parse_query("gracePeriodSeconds=0&propagationPolicy=Foreground&dryRun=All")
    options = parse_delete_options(None, query)
    assert (options.grace, options.policy, options.dry_run) == (0, "Foreground", True)


def test_a_negative_grace_counts_as_one_second() -> None:
    assert parse_delete_options({"gracePeriodSeconds": -7}, NO_QUERY).grace == 1


def test_the_old_orphan_flag_is_a_policy() -> None:
    assert parse_delete_options({"orphanDependents": True}, NO_QUERY).policy == "Orphan"
    assert parse_delete_options({"orphanDependents": False}, NO_QUERY).policy == "Background"


@pytest.mark.parametrize(
    "body",
    [
        [],
        "x",
        {"gracePeriodSeconds": "5"},
        {"gracePeriodSeconds": True},
        {"propagationPolicy": "Later"},
        {"propagationPolicy": "Orphan", "orphanDependents": True},
        {"preconditions": {"uid": 5}},
        {"preconditions": []},
        {"dryRun": "All"},
        {"dryRun": ["Some"]},
        {"kind": "Pod"},
    ],
)
def test_delete_options_that_make_no_sense_are_refused(body: object) -> None:
    with pytest.raises(StatusError) as failure:
        parse_delete_options(body, NO_QUERY)
    assert failure.value.code in (400, 422)
