"""Sets of completion indexes as text: ``1,3-5,7`` (``status.completedIndexes``)."""

from __future__ import annotations

from collections.abc import Iterable


def parse(text: str, limit: int | None = None) -> set[int]:
    """The indexes that a text names, those below ``limit`` alone where one is given.

    Raises:
        ValueError: the text is no such list.
    """
    result: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        end = int(last or first)
        if limit is not None:
            end = min(end, limit - 1)
        result.update(range(int(first), end + 1))
    return result


def format(indexes: Iterable[int]) -> str:
    """The text for a set of indexes: three and more in a row become a range."""
    parts: list[str] = []
    run: list[int] = []

    def close() -> None:
        if len(run) > 2:
            parts.append(f"{run[0]}-{run[-1]}")
        else:
            parts.extend(map(str, run))
        run.clear()

    for index in sorted(indexes):
        if run and index != run[-1] + 1:
            close()
        run.append(index)
    close()
    return ",".join(parts)
