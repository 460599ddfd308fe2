"""Answers as bytes, in the form that was negotiated.

The plain case copies bytes that are already there; only tables, metadata alone, YAML and indented
JSON are made per request. JSON ends with its line, as upstream's encoder ends it: clients show the
body of an error as it came.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import orjson

from wherry.kube.api.errors import StatusError, bad_request
from wherry.kube.api.kinds import Kind
from wherry.kube.apiserver.answers import Collection, Seen, Single
from wherry.kube.apiserver.cache import watch_frame
from wherry.kube.apiserver.negotiate import YAML, Form
from wherry.kube.apiserver.objects import Object, Stored

_INCLUDE = ("", "None", "Metadata", "Object")


def render_single(answer: Single, form: Form, include: str) -> bytes:
    """The body for one object. ``include`` is the parameter includeObject of tables."""
    if form.transform == "Table" and answer.kind is None and _is_review(answer.object):
        raise _not_shown(form, "the requested object cannot be shown so")
    if form.transform and answer.kind is not None:
        return dump(transform(answer.kind, answer.stored, form, include), form)
    return plain(answer.stored.data + b"\n", form)


def render_collection(answer: Collection, form: Form, include: str) -> bytes:
    """The body for a list."""
    return plain(b"".join(collection_pieces(answer, form, include)), form)


_PIECE = 256  # objects of a list are encoded at a time,
_PIECE_BYTES = 256 * 1024  # or so many bytes of them
_LIST_END = b"]}\n"


def in_pieces(form: Form) -> bool:
    """Whether a list in this form can be written as it is made."""
    return form.media_type != YAML and not form.pretty


def collection_length(answer: Collection, form: Form) -> int | None:
    """How long the body of a list will be, where that is known beforehand, in bytes."""
    if form.transform:
        return None
    commas = max(len(answer.items) - 1, 0)
    return len(_list_head(answer)) + answer.size + commas + len(_LIST_END)


def collection_pieces(answer: Collection, form: Form, include: str) -> Iterator[bytes]:
    """The body for a list as compact JSON, some objects at a time."""
    first, *more = pairwise(_cuts(answer.encoded))
    head, items = _piece(answer, slice(*first), form, include)
    yield head + items
    for cut in more:
        yield b"," + _piece(answer, slice(*cut), form, include)[1]
    yield _LIST_END


def _cuts(encoded: Sequence[bytes]) -> list[int]:
    """Where the pieces of a list begin and end, of which the first may be empty."""
    sums = list(accumulate(map(len, encoded), initial=0))
    cuts = [0]
    while cuts[-1] < len(encoded) or len(cuts) == 1:
        start = cuts[-1]
        full = bisect_left(sums, sums[start] + _PIECE_BYTES, start)
        cuts.append(min(max(full, start + 1), start + _PIECE, len(encoded)))
    return cuts


def _piece(answer: Collection, cut: slice, form: Form, include: str) -> tuple[bytes, bytes]:
    """What stands before the first object of the list, and the objects of the cut."""
    if not form.transform:
        return _list_head(answer), b",".join(answer.encoded[cut])
    items = answer.items[cut]
    if form.transform == "Table":
        table = _table(answer.kind, [stored.object for stored in items], form, include)
        rows = table.pop("rows")
        return _opened({**table, "metadata": answer.metadata}, "rows"), orjson.dumps(rows)[1:-1]
    if form.transform == "PartialObjectMetadata":
        raise _not_shown(form, "the requested object is a list")
    head = {
        "kind": "PartialObjectMetadataList",
        "apiVersion": f"meta.k8s.io/{form.version}",
        "metadata": answer.metadata,
    }
    partial = [_partial(stored.object, form) for stored in items]
    return _opened(head, "items"), orjson.dumps(partial)[1:-1]


def _list_head(answer: Collection) -> bytes:
    resource = answer.kind.resource
    head = {"kind": resource.list_kind, "apiVersion": resource.api_version}
    return _opened({**head, "metadata": answer.metadata}, "items")


def _opened(head: Object, field: str) -> bytes:
    """An object without its end, that goes on with a list."""
    return b'%b,"%b":[' % (orjson.dumps(head)[:-1], field.encode())


def frames(kind: Kind, form: Form, include: str) -> Callable[[Sequence[Seen]], bytes]:
    """What turns a batch of a watch's events into bytes."""
    if form.media_type == YAML:
        raise StatusError(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, "
            "application/json;stream=watch",
        )
    if form.transform == "PartialObjectMetadataList":
        raise _not_shown(form, "the requested object is not a list")
    if not form.transform:
        return _plain_frames
    first = True  # only the first table of a watch describes its columns

    def transformed(batch: Sequence[Seen]) -> bytes:
        nonlocal first
        lines = []
        for seen in batch:
            if seen.type == "BOOKMARK" and form.transform == "Table":
                lines.append(watch_frame(seen.type, orjson.dumps(_empty_table(seen.stored, form))))
                continue
            shown = transform(kind, seen.stored, form, include)
            if form.transform == "Table":
                if not first:
                    shown["columnDefinitions"] = None
                first = False
            lines.append(watch_frame(seen.type, orjson.dumps(shown)))
        return b"".join(lines)

    return transformed


