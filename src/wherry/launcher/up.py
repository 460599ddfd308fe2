"""``wherry up``: from whatever is there to a node that is Ready."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wherry.host.pidfile import AlreadyRunning, PidFile
from wherry.kube.ingress import nginx
from wherry.kube.store.address import SQLITE, canonical
from wherry.launcher import docker_tcp as addresses
from wherry.launcher import ingress as ingresses
from wherry.launcher import instance as instances
from wherry.launcher import pki, ranges, supervise
from wherry.launcher import proxy_mode as proxy_modes
from wherry.launcher.instance import Instance


class UpFailed(Exception):
    """Nothing was started; the text says why."""


_DEFAULTS = {
    "docker_tcp": "no address",
    "store": SQLITE,
    "ingress": "no ports",
    "proxy_mode": "the mode of its configuration",
    "cni_conf_dir": "no directory",
    "cni_bin_dir": "the usual places",
}
"""What an instance has that says nothing of it, for messages."""


@dataclass(frozen=True, slots=True)
class Started:
    """The instance, and how it started (None: it ran already)."""

    instance: Instance
    begun: supervise.Begun | None


def up(
    data_dir: Path,
    *,
    api_port: int | None = None,
    node_name: str | None = None,
    docker_tcp: str | None = None,
    store: str | None = None,
    apiserver_args: Sequence[str] | None = None,
    controller_args: Sequence[str] | None = None,
    ingress: str | None = None,
    ingress_args: Sequence[str] | None = None,
    kubelet_config: str | None = None,
    scheduler_config: str | None = None,
    advertise_address: str | None = None,
    api_names: Sequence[str] | None = None,
    pod_network: str | None = None,
    proxy_mode: str | None = None,
    proxy_config: str | None = None,
    ip_families: str | None = None,
    pod_cidr: str | None = None,
    service_cidr: str | None = None,
    cni_conf_dir: str | None = None,
    cni_bin_dir: str | None = None,
) -> Started:
    """Start what does not run of the instance in ``data_dir`` and wait until its node is Ready.

    ``docker_tcp`` is where to serve the Docker API with TLS, or ``off``; None leaves it as it is.
    ``store`` is where the cluster's state is to lie (`wherry.kube.store.address`); likewise.
    ``apiserver_args`` are kube-apiserver's options for the server, NAME=VALUE; none but empty ones
    forgets those that were kept; ``controller_args`` are likewise the controllers'. ``ingress`` is
    where Ingresses are served: two ports, or ``off``; ``ingress_args`` are options of what serves
    them. ``kubelet_config`` is a file with a
    KubeletConfiguration, whose text is kept; '' forgets it. ``scheduler_config`` is one with a
    KubeSchedulerConfiguration; its place is kept, as it may name files beside it.
    ``advertise_address`` is the address of this machine by which others reach it; ``api_names`` are
    further names and addresses under which they know its API server; '' forgets them.
    ``proxy_mode`` is how Services are served, '' for what ``proxy_config`` says: a file with a
    KubeProxyConfiguration, whose text is kept.
    ``ip_families`` are those of the cluster, ``pod_cidr`` and ``service_cidr`` its ranges, with
    commas in between (`ranges.wanted`): for ever.
    ``pod_network`` is how pods of other nodes are reached: ``auto``, ``host-gw``, ``vxlan`` or
    ``none``. ``cni_conf_dir`` has the configuration of the plugins that connect pods,
    ``cni_bin_dir`` (DIR:DIR) the plugins; '' forgets them.

    Raises:
        InstanceError, UpFailed: nothing was changed.
        StartFailed: a daemon did not start; what this call started is stopped again.
    """
    tcp = None if docker_tcp is None else addresses.normalise(docker_tcp)
    try:
        word = None if store is None else canonical(store)
        told = None if apiserver_args is None else _checked(apiserver_args)
        bidden = None if controller_args is None else _checked_for_controllers(controller_args)
        served = None if ingress is None else ingresses.normalise(ingress)
        serving = None if ingress_args is None else ingresses.canonical(ingress_args)
        text = None if kubelet_config is None else kubelet_configuration(kubelet_config)
        services = None if proxy_config is None else _proxy_configuration(proxy_config)
        if proxy_mode:
            proxy_modes.check(proxy_mode)
        profiles = None if scheduler_config is None else _profiles(scheduler_config)
        address = None if advertise_address is None else node_address(advertise_address)
        plugins = None if cni_conf_dir is None else directories(cni_conf_dir)
        programs = None if cni_bin_dir is None else directories(cni_bin_dir)
        names = None if api_names is None else tuple(name for name in api_names if name)
        families = ranges.wanted(ip_families, pod_cidr, service_cidr)
    except (ValueError, OSError) as error:
        raise UpFailed(str(error)) from error
    instance = instances.open_or_create(
        data_dir, api_port=api_port, node_name=node_name, node_ip=address, wanted=families
    )
    if instance.joined and any(
        word is not None
        for word in (told, bidden, served, serving, profiles, names, store, pod_network)
    ):
        raise UpFailed(
            f"{data_dir} is a node of the cluster at {instance.joined}: options of its server are "
            "given there"
        )
    if instance.joined and address is not None:
        raise UpFailed(
            f"{data_dir} is a node of the cluster at {instance.joined}, which has signed its "
            "address: `wherry join --node-ip` changes it"
        )
    place = "node_ip" if address is None else instances.address_field(instance, address)
    try:
        lock = PidFile(instance.run_dir / "up.pid")
    except AlreadyRunning as error:
        raise UpFailed(
            f"another `wherry up` is under way on {data_dir} (pid {error.pid})"
        ) from None
    try:
        running = {state.name for state in supervise.states(instance) if state.pid is not None}
        for daemon, field, wanted, meaning in (
            ("node", "docker_tcp", tcp, "the engine runs already, with {} for TCP"),
            ("server", "store", word, "the server runs already, on the store {}"),
            ("server", "apiserver_args", told, "the server runs already, with other options"),
            ("server", "controller_args", bidden, "the server runs already, with other options"),
            ("server", "scheduler_config", profiles, "the server runs already, with other options"),
            ("server", "ingress", served, "the server runs already, with {} for Ingresses"),
            ("server", "ingress_args", serving, "the server runs already, with other options"),
            ("node", "kubelet_config", text, "the node runs already, with another configuration"),
            ("node", place, address, "the node runs already, at the address {}"),
            ("node", "pod_network", pod_network, "the node runs already, with the pod network {}"),
            ("node", "cni_conf_dir", plugins, "the node runs already, with {} for its plugins"),
            ("node", "cni_bin_dir", programs, "the node runs already, with plugins in {}"),
            ("server", "api_names", names, "the server runs already, with other names"),
            ("node", "proxy_config", services, "the node runs already, with another configuration"),
            ("node", "proxy_mode", proxy_mode, "the node runs already, with the proxy in {}"),
        ):
            present = getattr(instance, field)
            if wanted is None or wanted == present:
                continue
            if daemon in running:
                raise UpFailed(
                    f"{meaning.format(present or _DEFAULTS.get(field))}; "
                    "`wherry down` stops it for the change"
                )
            if field in ("node_ip", "second_ip", "api_names"):
                pki.forget_servers(instance)
            changed: dict[str, Any] = {field: wanted}
            instance = replace(instance, **changed)
            instances.save(instance)
        if running == set(instance.daemons):
            return Started(instance, None)
        if instance.joined:
            _check_credentials(instance)
        try:
            if "server" in instance.daemons and "server" not in running:
                _check_port(instance.api_port, "API server")
                _check_ingress(instance)
            if "node" not in running:
                _check_port(instance.kubelet_port, "kubelet")
                if instance.docker_tcp:
                    host, port = addresses.split(instance.docker_tcp)
                    _check_port(port, "Docker API", host)
        except UpFailed:
            if not instance.kubeconfig.exists():  # never started: forget the choice of ports too
                instances.forget(instance)
            raise
        if not instance.joined:
            pki.ensure(instance)
        addresses.ensure(instance)
        return Started(instance, asyncio.run(supervise.start(instance)))
    finally:
        lock.release()


def _check_credentials(instance: Instance) -> None:
    """That a node of another's cluster has what it needs to be one."""
    from wherry.launcher import credentials  # a client of the API, which others need not

    if fault := credentials.fault(instance):
        raise UpFailed(fault)


