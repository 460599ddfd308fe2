"""Whether and when a container that ended is started again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
# A container that ran this long is taken to be healthy: the back-off starts over.
HEALTHY_AFTER = 10.0


def wanted(
    policy: Mapping[str, Any],
    *,
    exit_code: int,
    stopped_by_user: bool,
    restarts: int,
    may_go_on: bool = True,
) -> bool:
    """What the policy says about a container that has ended.

    ``may_go_on`` is False where its end was asked for. A user who sent it some other signal has
    stopped it as well, but "always" means it: so it does when a daemon finds it ended.
    """
    if not may_go_on:
        return False
    match policy.get("Name"):
        case "always":
            return True
        case "unless-stopped":
            return not stopped_by_user
        case "on-failure":
            most = policy.get("MaximumRetryCount") or 0
            return exit_code != 0 and (most == 0 or restarts < most)
        case _:
            return False


def wanted_at_boot(
    policy: Mapping[str, Any], *, exit_code: int, stopped_by_user: bool, restarts: int
) -> bool:
    """What it says when the daemon starts and finds the container ended."""
    if policy.get("Name") == "on-failure" and stopped_by_user:
        return False
    return wanted(policy, exit_code=exit_code, stopped_by_user=stopped_by_user, restarts=restarts)


def next_delay(previous: float, ran_for: float) -> float:
    """Seconds until the next start: doubling from 0.1 to a minute."""
    if previous == 0 or ran_for >= HEALTHY_AFTER:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)
