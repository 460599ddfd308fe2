"""What the state of its owners means for an object: a pure function.

An object lives as long as one owner does. References to owners that are gone, or about to go, are
removed while another keeps it; with the last owner it goes too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from wherry.kube.api import meta
from wherry.kube.client.transport import Object
from wherry.kube.controllers.garbage.graph import FOREGROUND, ORPHAN


class Owner(Enum):
    """The state of an owner."""

    PRESENT = "present"
    WAITING = "waits for its dependents to go"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave it as it is."""


@dataclass(frozen=True, slots=True)
class Disown:
    """Remove the references to these uids."""

    uids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete it, with this propagation policy."""

    propagation: str


def decide(
    object: Object, owners: Mapping[str, Owner], *, has_dependents: bool
) -> Keep | Disown | Delete:
    """What to do with ``object``, given the state of each owner by uid.

    ``has_dependents`` tells whether it owns something itself.
    """
    references = meta.owner_references(object)
    states = {reference["uid"]: owners[reference["uid"]] for reference in references}
    if not states:
        return Keep()
    if Owner.PRESENT in states.values():
        leaving = frozenset(uid for uid, state in states.items() if state is not Owner.PRESENT)
        return Disown(leaving) if leaving else Keep()
    if Owner.WAITING in states.values() and has_dependents:
        # Its owner waits for it, so it must wait for its own.
        return Delete("Foreground")
    finalizers = meta.finalizers(object)
    if ORPHAN in finalizers:
        return Delete("Orphan")
    if FOREGROUND in finalizers:
        return Delete("Foreground")
    return Delete("Background")
