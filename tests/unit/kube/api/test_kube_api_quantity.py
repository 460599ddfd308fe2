from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import quantity
from wherry.kube.api.quantity import QuantityError, canonical, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"),
        ("0.0", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1000", "1k"),
        ("1000k", "1M"),
        ("0.001", "1m"),
        ("1u", "1u"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("1023Ki", "1023Ki"),
        ("1.0001Ki", "1025"),
        ("0.1Gi", "107374183"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12e2", "1200"),
        ("1e-3", "1e-3"),
        ("123456789", "123456789"),
        ("5E", "5E"),
        ("129M", "129M"),
        ("128974848", "128974848"),
        ("100E", "9223372036854775807"),
        ("1e400000000000", "9223372036854775807"),
    ],
)
def test_canonical_form(text: str, expected: str):
    assert canonical(text) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", quantity.MALFORMED),
        ("1 Gi", quantity.MALFORMED),
        ("lots", quantity.MALFORMED),
        ("1.2.3", quantity.MALFORMED),
        ("--1", quantity.BAD_SUFFIX),
        ("1\n", quantity.MALFORMED),
        ("1K", quantity.BAD_SUFFIX),
        ("1gi", quantity.MALFORMED),
        ("1kk", quantity.BAD_SUFFIX),
        ("1e", quantity.BAD_SUFFIX),
        ("1mi", quantity.BAD_SUFFIX),
        ("Mi", quantity.BAD_NUMBER),
        (".", quantity.BAD_NUMBER),
    ],
)
def test_what_is_no_quantity_is_told_as_upstream_does(text: str, error: str):
    with pytest.raises(QuantityError) as caught:
        parse(text)
    assert str(caught.value) == error


def test_numbers_come_out_rounded_up():
    assert quantity.to_milli("0.0001") == 1 and quantity.to_milli("2") == 2000
    assert quantity.to_int("1500m") == 2 and quantity.to_int("1Ki") == 1024
    assert quantity.to_int("-1500m") == -2
    assert quantity.to_milli(2) == 2000


def test_sums_print_in_the_family_of_their_parts():
    assert str(quantity.ZERO + parse("512Mi") + parse("512Mi")) == "1Gi"
    assert str(parse("1") - parse("250m")) == "750m"
    assert str(-parse("1Gi")) == "-1Gi"


def test_equal_quantities_in_different_words_are_equal():
    assert parse("1") == parse("1000m") and hash(parse("1")) == hash(parse("1000m"))
    assert parse("1Gi") > parse("1G") and parse("1") != "1"
    assert not parse("0") and parse("1n")


numbers = st.builds(
    lambda sign, whole, fraction, suffix: sign + whole + fraction + suffix,
    st.sampled_from(["", "-", "+"]),
    st.integers(0, 10**9).map(str),
    st.one_of(st.just(""), st.integers(0, 10**6).map(lambda n: f".{n}")),
    st.sampled_from([*quantity._DECIMAL, *quantity._BINARY, "e2", "E-3", "e9"]),
)


@given(numbers)
def test_the_canonical_form_is_a_fixed_point(text: str):
    once = canonical(text)
    twice = canonical(once)
    # (A number of bytes that is no multiple of 1024 has no suffix left: it is read as a decimal.)
    assert twice == once or (parse(text).format == "BinarySI" and once.lstrip("-").isdigit())
    assert parse(twice) == parse(once)
    assert canonical(twice) == twice


@given(numbers)
def test_the_canonical_form_means_the_same_to_a_rounding(text: str):
    before, after = parse(text), parse(canonical(text))
    if before.format == "BinarySI" and abs(before.nanos) >= 1024 * 10**9:
        assert after.nanos == min(before.to_int(), 2**63 - 1) * 10**9
    else:
        assert after == before


@given(st.fractions(min_value=0, max_value=10**6))
def test_milli_rounds_up(value: Fraction):
    nanos = -(-value * 10**9 // 1)
    q = quantity.Quantity(int(nanos))
    assert 0 <= Fraction(q.to_milli(), 1000) - Fraction(q.nanos, 10**9) < Fraction(1, 1000)
