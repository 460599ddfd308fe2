"""Quantities: ``500m``, ``1Gi``, ``12e6``, as numbers and in canonical form.

A quantity is a whole number of nano-units and the family of suffixes it was written in. Smaller
parts are rounded up (away from zero), larger numbers are cut at 2^63-1, as
k8s.io/apimachinery/pkg/api/resource does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache, total_ordering
from typing import Literal

Format = Literal["DecimalSI", "BinarySI", "DecimalExponent"]

_NANO = 10**9
_MAX = (2**63 - 1) * _NANO

_DECIMAL = {
    "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_BINARY = {suffix: power for power, suffix in enumerate(_BINARY_SUFFIX) if suffix}

_FORM = re.compile(r"([+-]?)([0-9]*)(\.?)([0-9]*)([eEinumkKMGTP]*[-+]?[0-9]*)")
_EXPONENT = re.compile(r"[eE]([-+]?[0-9]+)")

MALFORMED = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
BAD_NUMBER = "unable to parse numeric part of quantity"
BAD_SUFFIX = "unable to parse quantity's suffix"


class QuantityError(ValueError):
    """A text that is no quantity; ``str()`` is upstream's sentence for it."""


def _round_up(numerator: int, denominator: int) -> int:
    """The quotient, rounded away from zero."""
    quotient = -(-abs(numerator) // denominator)
    return quotient if numerator >= 0 else -quotient


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """A fixed-point number of ``nanos`` (10^-9), printed in the suffixes of ``format``."""

    nanos: int
    format: Format = field(default="DecimalSI")

    def __str__(self) -> str:
        if self.format == "BinarySI" and abs(self.nanos) >= 1024 * _NANO:
            number, power = self.to_int(), 0
            while number % 1024 == 0 and power < len(_BINARY_SUFFIX) - 1:
                number, power = number // 1024, power + 1
            return f"{number}{_BINARY_SUFFIX[power]}"
        if self.nanos == 0:
            return "0"
        number, exponent = self.nanos, -9
        while number % 1000 == 0 and exponent < 18:
            number, exponent = number // 1000, exponent + 3
        if self.format == "DecimalExponent":
            return f"{number}e{exponent}" if exponent else str(number)
        return f"{number}{_DECIMAL_SUFFIX[exponent]}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __add__(self, other: Quantity) -> Quantity:
        # A zero takes the other's family, so that a sum that starts at nothing prints as its parts.
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    def __neg__(self) -> Quantity:
        return Quantity(-self.nanos, self.format)

    def __bool__(self) -> bool:
        return self.nanos != 0

    def to_int(self) -> int:
        """The whole number, rounded away from zero (upstream's ``Value``)."""
        return _round_up(self.nanos, _NANO)

    def to_milli(self) -> int:
        """The number of thousandths, rounded away from zero (upstream's ``MilliValue``)."""
        return _round_up(self.nanos, 10**6)


ZERO = Quantity(0)


def from_int(number: int, format: Format = "DecimalSI") -> Quantity:
    return Quantity(number * _NANO, format)


def from_milli(thousandths: int) -> Quantity:
    return Quantity(thousandths * 10**6)


@lru_cache(4096)
def parse(text: str) -> Quantity:
    """The quantity that ``text`` means.

    Raises:
        QuantityError: it means none.
    """
    match = _FORM.fullmatch(text)
    if not text or not match:
        raise QuantityError(MALFORMED)
    sign, whole, _, fraction, suffix = match.groups()
    scale, format = _interpret(suffix)
    if not whole and not fraction:
        raise QuantityError(BAD_NUMBER)
    number = int(whole + fraction) * _NANO
    numerator, denominator = scale
    nanos = min(_round_up(number * numerator, denominator * 10 ** len(fraction)), _MAX)
    return Quantity(-nanos if sign == "-" else nanos, format)


def _interpret(suffix: str) -> tuple[tuple[int, int], Format]:
    """What a suffix multiplies by, as a fraction, and its family."""
    if suffix in _DECIMAL:
        exponent, format = _DECIMAL[suffix], "DecimalSI"
    elif suffix in _BINARY:
        return (1024 ** _BINARY[suffix], 1), "BinarySI"
    elif match := _EXPONENT.fullmatch(suffix):
        # Beyond these the number is cut or vanishes anyway; a huge power must cost nothing.
        exponent, format = max(-400, min(400, int(match[1][:12]))), "DecimalExponent"
    else:
        raise QuantityError(BAD_SUFFIX)
    scale = (10**exponent, 1) if exponent >= 0 else (1, 10**-exponent)
    return scale, "DecimalSI" if format == "DecimalSI" else "DecimalExponent"


@lru_cache(4096)
def canonical(text: str) -> str:
    """The one way to write the number that ``text`` means: ``0.5`` is ``500m``.

    Raises:
        QuantityError: it means none.
    """
    return str(parse(text))


def to_milli(text: str | int | float) -> int:
    """Thousandths, rounded up: what ``cpu`` is counted in."""
    return parse(str(text)).to_milli()


def to_int(text: str | int | float) -> int:
    """Whole units, rounded up: bytes of ``memory``, numbers of pods."""
    return parse(str(text)).to_int()
