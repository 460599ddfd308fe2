"""The metrics server of an instance: in the API server's process, behind TLS on loopback.

To clients it is an aggregated API server like any other, behind the Service
``kube-system/metrics-server``; who makes a Service of that name takes its place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from wherry.kube.apiserver.server import SELF, APIServer
from wherry.kube.client.client import Client
from wherry.kube.metrics import manifest
from wherry.kube.metrics.scraper import Kubelets
from wherry.kube.metrics.server import MetricsConfig, MetricsServer
from wherry.launcher.instance import Instance
from wherry.launcher.pki import FRONT_PROXY_CLIENT, front_proxy

_USER = f"system:serviceaccount:{manifest.NAMESPACE}:{manifest.NAME}"
_LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def mounted(instance: Instance, server: APIServer) -> AsyncIterator[MetricsServer]:
    """The metrics server, to be found by ``server``, which is not yet open.

    Raises:
        OSError: it cannot listen.
    """
    pki = instance.pki
    metrics = MetricsServer(
        Client(server.transport(_USER), manager=manifest.NAME),
        MetricsConfig(
            pki / "metrics-server.crt",
            pki / "metrics-server.key",
            front_proxy(instance) / "ca.crt",
            (FRONT_PROXY_CLIENT,),
            Kubelets(
                pki / "apiserver-kubelet-client.crt",
                pki / "apiserver-kubelet-client.key",
                pki / "ca.crt",
            ),
        ),
    )
    port = await metrics.listen(_LOOPBACK, 0)
    try:
        server.mount(manifest.NAMESPACE, manifest.NAME, (_LOOPBACK, port))
        yield metrics
    finally:
        await metrics.close()


async def run(instance: Instance, server: APIServer, metrics: MetricsServer) -> None:
    """Make what the cluster must hold, then keep the figures until cancelled."""
    authority = (instance.pki / "ca.crt").read_bytes()
    maker = Client(server.transport(SELF), manager=manifest.NAME)
    await manifest.install(maker, manifest.objects(authority))
    await metrics.run()
