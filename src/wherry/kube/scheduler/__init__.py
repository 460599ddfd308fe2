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
) -> None:
    """Give nodes to pods until cancelled.

    Raises:
        ConfigurationError: the configuration names a plugin that does not exist.
    """
    shared = SharedInformers(client)
    try:
        finishing = Client(FinishingTransport(client.transport), manager=client.manager)
        scheduler = Scheduler(finishing, configuration or Configuration(), shared)
        shared.start()
        await scheduler.run()
    finally:
        await shared.stop()


__all__ = ["Configuration", "run_scheduler"]
