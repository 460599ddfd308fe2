"""A kind in a version it is not stored in, and the shape of what tells the two apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds.base import Kind, Object
from wherry.kube.api.resources import Resource

Convert = Callable[[Object], Object]


def same(o: Object) -> Object:
    """Both versions have the same fields."""
    return o


def _nothing(o: Object) -> None:
    """The stored version's defaults are the old one's."""


def _as_it_is(fault: FieldError) -> FieldError | None:
    return fault


@dataclass(frozen=True, slots=True)
class Conversion:
    """How an old version of a kind differs from the stored one. Pure functions: they leave what
    they are given as it is, and may share parts with it. ``kind`` and ``apiVersion`` are not theirs
    to set. Objects may be partial: what is applied or patched is converted undefaulted.

    Attributes:
        to_stored, from_stored: the same object in the other version.
        default: what the old version filled in differently, in place, before the stored version's
            defaults are.
        fault: a fault of the stored version in the old one's words; None where it is none there.
        labels: names of selectable fields: old → stored.
        orphans: what an object owned stayed when that was deleted, if the client did not say.
    """

    to_stored: Convert = same
    from_stored: Convert = same
    default: Callable[[Object], None] = _nothing
    fault: Callable[[FieldError], FieldError | None] = _as_it_is
    labels: Mapping[str, str] = field(default_factory=dict)
    orphans: bool = False


class OldVersion(Kind):
    """``stored`` as it looks in another version. Its rules are those of the stored kind: only
    reading, defaults, and the words for faults are the version's own."""

    def __init__(
        self, resource: Resource, stored: Kind, conversion: Conversion, deprecation: str
    ) -> None:
        super().__init__(resource)
        self.stored = stored
        self.conversion = conversion
        self.deprecation = deprecation
        self.columns = stored.columns  # type: ignore[misc]
        self.orphans = conversion.orphans or stored.orphans  # type: ignore[misc]
        renamed = set(conversion.labels.values())
        self.selectable = frozenset(conversion.labels) | (stored.selectable - renamed)

    def default(self, o: Object) -> None:
        self.conversion.default(o)

    def to_stored(self, o: Object) -> Object:
        return self._named(self.conversion.to_stored(o), self.stored.resource)

    def from_stored(self, o: Object) -> Object:
        return self._named(self.conversion.from_stored(o), self.resource)

    def _named(self, o: Object, resource: Resource) -> Object:
        return {**o, "kind": resource.kind, "apiVersion": resource.api_version}

    def as_asked(self, faults: list[FieldError], o: Object) -> list[FieldError]:
        worded = map(self.conversion.fault, faults)
        return [fault for fault in worded if fault is not None]

    # Showing ------------------------------------------------------------------------------------

    def row(self, o: Object, now: datetime) -> list[Any]:
        return self.stored.row(self.to_stored(o), now)

    def selectable_fields(self, o: Object) -> dict[str, str]:
        """The fields of an object as it is stored."""
        found = self.stored.selectable_fields(o)
        labels = self.conversion.labels
        if labels:
            found |= {old: found[stored] for old, stored in labels.items() if stored in found}
        return found

    # Scaling ------------------------------------------------------------------------------------

    def scale(self, o: Object) -> Object:
        """The scale of an object as it is stored."""
        scale = self.stored.scale(o)
        if self.resource.group not in ("apps", "extensions"):
            return scale
        return _old_scale(scale, self.resource.api_version)

    def apply_scale(self, o: Object, scale: Object) -> None:
        self.stored.apply_scale(o, scale)

    def validate_scale(self, scale: Object) -> list[FieldError]:
        return self.stored.validate_scale(scale)


def _old_scale(scale: Object, api_version: str) -> Object:
    """A Scale as the workloads' old versions had it: with the selector as a map, where it is one,
    beside its text."""
    status = {**scale.get("status", {})}
    text = status.pop("selector", "")
    if text:
        terms = [term.partition("=") for term in text.split(",")]
        if all(sign and " " not in key and key[-1:] != "!" for key, sign, _ in terms):
            status["selector"] = {key: value.removeprefix("=") for key, _, value in terms}
        status["targetSelector"] = text
    return {**scale, "apiVersion": api_version, "status": status}
