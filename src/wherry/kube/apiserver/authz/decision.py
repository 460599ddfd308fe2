"""What an authorizer says of a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed; or denied, whatever others would say; or (neither) no opinion.

    ``reason`` is shown to who is refused, and in reviews; ``error`` says what kept the authorizer
    from knowing better, in reviews alone.
    """

    allowed: bool = False
    denied: bool = False
    reason: str = ""
    error: str = ""


ALLOWED = Decision(allowed=True)
NO_OPINION = Decision()
