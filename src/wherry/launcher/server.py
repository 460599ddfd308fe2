"""``wherry server``: store, API server, controllers and scheduler in one process.

The components reach the API server by its in-memory transport, each as the user it is upstream.
"""

from __future__ import annotations

import asyncio
import logging

from wherry.host.notify import notify
from wherry.host.tasks import run_until
from wherry.kube.apiserver.server import APIServer, APIServerConfig
from wherry.kube.client.client import Client
from wherry.kube.controllers import Options, run_controllers
from wherry.kube.scheduler import run_scheduler
from wherry.kube.store.opening import open_store
from wherry.launcher.instance import Instance

log = logging.getLogger(__name__)


async def serve(instance: Instance, stop: asyncio.Event) -> None:
    """Run the control plane of ``instance`` until ``stop`` is set."""
    store = await open_store(instance.store, instance.data_dir)
    server = APIServer(_config(instance), store)
    await server.open()
    try:
        await server.serve()
        notify("READY=1")
        log.info("API server listens on %s", instance.api_url)
        controllers = Client(
            server.transport("system:kube-controller-manager"), manager="kube-controller-manager"
        )
        scheduler = Client(server.transport("system:kube-scheduler"), manager="kube-scheduler")
        options = Options(
            cluster_cidr=instance.cluster_range,
            root_ca=(instance.pki / "ca.crt").read_text(),
        )
        await run_until(stop, run_controllers(controllers, options), run_scheduler(scheduler))
    finally:
        await server.close()
        await store.close()


def _config(instance: Instance) -> APIServerConfig:
    pki = instance.pki
    return APIServerConfig(
        advertise_address=instance.node_ip,
        port=instance.api_port,
        service_cidr=instance.service_range,
        tls_cert=pki / "apiserver.crt",
        tls_key=pki / "apiserver.key",
        client_ca=pki / "ca.crt",
        kubelet_client_cert=pki / "apiserver-kubelet-client.crt",
        kubelet_client_key=pki / "apiserver-kubelet-client.key",
        kubelet_ca=pki / "ca.crt",
    )
