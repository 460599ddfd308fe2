"""What was charged to a quota for objects that are not there yet.

Admission charges an object before it is stored. Between the two, whoever counts what there is would
not find it, and give away its place. So a charge is noted at the quota until the object is seen; in
an annotation, because the quota is then changed in one write, which fails if anybody was quicker,
whichever server he asked. A note is believed for a minute: its server may have died.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from wherry.kube.api import amounts
from wherry.kube.api.amounts import Amounts
from wherry.kube.api.quantity import ZERO

Object = dict[str, Any]

ANNOTATION = "quota.wherry.dev/reserved"
SECONDS = 60.0
"""How long a reservation is believed."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """``used`` is charged for the object of a uid; until ``until`` (seconds since the epoch), or
    it is seen in another revision than ``replaces`` ("": seen at all)."""

    used: Amounts
    until: float
    replaces: str = ""

    def fulfilled(self, revision: str | None) -> bool:
        """Whether an object seen at ``revision`` (None: not seen) is the one that was charged."""
        return revision is not None and revision != self.replaces


def read(quota: Object) -> dict[str, Reservation]:
    """By uid. What is not in the form is nothing."""
    text = (quota["metadata"].get("annotations") or {}).get(ANNOTATION)
    if not text:
        return {}
    try:
        noted = orjson.loads(text)
        return {
            str(uid): Reservation(
                amounts.read(note["used"]), float(note["until"]), str(note.get("replaces", ""))
            )
            for uid, note in noted.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def write(quota: Object, noted: Mapping[str, Reservation]) -> Object:
    """The quota with these reservations and no others; ``quota`` itself is left alone."""
    metadata = dict(quota["metadata"])
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(ANNOTATION, None)
    if noted:
        notes = {}
        for uid, each in noted.items():
            notes[uid] = {"used": amounts.write(each.used), "until": round(each.until)}
            if each.replaces:
                notes[uid]["replaces"] = each.replaces
        annotations[ANNOTATION] = orjson.dumps(notes).decode()
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    return {**quota, "metadata": metadata}


def pending(
    noted: Mapping[str, Reservation], seen: Callable[[str], str | None], now: float
) -> dict[str, Reservation]:
    """Those that still count: not too old, and not fulfilled by an object; ``seen`` gives the
    revision of the object of a uid, or None."""
    return {
        uid: each
        for uid, each in noted.items()
        if each.until > now and not each.fulfilled(seen(uid))
    }


def without(used: Amounts, charge: Mapping[str, Any]) -> Amounts:
    """``used`` less a charge that is given back."""
    return {
        name: max(amount - charge[name], ZERO) if name in charge else amount
        for name, amount in used.items()
    }
