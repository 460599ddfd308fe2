"""``docker top``: what the host's ps says of a container's processes."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Any

from wherry.engine.errors import BadParameter, EngineError
from wherry.host.process import run

DEFAULT_OPTIONS = "-ef"


def check(options: str) -> list[str]:
    """The options as words.

    Raises:
        BadParameter: they rename the PID column, which is needed, or select other processes' data.
    """
    words = options.split() or [DEFAULT_OPTIONS]
    for word in words:
        if re.search(r"\bpid=", word, re.IGNORECASE) and not re.search(r"\bpid=PID\b", word):
            raise BadParameter(f'specifying "{word}" is not allowed')
    return words


async def list_processes(pids: Collection[int], options: str) -> dict[str, Any]:
    """``Titles`` and ``Processes`` of those of ``pids`` that ps shows.

    Raises:
        EngineError: ps is missing or refuses the options.
    """
    words = check(options)
    # Whole lines, however narrow the terminal that the daemon was started from.
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    try:
        result = await run(["ps", *words], timeout=10, env=environment)
    except FileNotFoundError:
        raise EngineError("ps is not installed on the host (Debian: procps)") from None
    if result.exit_code != 0:
        reason = result.stderr.decode(errors="replace").strip()
        raise EngineError(f"Error running ps: exit status {result.exit_code}: {reason}")
    return parse(result.stdout.decode(errors="replace"), pids)


def parse(text: str, pids: Collection[int]) -> dict[str, Any]:
    """Read the table that ps printed; the last column takes the rest of its line."""
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise EngineError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    rows = (line.split(None, len(titles) - 1) for line in lines[1:])
    return {
        "Titles": titles,
        "Processes": [row for row in rows if len(row) > column and row[column] in wanted],
    }
