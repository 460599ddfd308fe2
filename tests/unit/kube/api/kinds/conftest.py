"""Objects as they pass the API server: decoded, defaulted, prepared, judged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from wherry.kube.api.kinds import KINDS, Kind
from wherry.kube.api.schema import decode

Object = dict[str, Any]


def kind_of(o: Object) -> Kind:
    for kind in KINDS.values():
        if (kind.resource.api_version, kind.resource.kind) == (o["apiVersion"], o["kind"]):
            return kind
    raise LookupError(o["kind"])


def read(manifest: str | Object) -> Object:
    """A manifest as the client sends it, with the namespace the URL adds, and defaults."""
    o: Object = yaml.safe_load(manifest) if isinstance(manifest, str) else copy.deepcopy(manifest)
    kind = kind_of(o)
    o = decode(kind.resource, o).value
    if kind.resource.namespaced:
        o.setdefault("metadata", {}).setdefault("namespace", "default")
    kind.default(o)
    return o


class Api:
    """The steps of a write, without the store."""

    kind_of = staticmethod(kind_of)
    read = staticmethod(read)

    @staticmethod
    def create(manifest: str | Object) -> Object:
        o = read(manifest)
        kind_of(o).prepare_create(o)
        return o

    def faults(self, manifest: str | Object) -> list[str]:
        o = self.create(manifest)
        return [str(fault) for fault in kind_of(o).validate(o)]

    def update(self, old: Object, change: Callable[[Object], Any]) -> tuple[Object, list[str]]:
        """The object after ``change`` of a copy, and what is wrong with that."""
        new, before, kind = copy.deepcopy(old), copy.deepcopy(old), kind_of(old)
        change(new)
        kind.default(new)
        kind.prepare_update(new, old)
        faults = [str(fault) for fault in kind.validate_update(new, old)]
        assert old == before
        return new, faults

    def update_status(
        self, old: Object, change: Callable[[Object], Any]
    ) -> tuple[Object, list[str]]:
        new, before, kind = copy.deepcopy(old), copy.deepcopy(old), kind_of(old)
        change(new)
        kind.default(new)
        kind.prepare_status_update(new, old)
        faults = [str(fault) for fault in kind.validate_status_update(new, old)]
        assert old == before
        return new, faults


@pytest.fixture
def api() -> Api:
    return Api()


def set_at(o: Any, path: str, value: Any) -> None:
    """Set ``a.b.0.c``; None takes the field away."""
    *steps, last = path.split(".")
    for step in steps:
        o = o[int(step)] if isinstance(o, list) else o.setdefault(step, {})
    if isinstance(o, list):
        index = int(last)
        if index == len(o):
            o.append(value)
        else:
            o[index] = value
    elif value is None:
        o.pop(last, None)
    else:
        o[last] = value


@pytest.fixture
def with_(api: Api) -> Callable[..., Object]:
    """A manifest with some fields set to other values."""

    def change(manifest: str | Object, **changes: Any) -> Object:
        o: Object = (
            yaml.safe_load(manifest) if isinstance(manifest, str) else copy.deepcopy(manifest)
        )
        for path, value in changes.items():
            set_at(o, path, value)
        return o

    return change
