"""``wherry down``: stop daemons and containers; with purge, leave nothing behind."""

from __future__ import annotations

from collections.abc import Sequence

from wherry.launcher import instance as instances
from wherry.launcher import node, supervise
from wherry.launcher.instance import Instance


async def down(instance: Instance, *, grace: float, purge: bool) -> Sequence[str]:
    """Stop the instance; returns what ran. ``grace`` is in seconds, before SIGKILL."""
    stopped = await supervise.stop(instance)
    await node.clear(instance, grace=grace, purge=purge)
    if purge:
        instances.forget(instance)
    return stopped
