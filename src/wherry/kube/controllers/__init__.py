"""Controllers: each watches what concerns it and moves what is towards what was declared.

One module or folder a controller, all of one shape: a class on ``base.Controller`` that watches,
and pure functions (``plan``, ``reconcile``) that decide. ``CONTROLLERS`` lists them; adding one is
a module and a line. The launcher, and nobody else, calls ``run_controllers``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wherry.kube.client.client import Client
from wherry.kube.client.finishing import FinishingTransport
from wherry.kube.client.informer import SharedInformers
from wherry.kube.client.transport import Transport
from wherry.kube.controllers.account_token import AccountTokenController
from wherry.kube.controllers.autoscaling.controller import HorizontalPodAutoscalerController
from wherry.kube.controllers.base import Context, Controller, Options
from wherry.kube.controllers.bootstrap.cleaner import TokenCleanerController
from wherry.kube.controllers.bootstrap.signer import BootstrapSignerController
from wherry.kube.controllers.certificates.controllers import (
    ApprovingController,
    CleaningController,
    SigningController,
)
from wherry.kube.controllers.cluster_dns import ClusterDNSController
from wherry.kube.controllers.cluster_role_aggregation import ClusterRoleAggregationController
from wherry.kube.controllers.cron_job import CronJobController
from wherry.kube.controllers.daemon_set.controller import DaemonSetController
from wherry.kube.controllers.deployment.controller import DeploymentController
from wherry.kube.controllers.disruption import DisruptionController
from wherry.kube.controllers.endpoints.controllers import (
    EndpointsController,
    EndpointSliceController,
)
from wherry.kube.controllers.endpoints.mirroring import EndpointSliceMirroringController
from wherry.kube.controllers.garbage.controller import GarbageCollector
from wherry.kube.controllers.job.controller import JobController, TTLAfterFinishedController
from wherry.kube.controllers.namespace import NamespaceController
from wherry.kube.controllers.node_ipam import NodeIPAMController
from wherry.kube.controllers.node_lifecycle import NodeLifecycleController
from wherry.kube.controllers.pod_gc import PodGCController
from wherry.kube.controllers.replicas.controller import (
    ReplicaSetController,
    ReplicationControllerController,
)
from wherry.kube.controllers.resource_quota import ResourceQuotaController
from wherry.kube.controllers.root_ca import RootCAController
from wherry.kube.controllers.service_account import ServiceAccountController
from wherry.kube.controllers.service_cidr import ServiceCIDRController
from wherry.kube.controllers.service_load_balancer import ServiceLoadBalancerController
from wherry.kube.controllers.stateful_set.controller import StatefulSetController
from wherry.kube.controllers.storage_protection import (
    ClaimProtectionController,
    VolumeProtectionController,
)
from wherry.kube.controllers.taint_eviction import TaintEvictionController
from wherry.kube.controllers.volumes.binder import VolumeBinderController
from wherry.kube.controllers.volumes.ephemeral import EphemeralVolumeController
from wherry.kube.controllers.volumes.local_path import LocalPathProvisioner

CONTROLLERS: tuple[type[Controller], ...] = (
    # workloads
    DeploymentController,
    ReplicaSetController,
    ReplicationControllerController,
    StatefulSetController,
    DaemonSetController,
    JobController,
    TTLAfterFinishedController,
    CronJobController,
    DisruptionController,
    HorizontalPodAutoscalerController,
    # services
    EndpointsController,
    EndpointSliceController,
    EndpointSliceMirroringController,
    ServiceLoadBalancerController,
    ServiceCIDRController,
    ClusterDNSController,
    # namespaces and what is in each
    NamespaceController,
    ServiceAccountController,
    AccountTokenController,
    RootCAController,
    GarbageCollector,
    ClusterRoleAggregationController,
    ResourceQuotaController,
    # volumes
    VolumeBinderController,
    LocalPathProvisioner,
    EphemeralVolumeController,
    ClaimProtectionController,
    VolumeProtectionController,
    # certificates
    ApprovingController,
    SigningController,
    CleaningController,
    BootstrapSignerController,
    TokenCleanerController,
    # nodes and the pods on them
    NodeIPAMController,
    NodeLifecycleController,
    TaintEvictionController,
    PodGCController,
)


class UnknownController(ValueError):
    """A name in ``Options.enabled`` that no controller has."""


def select(
    enabled: tuple[str, ...], own: tuple[type[Controller], ...] = ()
) -> list[type[Controller]]:
    """The controllers that ``enabled`` names: ``*`` is all of them, ``-name`` all but that one.

    ``own`` are classes of the user's own, known as those of the table are.

    Raises:
        UnknownController: a name is not in the table.
    """
    every = (*CONTROLLERS, *own)
    known = {controller.name for controller in every}
    for name in enabled:
        if name != "*" and name.removeprefix("-") not in known:
            raise UnknownController(
                f'"{name.removeprefix("-")}" is not in the list of known controllers'
            )
    chosen = known if "*" in enabled else set(enabled)
    return [c for c in every if c.name in chosen and f"-{c.name}" not in enabled]


async def run_controllers(
    client: Client,
    options: Options | None = None,
    *,
    identity: Callable[[str], Transport] | None = None,
) -> None:
    """Run the controllers that ``options`` enables until cancelled.

    ``identity`` gives the API as a ServiceAccount of kube-system, so that each controller has
    the rights of its own; without, all act as ``client`` does.

    Raises:
        UnknownController: ``options.enabled`` names one that does not exist.
    """
    options = options or Options()
    chosen = select(options.enabled, options.own)
    shared = SharedInformers(client)
    contexts: dict[str | None, Context] = {}

    def context(controller: type[Controller]) -> Context:
        account = controller.identity() if identity else None
        found = contexts.get(account)
        if found is None:
            inner = identity(account) if identity and account else client.transport
            transport = FinishingTransport(inner)
            found = Context(Client(transport, manager=client.manager), shared, options)
            contexts[account] = found
        return found

    try:
        controllers = [controller(context(controller)) for controller in chosen]
        shared.start()
        async with asyncio.TaskGroup() as group:
            for controller in controllers:
                group.create_task(controller.run(), name=controller.name)
    finally:
        await asyncio.gather(*(each.close() for each in contexts.values()))
        await shared.stop()


__all__ = ["CONTROLLERS", "Controller", "Options", "UnknownController", "run_controllers", "select"]
