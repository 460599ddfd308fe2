"""``wherry node``: container engine, kubelet and service proxy in one process, which keeps another
one for names.

The engine is a daemon of its own right: ``docker`` works as soon as its socket is there, with or
without a control plane.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any

from wherry.engine.cri.service import EngineRuntime
from wherry.engine.cri.types import PodSandboxState
from wherry.engine.engine import CNI_BIN_DIRS, Engine, EngineConfig, purge_all, stop_all
from wherry.host.notify import notify
from wherry.host.tasks import run_until
from wherry.kube.client.client import Client
from wherry.kube.client.https import from_kubeconfig
from wherry.kube.client.informer import SharedInformers
from wherry.kube.client.recorder import EventRecorder
from wherry.kube.dns import keeping
from wherry.kube.dns.following import Follower
from wherry.kube.dns.keeping import Keeper
from wherry.kube.kubelet import config, machine
from wherry.kube.kubelet.kubelet import Kubelet, KubeletConfig
from wherry.kube.kubelet.node_status import addresses, node_object
from wherry.kube.network_policy.enforcer import Enforcer, Running
from wherry.kube.pod_network.router import PodRouter, Setting
from wherry.kube.proxy import config_file as proxy_file
from wherry.kube.proxy.configuration import ProxyConfig, make, teardown, withdraw
from wherry.launcher import credentials, docker_tcp, proxy_mode
from wherry.launcher.daemon import BeginAnew
from wherry.launcher.instance import Instance
from wherry.launcher.pki import API_KUBELET_CLIENT
from wherry.net.nftables.nft import Nftables

log = logging.getLogger(__name__)

SERVER_PATIENCE = 10.0
"""Seconds for which a node waits for another machine's API server before it says that it does; it
waits on all the same."""


async def serve(instance: Instance, stop: asyncio.Event) -> None:
    """Run the node of ``instance`` until ``stop`` is set; containers go on living after it.

    Raises:
        BeginAnew: its certificates were renewed; another process is to go on with them.
    """
    engine = Engine(engine_config(instance))
    await engine.open()
    node_transport = from_kubeconfig(instance.data_dir / "kubelet.conf")
    proxy_transport = from_kubeconfig(instance.data_dir / "proxy.conf")
    try:
        await engine.serve(instance.docker_socket, docker_tcp.address(instance))
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, engine.reload)
        proxy_client = Client(proxy_transport)
        informers = SharedInformers(proxy_client)
        runtime = EngineRuntime(engine)
        kubelet_config = _kubelet_config(instance)
        follower = Follower(
            proxy_client,
            informers,
            domain=instance.cluster_domain,
            node_name=instance.node_name,
            service_addresses=instance.cluster_dns,
            ranges=(*instance.service_ranges, *instance.cluster_ranges),
            resolv_conf=kubelet_config.settings.resolv_conf,
        )
        policies = Enforcer(
            informers,
            Nftables(),
            table=f"{instance.nft_table}-policy",
            node_name=instance.node_name,
            running=lambda: _running(runtime),
            families=tuple(6 if ":" in cidr else 4 for cidr in instance.cluster_ranges),
            name_server=follower.addresses,
        )
        proxy = make(informers, Nftables(), _proxy_config(instance))
        kubelet = Kubelet(
            kubelet_config,
            Client(node_transport),
            runtime,
            on_ready=_tell_ready,
            walls=policies,
            withdrawn=proxy.withdrawn,
            patience=SERVER_PATIENCE if instance.joined else None,
        )
        ending = _at_power_failure(kubelet, stop)
        names = Keeper(follower, instance.run_dir)
        recorder = EventRecorder(proxy_client, "pod-network", instance.node_name)
        router = PodRouter(
            _routing(instance),
            informers,
            Nftables(),
            recorder,
            on_mtu=engine.networks.set_pod_mtu,
            on_near=engine.networks.set_pod_neighbours,
        )
        renewing = [credentials.keep(instance)] if instance.joined else []
        informers.start()
        recorder.start()
        try:
            await run_until(
                stop,
                kubelet.run(),
                proxy.run(),
                names.run(),
                policies.run(),
                router.run(),
                *renewing,
            )
        finally:
            ending.cancel()
            await informers.stop()
            await recorder.stop()
        if not stop.is_set():
            raise BeginAnew("the node's certificates were renewed")
    finally:
        await node_transport.close()
        await proxy_transport.close()
        await engine.close()


def _tell_ready(why_not: str) -> None:
    text = why_not.replace("\n", " ")
    notify(f"STATUS={text}\nREADY=1")


def shutdown_seconds(instance: Instance) -> float:
    """How long pods have where the machine goes down; 0: nothing is done about them."""
    text = instance.kubelet_config
    return sum(group.seconds for group in config.parse(text.encode()).shutdown) if text else 0.0


def _at_power_failure(kubelet: Kubelet, stop: asyncio.Event) -> asyncio.Task[None]:
    """SIGPWR says that the machine goes down: pods end as ``shutdownGracePeriod`` says, then we."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGPWR, told.set)

    async def end() -> None:
        await told.wait()
        await kubelet.shut_down()
        stop.set()

    return asyncio.create_task(end(), name="shutdown")


