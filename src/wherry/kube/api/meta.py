"""Small readers of what every object has: names, labels, owners, times.

They take an object as JSON has it, bear what is absent, and never change anything.
"""

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

Object = Mapping[str, Any]

_NOTHING: dict[str, Any] = {}


def metadata(o: Object) -> dict[str, Any]:
    """The object's metadata, empty where there is none. Read-only."""
    return o.get("metadata") or _NOTHING


def name(o: Object) -> str:
    return metadata(o).get("name") or ""


def namespace(o: Object) -> str:
    return metadata(o).get("namespace") or ""


def key(o: Object) -> str:
    """``namespace/name``, or the name alone where the object has no namespace."""
    where = namespace(o)
    return f"{where}/{name(o)}" if where else name(o)


def uid(o: Object) -> str:
    return metadata(o).get("uid") or ""


def resource_version(o: Object) -> str:
    return metadata(o).get("resourceVersion") or ""


def generation(o: Object) -> int:
    return metadata(o).get("generation") or 0


def labels(o: Object) -> dict[str, str]:
    return metadata(o).get("labels") or _NOTHING


def annotations(o: Object) -> dict[str, str]:
    return metadata(o).get("annotations") or _NOTHING


def finalizers(o: Object) -> list[str]:
    return metadata(o).get("finalizers") or []


def owner_references(o: Object) -> list[dict[str, Any]]:
    return metadata(o).get("ownerReferences") or []


def controller_of(o: Object) -> dict[str, Any] | None:
    """The owner reference with ``controller: true``; an object has at most one."""
    for reference in owner_references(o):
        if reference.get("controller"):
            return reference
    return None


def is_controlled_by(o: Object, owner: Object) -> bool:
    """Whether ``owner`` is the controller of ``o``, by uid."""
    reference = controller_of(o)
    return reference is not None and reference.get("uid") == uid(owner)


def is_deleting(o: Object) -> bool:
    """Whether deletion was asked for and something (grace, a finalizer) still holds the object."""
    return metadata(o).get("deletionTimestamp") is not None


def creation_time(o: Object) -> datetime | None:
    text = metadata(o).get("creationTimestamp")
    return parse_time(text) if text else None


def new_uid() -> str:
    """A random UUID (RFC 9562, version 4). Every object gets one, so it is put together here."""
    d = os.urandom(16).hex()
    return f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{'89ab'[int(d[16], 16) & 3]}{d[17:20]}-{d[20:]}"


def now() -> str:
    """The present as meta/v1 Time has it: UTC, whole seconds, ``2026-03-01T12:00:00Z``."""
    return _of_second(int(time.time()))


@lru_cache(1)
def _of_second(seconds: int) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))


def now_micro() -> str:
    """The present as meta/v1 MicroTime has it: ``2026-03-01T12:00:00.000001Z``."""
    return format_micro_time(datetime.now(UTC))


def format_time(moment: datetime) -> str:
    """A moment (with a time zone) as meta/v1 Time."""
    return f"{moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()}Z"


def format_micro_time(moment: datetime) -> str:
    """A moment (with a time zone) as meta/v1 MicroTime."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"{text}Z"


def format_nanoseconds(moment: int) -> str:
    """Nanoseconds since the epoch in whole seconds, as in ``startedAt`` of a container's state."""
    return format_time(datetime.fromtimestamp(moment // 10**9, UTC))


def parse_time(text: str) -> datetime:
    """The moment that an RFC 3339 text means, in UTC.

    Raises:
        ValueError: it is no such text, or names no time zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time {text!r} has no time zone")
    return moment.astimezone(UTC)


def clone(value: Any) -> Any:
    """A deep copy of a JSON value: what to change in place of a shared object."""
    if type(value) is dict:
        return {key: clone(each) for key, each in value.items()}
    if type(value) is list:
        return [clone(each) for each in value]
    return value