def _checked(arguments: Sequence[str]) -> tuple[str, ...]:
    """The options as they are kept. Raises ValueError where one is none of the server's."""
    given = [argument for argument in arguments if argument]
    if not given:
        return ()
    from wherry.kube.apiserver import flags

    return flags.canonical(given)


def node_address(text: str) -> str:
    """An address of this machine that others reach. Raises ValueError."""
    address = ipaddress.ip_address(text)
    if address.is_unspecified or address.is_loopback or address.is_link_local:
        raise ValueError(f"{text} is no address by which other machines reach this one")
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((text, 0))
        except OSError as error:
            raise ValueError(f"{text} is no address of this machine") from error
    return str(address)


def directories(text: str) -> str:
    """DIR[:DIR], each as a whole path. ValueError: one of them is none."""
    found = [Path(part).absolute() for part in text.split(":") if part]
    for path in found:
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is no directory")
    return ":".join(map(str, found))


def kubelet_configuration(file: str) -> str:
    """The text of a kubelet's configuration file, empty for none. ValueError: it is none."""
    if not file:
        return ""
    from wherry.kube.kubelet import config

    config.load(Path(file))
    return Path(file).read_text()


def _proxy_configuration(file: str) -> str:
    """The text of a proxy's configuration file, empty for none. ValueError: it is none."""
    if not file:
        return ""
    from wherry.kube.proxy import config_file

    text = Path(file).read_text()
    proxy_modes.check(config_file.parse(text).mode)
    return text


def _profiles(file: str) -> str:
    """Where a scheduler's configuration lies, empty for none. ValueError: it is none."""
    if not file:
        return ""
    from wherry.kube.scheduler import config_file

    path = Path(file).absolute()
    config_file.load(path)
    return str(path)


def _checked_for_controllers(arguments: Sequence[str]) -> tuple[str, ...]:
    """The same for the controllers' options."""
    given = [argument for argument in arguments if argument]
    if not given:
        return ()
    from wherry.kube.controllers import flags

    return flags.canonical(given)


def _check_ingress(instance: Instance) -> None:
    """That nginx is here and has its ports, unless it was left running."""
    if not instance.ingress or ingresses.is_running(instance):
        return
    try:
        nginx.find()
    except nginx.NginxError as error:
        raise UpFailed(str(error)) from error
    for port in ingresses.ports(instance):
        _check_port(port, "Ingress")


def _check_port(port: int, who: str, host: str = "0.0.0.0") -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UpFailed(f"{who}: listen tcp {host}:{port}: {error.strerror or error}") from error
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UpFailed(f"{who}: listen tcp {host}:{port}: {error.strerror}") from error
            raise UpFailed(
                f"{who}: listen tcp {host}:{port}: bind: address already in use"
            ) from error
