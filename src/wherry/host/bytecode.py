"""Where the bytecode of modules is kept.

To compile our sources takes as long as all else that a daemon does until it is ready. Where the
environment wants no bytecode beside them (PYTHONDONTWRITEBYTECODE, as images of containers often
have it), and none was put there when they were installed, each start would pay for that again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PLACE = Path("/var/cache/wherry/bytecode")


def keep(place: Path = PLACE) -> None:
    """Keep the bytecode of what is imported from now on in ``place``, if it would not be kept
    otherwise. Only a place of our own will do: what lies there is run."""
    if not sys.dont_write_bytecode or sys.pycache_prefix is not None or sys.flags.isolated:
        return
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = place.stat()
    except OSError:  # nor can it be: then each start compiles
        return
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        return
    sys.pycache_prefix = str(place)
    sys.dont_write_bytecode = False
