"""``wherry down``: stop daemons and containers; with purge, leave nothing behind."""

from __future__ import annotations

from collections.abc import Sequence

from wherry.launcher import ingress, node, supervise
from wherry.launcher import instance as instances
from wherry.launcher.instance import Instance, InstanceError
from wherry.runtime.rootfs import mounts_below


async def down(instance: Instance, *, grace: float, purge: bool) -> Sequence[str]:
    """Stop the instance; returns what ran. ``grace`` is in seconds, before SIGKILL.

    It is the end of the machine as far as pods can tell: where the kubelet's configuration has a
    ``shutdownGracePeriod…``, pods end by it first, as they do before a machine goes down, while
    the API server is still there to be told.

    Raises:
        InstanceError: something is still mounted below the data directory, so it was not deleted.
    """
    ran = [state.name for state in supervise.states(instance) if state.pid is not None]
    seconds = node.shutdown_seconds(instance)
    if seconds and not purge and ("server" in ran or instance.joined):
        await supervise.power_off(instance, seconds)
    await supervise.stop(instance)
    await ingress.clear(instance)
    if instances.successor(instance) is None:
        await node.clear(instance, grace=grace, purge=purge)
    # Else what carries the slot's names in the kernel is the other's.
    if purge:
        still = mounts_below(instance.data_dir)
        if still:  # deleting would go through to what lies behind the mount
            raise InstanceError(f"{still[0]} is still mounted; nothing was deleted")
        instances.forget(instance)
    return ran
