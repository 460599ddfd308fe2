"""What this process has open."""

from __future__ import annotations

import contextlib
import os


def descriptors() -> set[tuple[str, str]]:
    """Each with its number and what it is.

    Compare what is new, not how many there are: the collector of garbage may close at any time what
    an earlier test has left.
    """
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one by which they were listed
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found
