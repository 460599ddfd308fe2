"""``wherry server``: store, API server, controllers, scheduler and metrics server in one
process.

The components reach the API server by its in-memory transport, each as the user it is upstream.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from wherry.host.notify import notify
from wherry.host.tasks import run_until
from wherry.kube.api import jose
from wherry.kube.apiserver import flags
from wherry.kube.apiserver.authn.keys import Keys
from wherry.kube.apiserver.server import SELF, APIServer, APIServerConfig
from wherry.kube.client.client import Client
from wherry.kube.client.election import LeaderElector, LeadershipLost
from wherry.kube.client.transport import Transport
from wherry.kube.controllers import Options, run_controllers
from wherry.kube.controllers import flags as controller_flags
from wherry.kube.controllers.certificates.signing import Authority
from wherry.kube.scheduler import Configuration, run_scheduler
from wherry.kube.store.opening import open_store
from wherry.launcher import ingress, metrics, role
from wherry.launcher.instance import Instance
from wherry.launcher.pki import FRONT_PROXY_CLIENT, front_proxy

log = logging.getLogger(__name__)


async def serve(instance: Instance, stop: asyncio.Event) -> None:
    """Run the control plane of ``instance`` until ``stop`` is set."""
    config = _config(instance)
    store = await open_store(instance.store, instance.data_dir)
    server = APIServer(config, store)
    opened = AsyncExitStack()
    try:
        measuring = await opened.enter_async_context(metrics.mounted(instance, server))
        await server.open()
        await server.serve()
        notify("READY=1")
        log.info("API server listens on %s", instance.api_url)
        controllers = Client(
            server.transport("system:kube-controller-manager"), manager="kube-controller-manager"
        )
        scheduler = Client(server.transport("system:kube-scheduler"), manager="kube-scheduler")
        keys = Keys(config.authentication.signing_key)

        def identity(account: str) -> Transport:
            return server.transport(f"system:serviceaccount:kube-system:{account}")

        own = Options(
            cluster_cidr=instance.cluster_range,
            cluster_dns=",".join(instance.cluster_dns),
            volumes=str(instance.data_dir / "volumes"),
            root_ca=(instance.pki / "ca.crt").read_text(),
            sign_token=lambda claims: jose.sign(keys.signer, claims),
            authority=Authority(instance.pki / "ca.crt", instance.pki / "ca.key"),
        )
        options = controller_flags.read(instance.controller_args, own)
        profiles = _profiles(instance)
        work: list[tuple[Client, str, Callable[[], Coroutine[Any, Any, None]]]] = [
            (
                controllers,
                "kube-controller-manager",
                lambda: run_controllers(controllers, options, identity=identity),
            ),
            (scheduler, "kube-scheduler", lambda: run_scheduler(scheduler, profiles)),
        ]
        serving = (
            [ingress.run(instance, identity(ingress.ACCOUNT), shared=store.shared)]
            if ingress.concerns(instance)
            else []
        )
        # Alone on its store a server need not ask whether it leads.
        await run_until(
            stop,
            *(
                _lead(server, client, name, run) if store.shared else _run(server, name, run)
                for client, name, run in work
            ),
            *serving,
            metrics.run(instance, server, measuring),
            role.label(Client(server.transport(SELF), manager="wherry"), instance.node_name),
        )
    finally:
        await server.close()
        await opened.aclose()
        await store.close()


def _profiles(instance: Instance) -> Configuration | None:
    """Raises ValueError, OSError where the scheduler's configuration is wrong by now."""
    if not instance.scheduler_config:
        return None
    from wherry.kube.scheduler import config_file

    return config_file.load(Path(instance.scheduler_config))


async def _run(server: APIServer, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run, and have the server know of it."""
    with server.components.running(name.removeprefix("kube-")):
        await run()


async def _lead(
    server: APIServer, client: Client, name: str, run: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Run while we hold the lease ``name``, one server of those that share the store at a time."""
    identity = f"{socket.gethostname()}_{uuid.uuid4()}"
    while True:
        try:
            return await LeaderElector(client, name, identity).run(lambda: _run(server, name, run))
        except LeadershipLost as error:
            log.warning("%s: another server may lead now: %s", name, error)


def _config(instance: Instance) -> APIServerConfig:
    """Raises ValueError, OSError where an option of the user's is wrong."""
    pki = instance.pki
    proxy = front_proxy(instance)
    given = flags.read(
        (
            f"service-account-signing-key-file={pki / 'sa.key'}",
            f"requestheader-client-ca-file={proxy / 'ca.crt'}",
            f"requestheader-allowed-names={FRONT_PROXY_CLIENT}",
            *instance.apiserver_args,
        )
    )
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
        proxy_client_cert=proxy / "client.crt",
        proxy_client_key=proxy / "client.key",
        **flags.settings(given),
    )
