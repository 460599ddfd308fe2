"""Amounts of bytes that are no whole number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wherry.kube.api.quantity import QuantityError, to_milli


def fractions(amounts: Mapping[str, Any], path: str, names: Iterable[str]) -> list[str]:
    """Those of the amounts called ``names`` that are no whole number of bytes."""
    told = []
    for name in names:
        text = amounts.get(name)
        if text is None or not _may_be_fraction(str(text)):
            continue
        try:
            fraction = to_milli(text) % 1000
        except QuantityError:
            continue
        if fraction:
            why = f'fractional byte value "{text}" is invalid, must be an integer'
            told.append(f"{path}[{name}]: {why}")
    return told


def _may_be_fraction(text: str) -> bool:
    """A quick look: most amounts plainly are none."""
    return text[-1:] in ("m", "u", "n") or "." in text or "e-" in text


def claim_amounts(spec: Mapping[str, Any], path: str) -> list[str]:
    """Those of a claim's spec."""
    resources = spec.get("resources") or {}
    return [
        text
        for part in ("requests", "limits")
        for text in fractions(resources.get(part) or {}, f"{path}.resources.{part}", ("storage",))
    ]
