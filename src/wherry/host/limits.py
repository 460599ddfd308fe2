"""Limits of this process."""

from __future__ import annotations

import resource


def raise_open_files() -> None:
    """Allow this process as many open files as it may have, getrlimit(2).

    A container takes some, and a daemon that is started by a service manager or a shell begins
    with 1024.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
