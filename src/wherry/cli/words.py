"""What the command says where it cannot do what it was told."""

from __future__ import annotations

import sys


def fail(message: str) -> int:
    """Say what went wrong, for a person; the exit code to end with."""
    print(f"wherry: {message}", file=sys.stderr)
    return 1
