"""The scheduler: gives each pod a node.

Read ``framework`` first: the points at which plugins have a say. ``plugins`` holds them, ``config``
says which are used. ``snapshot`` is the cluster as it is known, ``queue`` the pods that wait,
``algorithm`` decides for one pod, ``scheduler`` is the loop around it. The launcher calls
``run_scheduler``.
"""

from __future__ import annotations

from wherry.kube.client.client import Client
from wherry.kube.client.finishing import FinishingTransport
from wherry.kube.client.informer import SharedInformers
from wherry.kube.scheduler.config import Configuration
from wherry.kube.scheduler.scheduler import Scheduler


async def run_scheduler(
    client: Client,
    configuration: Configuration | None = None,
    *,
    informers: SharedInformers | None = None,
) -> None:
    """Give nodes to pods until cancelled.

    ``informers`` may be shared with other components of the process; whoever gives them stops
    them.

    Raises:
        ConfigurationError: the configuration names a plugin that does not exist.
    """
    shared = informers or SharedInformers(client)
    try:
        finishing = Client(FinishingTransport(client.transport), manager=client.manager)
        scheduler = Scheduler(finishing, configuration or Configuration(), shared)
        shared.start()
        await scheduler.run()
    finally:
        if informers is None:
            await shared.stop()


__all__ = ["Configuration", "run_scheduler"]
