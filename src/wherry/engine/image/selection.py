"""Which images ``docker images`` and ``docker image prune`` mean. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from wherry.engine.container.units import moment
from wherry.engine.errors import BadParameter
from wherry.engine.filters import Filters
from wherry.engine.image.image import Image
from wherry.engine.image.reference import Reference, parse

LIST_KEYS = frozenset(("dangling", "label", "before", "since", "reference", "until"))
PRUNE_KEYS = frozenset(("dangling", "label", "label!", "until"))


@dataclass(frozen=True, slots=True)
class Chosen:
    """An image that passed the filters, with those of its names that did."""

    image: Image
    tags: Sequence[str]
    digests: Sequence[str]


def listed(
    images: Sequence[Image],
    filters: Filters,
    *,
    all_: bool,
    now: int,
    resolve: Callable[[str], Image],
    has_children: Callable[[str], bool],
) -> list[Chosen]:
    """What ``docker images`` shows, newest first.

    ``now`` is nanoseconds since the epoch; images without a name that others were made from are
    intermediate steps of builds, shown with ``all_`` only.

    Raises:
        BadParameter: a filter has no such key or value.
        NotFound: ``before`` or ``since`` names no image.
    """
    filters.check(LIST_KEYS)
    dangling = filters.flag("dangling") if "dangling" in filters else None
    earlier = [resolve(name).created for name in filters.get("before")]
    earlier += [moment(text, now) for text in filters.get("until")]
    later = [resolve(name).created for name in filters.get("since")]
    chosen: list[Chosen] = []
    for image in images:
        if dangling and has_children(image.id):
            continue
        created = image.created
        if any(limit is not None and (created is None or created >= limit) for limit in earlier):
            continue
        if any(limit is not None and (created is None or created <= limit) for limit in later):
            continue
        if not filters.labels(image.labels):
            continue
        tags, digests = list(image.repo_tags), list(image.repo_digests)
        if "reference" in filters:
            patterns = filters.get("reference")
            tags = [tag for tag in tags if _matches(tag, patterns)]
            digests = [digest for digest in digests if _matches(digest, patterns)]
        if not tags and not digests:
            if not all_ and has_children(image.id):
                continue
            if dangling is False or "reference" in filters:
                continue
        elif dangling and tags:
            continue
        chosen.append(Chosen(image, tags, digests))
    chosen.sort(key=lambda one: one.image.created or 0, reverse=True)
    return chosen


def prunable(
    images: Sequence[Image], filters: Filters, *, now: int, has_children: Callable[[str], bool]
) -> Iterator[Image]:
    """What ``docker image prune`` would remove, were no container using it.

    Raises:
        BadParameter: a filter has no such key or value.
    """
    filters.check(PRUNE_KEYS)
    dangling_only = filters.flag("dangling", default=True)
    if len(filters.get("until")) > 1:
        raise BadParameter("more than one until filter specified")
    until = [moment(text, now) for text in filters.get("until")]
    for image in images:
        if has_children(image.id) and (
            dangling_only or not (image.repo_tags or image.repo_digests)
        ):
            continue
        if any((image.created or 0) > limit for limit in until):
            continue
        if not filters.labels(image.labels) or not filters.not_labels(image.labels):
            continue
        if dangling_only and image.repo_tags:
            continue
        yield image


def _matches(familiar: str, patterns: Sequence[str]) -> bool:
    """Whether a name, whole or without tag and digest, matches one of the shell patterns."""
    reference = parse(familiar)
    names = (familiar, _name(reference))
    return any(_pattern(pattern).fullmatch(name) for pattern in patterns for name in names)


def _name(reference: Reference) -> str:
    return reference.familiar_name


def _pattern(pattern: str) -> re.Pattern[str]:
    """Go's path.Match: ``*`` and ``?`` do not cross a slash."""
    expression = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            expression += "[^/]*"
        elif character == "?":
            expression += "[^/]"
        elif character == "[":
            end = pattern.find("]", position + 1)
            if end < 0:
                raise BadParameter("syntax error in pattern")
            inner = pattern[position:end].replace("\\", "\\\\").replace("[", "\\[")
            expression += f"[{inner}]"
            position = end + 1
        elif character == "\\":
            if position == len(pattern):
                raise BadParameter("syntax error in pattern")
            expression += re.escape(pattern[position])
            position += 1
        else:
            expression += re.escape(character)
    try:
        return re.compile(expression)
    except re.error:
        raise BadParameter("syntax error in pattern") from None