async def _running(runtime: EngineRuntime) -> list[Running]:
    """The pods that the runtime has."""
    return [
        Running(found.metadata.namespace, found.metadata.name, found.metadata.uid, tuple(found.ips))
        for found in await runtime.list_pod_sandboxes()
        if found.state is PodSandboxState.READY and found.ips
    ]


async def clear(instance: Instance, *, grace: float, purge: bool) -> None:
    """With no daemon running: stop what they left running, ``grace`` seconds before SIGKILL, and
    lead nobody there any more.

    With ``purge``, also take away every mount, link, route, rule and cgroup of the instance.
    """
    config = engine_config(instance)
    await stop_all(config, grace)
    await keeping.stop(instance.run_dir)
    if not purge:
        await withdraw(Nftables(), _proxy_config(instance))
    else:
        await teardown(Nftables(), _proxy_config(instance))
        await Enforcer.teardown(Nftables(), table=f"{instance.nft_table}-policy")
        # Volumes are mounts, some with a user's own files behind them: unmounted before deleted.
        await asyncio.to_thread(
            Kubelet.teardown, _kubelet_root(instance), instance.pod_logs, instance.container_logs
        )
        await PodRouter.teardown(_routing(instance), Nftables())
        await purge_all(config)


def _routing(instance: Instance) -> Setting:
    return Setting(
        node_name=instance.node_name,
        # Tunnels go by IPv4, if there is any.
        node_ip=min(instance.node_ips, key=lambda address: ":" in address),
        pod_range=instance.cluster_range,
        device=f"{instance.bridge}v",
        table=f"{instance.nft_table}-pods",
        mode=instance.pod_network,
    )


def engine_config(instance: Instance) -> EngineConfig:
    """What the engine of ``instance`` is made from."""
    return EngineConfig(
        data_dir=instance.data_dir / "engine",
        owned_root=instance.data_dir,
        run_dir=instance.run_dir,
        name=instance.node_name,
        bridge=instance.bridge,
        subnet=instance.bridge_range,
        pod_bridge=instance.pod_bridge,
        pod_cidrs=instance.cluster_ranges,
        cgroup_root=instance.cgroup_root,
        nft_table=instance.nft_table,
        daemon_file=instance.data_dir / "daemon.json",
        cni_conf_dir=Path(instance.cni_conf_dir) if instance.cni_conf_dir else None,
        cni_bin_dirs=tuple(map(Path, instance.cni_bin_dir.split(":")))
        if instance.cni_bin_dir
        else CNI_BIN_DIRS,
    )


def registration(instance: Instance) -> dict[str, Any]:
    """The Node of ``instance`` before its kubelet has said how it is."""
    root = _kubelet_root(instance)
    root.mkdir(parents=True, exist_ok=True, mode=0o750)
    told = _kubelet_config(instance)
    return {
        **node_object(told, machine.read_machine(root)),
        "status": {"addresses": addresses(told)},
    }


def _kubelet_root(instance: Instance) -> Path:
    return instance.data_dir / "kubelet"


def _proxy_config(instance: Instance) -> ProxyConfig:
    told = proxy_file.parse(instance.proxy_config)
    return ProxyConfig(
        node_name=instance.node_name,
        node_ips=instance.node_ips,
        pods=instance.cluster_ranges,
        services=instance.service_ranges,
        table=f"{instance.nft_table}-proxy",
        bridge=instance.pod_bridge,
        chains=instance.iptables_chains,
        mode=proxy_mode.of(instance),
        healthz=told.healthz or ("0.0.0.0", instance.proxy_health_port),
        metrics=told.metrics or ("127.0.0.1", instance.proxy_metrics_port),
        further_ranges=instance.data_dir / "further-service-ranges",
        tcp_be_liberal=told.tcp_be_liberal,
    )


def _kubelet_config(instance: Instance) -> KubeletConfig:
    pki = instance.pki
    joined = credentials.server_file(instance) if instance.joined else None
    text = instance.kubelet_config
    told = config.parse(text.encode()) if text else config.DEFAULTS
    return KubeletConfig(
        node_name=instance.node_name,
        node_ip=instance.node_ip,
        second_ip=instance.second_ip,
        root_dir=_kubelet_root(instance),
        pod_logs=instance.pod_logs,
        container_logs=instance.container_logs,
        port=instance.kubelet_port,
        tls_cert=joined or pki / "kubelet.crt",
        tls_key=joined or pki / "kubelet.key",
        client_ca=pki / "ca.crt",
        allowed_client=API_KUBELET_CLIENT,
        cluster_dns=told.cluster_dns or instance.cluster_dns[:1],
        cluster_domain=told.cluster_domain or instance.cluster_domain,
        settings=told,
        first_user=instance.first_user,
        static_pods=Path(told.static_pod_path or instance.data_dir / "manifests"),
    )
