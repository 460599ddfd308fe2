from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.kubelet import bandwidth


def pod(**rates: str) -> dict[str, Any]:
    annotations = {f"kubernetes.io/{key}-bandwidth": value for key, value in rates.items()}
    return {"metadata": {"name": "p", "annotations": annotations}}


def test_rates_are_quantities_of_bits_a_second() -> None:
    assert bandwidth.of(pod()) == (0, 0)
    assert bandwidth.of({"metadata": {}}) == (0, 0)
    assert bandwidth.of(pod(ingress="10M", egress="1Ki")) == (10**7, 1024)
    assert bandwidth.of(pod(egress="1P")) == (0, 10**15)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("999", r"resource is unreasonably small \(< 1kbit\)"),
        ("-1M", r"resource is unreasonably small \(< 1kbit\)"),
        ("2P", r"resource is unreasonably large \(> 1Pbit\)"),
        ("fast", "quantities must match the regular expression"),
        ("", "quantities must match the regular expression"),
    ],
)
def test_what_makes_no_sense_is_told(value: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        bandwidth.of(pod(ingress=value))


@given(st.text(max_size=12))
def test_every_text_is_a_rate_or_a_sentence(text: str) -> None:
    try:
        found, _ = bandwidth.of(pod(ingress=text))
    except ValueError as error:
        assert str(error)
    else:
        assert 10**3 <= found <= 10**15
