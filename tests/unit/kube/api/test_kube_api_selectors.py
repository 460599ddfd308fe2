import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api.errors import StatusError
from wherry.kube.api.selectors import (
    FieldSelector,
    FieldTerm,
    labels_from_object,
    labels_from_set,
    parse_fields,
    parse_labels,
)

WEB = {"app": "web", "tier": "front", "size": "5"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "app",
        "app=web",
        "app==web",
        "app = web",
        "app!=db",
        "missing!=db",
        "!missing",
        "app in (web,db)",
        "app in (web),!x",
        "app in ( db , web ) , tier",
        "tier notin (back)",
        "missing notin (back)",
        "size>4",
        "size<6,size>1",
        "app,tier",
    ],
)
def test_selectors_that_match(text: str):
    assert parse_labels(text).matches(WEB)


@pytest.mark.parametrize(
    "text",
    ["x", "app=db", "app=", "!app", "app in (db)", "tier notin (front)", "size>5", "app>1", "x<1"],
)
def test_selectors_that_do_not_match(text: str):
    assert not parse_labels(text).matches(WEB)


def test_in_and_notin_may_be_keys_and_values():
    assert parse_labels("in in (in,notin)").matches({"in": "notin"})
    assert parse_labels("notin=in").matches({"notin": "in"})


def test_missing_values_are_empty():
    assert parse_labels("app=").matches({"app": ""})
    assert parse_labels("app in (,)").matches({"app": ""})
    assert parse_labels("app in (a,)").matches({"app": ""})


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("b , a", "a,b"),
        ("x in (b,a,b)", "x in (a,b)"),
        ("x==y", "x==y"),
        ("!x", "!x"),
        ("x > 3", "x>3"),
        ("x notin(a)", "x notin (a)"),
    ],
)
def test_canonical_text(text: str, canonical: str):
    assert str(parse_labels(text)) == canonical


QUALIFIED = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("-a", f'unable to parse requirement: <nil>: Invalid value: "-a": {QUALIFIED}'),
        (
            "a in ()",
            "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, "
            "values set can't be empty",
        ),
        (
            "a>b",
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' "
            "operators, the value must be an integer",
        ),
    ],
)
def test_wrong_selectors_are_told_as_upstream_does(text: str, message: str):
    with pytest.raises(StatusError) as caught:
        parse_labels(text)
    assert caught.value.code == 400 and caught.value.message == message


def test_a_value_that_no_label_can_have_is_refused():
    with pytest.raises(
        StatusError, match=r'values\[0\]\[app\]: Invalid value: "-x": a valid label'
    ):
        parse_labels("app=-x")


def test_an_absent_selector_object_selects_nothing_and_an_empty_one_all():
    assert not labels_from_object(None).matches({})
    assert labels_from_object({}).matches(WEB) and labels_from_object({}).empty


def test_a_selector_object_joins_labels_and_expressions():
    selector = labels_from_object(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front"]},
                {"key": "x", "operator": "DoesNotExist"},
                {"key": "size", "operator": "Exists"},
                {"key": "app", "operator": "NotIn", "values": ["db"]},
            ],
        }
    )
    assert selector.matches(WEB) and not selector.matches({"app": "web"})
    assert str(selector) == "app=web,app notin (db),size,tier in (front),!x"


def test_a_selector_object_with_an_unknown_operator_is_refused():
    with pytest.raises(StatusError, match='"Like" is not a valid label selector operator'):
        labels_from_object({"matchExpressions": [{"key": "a", "operator": "Like"}]})


def test_a_set_of_labels_is_a_selector():
    assert str(labels_from_set({"b": "2", "a": "1"})) == "a=1,b=2"
    assert labels_from_set({"a": "1"}).exact("a") == "1"
    assert labels_from_set({"a": "1"}).exact("b") is None


LABEL = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
# A list of one empty value has no text of its own, upstream neither: it prints as "()".
VALUES = st.lists(st.one_of(st.just(""), LABEL), min_size=1, max_size=3).filter(any)
REQUIREMENTS = st.one_of(
    LABEL,
    LABEL.map(lambda k: f"!{k}"),
    st.tuples(LABEL, st.sampled_from(["=", "==", "!="]), LABEL).map("".join),
    st.tuples(LABEL, st.sampled_from(["<", ">"]), st.integers(0, 99).map(str)).map("".join),
    st.tuples(LABEL, st.sampled_from(["in", "notin"]), VALUES).map(
        lambda t: f"{t[0]} {t[1]} ({','.join(t[2])})"
    ),
)


@given(st.lists(REQUIREMENTS, max_size=4).map(",".join), st.dictionaries(LABEL, LABEL))
def test_the_canonical_text_means_the_same(text: str, labels: dict[str, str]):
    selector = parse_labels(text)
    again = parse_labels(str(selector))
    assert again.matches(labels) == selector.matches(labels)
    assert str(again) == str(selector)


@given(st.text(max_size=30))
def test_any_text_is_a_selector_or_a_bad_request(text: str):
    for parse in (parse_labels, parse_fields):
        try:
            parse(text)
        except StatusError as error:
            assert error.code == 400


def test_field_selectors():
    fields = {"metadata.name": "web", "spec.nodeName": "", "status.phase": "Running"}
    assert parse_fields("").matches(fields) and parse_fields("").empty
    assert parse_fields("metadata.name=web,status.phase!=Failed").matches(fields)
    assert parse_fields("spec.nodeName=").matches(fields)
    assert not parse_fields("spec.nodeName!=").matches(fields)
    assert not parse_fields("metadata.name==db").matches(fields)
    assert parse_fields("a=b,metadata.name==db").exact("metadata.name") == "db"


def test_field_values_may_be_escaped():
    assert parse_fields(r"a=x\,y\=z\\") == FieldSelector((FieldTerm("a", "x,y=z\\"),))
    assert str(parse_fields(r"a=x\,y")) == r"a=x\,y"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc", "invalid selector: 'abc'; can't understand 'abc'"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
    ],
)
def test_wrong_field_selectors_are_told(text: str, message: str):
    with pytest.raises(StatusError) as caught:
        parse_fields(text)
    assert caught.value.message == message


def test_fields_that_cannot_be_selected_by_are_refused():
    parse_fields("metadata.name=x").check(frozenset({"metadata.name"}), plain=True)
    with pytest.raises(StatusError, match=r'"spec\.foo" is not a known field selector: only'):
        parse_fields("spec.foo=x").check(frozenset({"metadata.name"}), plain=True)
    parse_fields("metadata.namespace=x").check(frozenset({"metadata.name"}), plain=True)
    with pytest.raises(StatusError, match=r"field label not supported: spec\.foo"):
        parse_fields("spec.foo=x").check(frozenset({"metadata.name", "spec.nodeName"}))


@given(st.dictionaries(LABEL, st.text(max_size=8), max_size=3))
def test_any_field_value_survives_its_text(fields: dict[str, str]):
    text = str(FieldSelector(tuple(FieldTerm(k, v) for k, v in sorted(fields.items()))))
    assert {t.field: t.value for t in parse_fields(text).terms} == fields
