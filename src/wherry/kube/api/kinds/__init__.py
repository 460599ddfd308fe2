"""The kinds: what is special about each, on the generic behaviour of ``base.Kind``.

``base`` is the order of steps every write takes; a module per kind (or family) overrides steps.
``fields`` words the faults, ``metadata`` holds the rules all kinds share. Pure functions over plain
dicts; the API server's registry is the caller.

The table :data:`KINDS` lists them; adding a kind is one line here and one in
``kube.api.resources``.
"""

from __future__ import annotations

from wherry.kube.api.kinds.base import Column, Kind
from wherry.kube.api.resources import RESOURCES

__all__ = ["KINDS", "Column", "Kind"]

KINDS: dict[tuple[str, str, str], Kind] = {
    (r.group, r.version, r.plural): Kind(r) for r in RESOURCES
}
"""(group, version, plural) → the kind's rules."""