def _plain_frames(batch: Sequence[Seen]) -> bytes:
    if len(batch) == 1:
        return _plain_frame(*batch[0])
    return b"".join([watch_frame(seen.type, seen.stored.data) for seen in batch])


@lru_cache(1)
def _plain_frame(type: str, stored: Stored) -> bytes:
    """Most often what the watcher before was told as well."""
    return watch_frame(type, stored.data)


def error_frame(error: StatusError) -> bytes:
    """The last line of a watch that fails."""
    return watch_frame("ERROR", orjson.dumps(error.status()))


def transform(kind: Kind, stored: Stored, form: Form, include: str) -> Object:
    """The object as a Table or as its metadata alone."""
    if form.transform == "Table":
        table = _table(kind, [stored.object], form, include)
        version = stored.object["metadata"].get("resourceVersion")
        table["metadata"] = {"resourceVersion": version} if version else {}
        return table
    if form.transform != "PartialObjectMetadata":
        raise _not_shown(form, "the requested object is not a list")
    return _partial(stored.object, form)


def _is_review(o: Object) -> bool:
    """Whether it is an answer to a question, which is no object with metadata."""
    return str(o.get("kind", "")).endswith("Review")


def _not_shown(form: Form, why: str) -> StatusError:
    return StatusError(406, "NotAcceptable", f"you requested {form.transform}, but {why}")


def plain(data: bytes, form: Form) -> bytes:
    """JSON that is at hand, as it is unless the form wants it otherwise."""
    if form.pretty or form.media_type == YAML:
        return dump(orjson.loads(data), form)
    return data


def dump(value: Any, form: Form) -> bytes:
    """A value in the media type of the form."""
    if form.media_type == YAML:
        import yaml

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        text: str = yaml.dump(value, Dumper=dumper, sort_keys=True, allow_unicode=True)
        return text.encode()
    indented = orjson.OPT_INDENT_2 if form.pretty else 0
    return orjson.dumps(value, option=indented | orjson.OPT_APPEND_NEWLINE)


def _table(kind: Kind, objects: Sequence[Object], form: Form, include: str) -> Object:
    from wherry.kube.api.tables import table

    if include not in _INCLUDE:
        raise bad_request(
            f'includeObject: Unsupported value: "{include}": '
            'supported values: "Metadata", "None", "Object", ""'
        )
    made: Object = table(kind, objects, include_object=include or "Metadata", now=datetime.now(UTC))
    made["apiVersion"] = f"meta.k8s.io/{form.version}"
    return made


def _empty_table(mark: Stored, form: Form) -> Object:
    """A bookmark among tables: it has a version (and perhaps a note), and nothing to show."""
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{form.version}",
        "metadata": mark.object["metadata"],
        "columnDefinitions": None,
        "rows": [],
    }


def _partial(o: Object, form: Form) -> Object:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{form.version}",
        "metadata": o["metadata"],
    }
