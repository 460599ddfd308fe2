"""Where a path leads once its symbolic links are followed, in trees that are no file system.

For archives and for layers that are about to be; of mounted trees the kernel tells (``beneath``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

# Linux gives up after 40 (path_resolution(7)); images were seen with more.
LIMIT = 255


class TooManyLinks(Exception):
    """More than ``LIMIT``: in all likelihood they go round in circles."""


def resolve(path: str, target_of: Callable[[Sequence[str]], str | None]) -> str:
    """``path`` without links, ``.`` and ``..``, relative to the top, which nothing leads out of.

    ``target_of`` is given a resolved path by its parts and returns where the link there leads, None
    where there is no link.

    Raises:
        TooManyLinks: there is no end to it.
    """
    waiting = [part for part in path.split("/") if part][::-1]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == ".":
            continue
        if part == "..":
            del done[-1:]
            continue
        target = target_of([*done, part])
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > LIMIT:
            raise TooManyLinks(path)
        if target.startswith("/"):
            done.clear()
        waiting += [one for one in target.split("/") if one][::-1]
    return "/".join(done)
