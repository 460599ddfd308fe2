"""What one data directory stands for: its names, ranges, ports and places.

Several instances live side by side on one machine. Each takes a slot, a small number from which
all that must be unique in the kernel follows: bridges, ranges, tables, cgroups, ports. The slot
is chosen once, at the first start, among those nobody holds, and written to ``instance.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wherry.engine.network import pools
from wherry.host.files import make_private, write_atomic
from wherry.kube.api.families import IPV4, IPV6, families_of, family_of
from wherry.launcher import ranges, slots, surroundings
from wherry.launcher.ranges import Wanted

_LOOPBACK = {IPV4: "127.0.0.1", IPV6: "::1"}
DEFAULT_DATA_DIR = Path("/var/lib/wherry")
SYSTEM_LOGS = Path("/var/log")
RUN_ROOT = Path("/run/wherry")
FIRST_PROXY_HEALTH = 10256


class InstanceError(Exception):
    """The instance cannot be what it should; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One engine and one cluster on this machine."""

    data_dir: Path
    slot: int
    node_name: str
    node_ip: str
    api_port: int
    kubelet_port: int
    docker_tcp: str = ""  # HOST:PORT of the Docker API with TLS, besides its socket; empty: none
    kubelet_config: str = ""  # the text of a KubeletConfiguration; empty: upstream's defaults
    ingress: str = ""  # ports of HTTP and HTTPS, 80:443; empty: Ingresses are not served
    ingress_args: tuple[str, ...] = ()  # the Ingress controller's options, NAME=VALUE
    scheduler_config: str = ""  # the path of a KubeSchedulerConfiguration; empty: the default one
    apiserver_args: tuple[str, ...] = ()  # kube-apiserver's options, NAME=VALUE
    controller_args: tuple[str, ...] = ()  # kube-controller-manager's, likewise
    proxy_mode: str = ""  # nftables, iptables or userspace; empty: as proxy_config says
    proxy_config: str = ""  # the text of a KubeProxyConfiguration; empty: upstream's defaults
    store: str = ""  # as `wherry.kube.store.address` reads it; empty: the embedded one
    api_names: tuple[str, ...] = ()  # further names and addresses of the API server
    joined: str = (
        ""  # the API server of the cluster whose node this is; empty: a cluster of its own
    )
    pod_range: str = ""  # of all pods of the cluster; two with a comma, where it has both families
    services: str = ""  # likewise of its Services
    second_ip: str = ""  # the node's address of the other family, where the cluster has both
    cluster_domain: str = "cluster.local"
    pod_network: str = "auto"  # how pods of other nodes are reached: one of `plan.MODES`
    cni_conf_dir: str = ""  # which CNI plugins make pods' places; empty: we make them
    cni_bin_dir: str = ""  # where these are, DIR[:DIR]; empty: the usual places

    @property
    def name(self) -> str:
        """``default``, or the directory's own name with a short hash of its path."""
        return instance_name(self.data_dir)

    @property
    def run_dir(self) -> Path:
        """Sockets, pid files, and what does not outlive a reboot."""
        return RUN_ROOT / self.name

    @property
    def docker_socket(self) -> Path:
        """Where the Docker Engine API listens."""
        return self.run_dir / "docker.sock"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; on a node of another's cluster, the node's own."""
        return self.data_dir / ("kubelet.conf" if self.joined else "admin.conf")

    @property
    def api_url(self) -> str:
        """Where clients on this machine reach the API server."""
        return self.joined or f"https://127.0.0.1:{self.api_port}"

    @property
    def advertised_url(self) -> str:
        """Where clients on other machines reach it."""
        host = f"[{self.node_ip}]" if ":" in self.node_ip else self.node_ip
        return self.joined or f"https://{host}:{self.api_port}"

    @property
    def daemons(self) -> tuple[str, ...]:
        """What runs of it: a node of another's cluster has no server."""
        return ("node",) if self.joined else ("server", "node")

    @property
    def bridge(self) -> str:
        """The bridge of Docker's default network."""
        return f"wherry{self.slot}"

    @property
    def bridge_range(self) -> str:
        """Addresses of containers on the default network."""
        return pools.default_bridge(self.slot)

    @property
    def pod_bridge(self) -> str:
        """The bridge of this node's pods."""
        return f"wherry{self.slot}p"

    @property
    def cluster_range(self) -> str:
        """Addresses of pods, of which each node gets a /24 (IPv6: a /64); the ranges of a cluster
        of both families have a comma in between."""
        return self.pod_range or f"10.{244 - self.slot}.0.0/16"

    @property
    def service_range(self) -> str:
        """Addresses of services, likewise."""
        return self.services or f"10.{96 + self.slot}.0.0/16"

    @property
    def cluster_ranges(self) -> tuple[str, ...]:
        """Those of pods, one by one."""
        return ranges.split(self.cluster_range)

    @property
    def service_ranges(self) -> tuple[str, ...]:
        """Those of services, one by one."""
        return ranges.split(self.service_range)

    @property
    def cluster_dns(self) -> tuple[str, ...]:
        """Where the cluster's name server is found: the tenth addresses of services."""
        return ranges.address(self.service_ranges, 10)

    @property
    def node_ips(self) -> tuple[str, ...]:
        """The node's addresses, the primary one first."""
        return tuple(filter(None, (self.node_ip, self.second_ip)))

    @property
    def cgroup_root(self) -> str:
        """Below it lies every container's cgroup."""
        return f"/wherry{self.slot}"

    @property
    def nft_table(self) -> str:
        """The engine's table; the proxy's has ``-proxy`` behind it."""
        return f"wherry{self.slot}"

    @property
    def iptables_chains(self) -> str:
        """How names of the proxy's chains in iptables begin, which is everybody's; upstream's in
        the first instance."""
        return f"KUBE{self.slot or ''}"

    @property
    def proxy_health_port(self) -> int:
        """Where the proxy says whether it is well; upstream's in the first instance. (Kubelets of
        others take the numbers around it.)"""
        return FIRST_PROXY_HEALTH + (40 + self.slot if self.slot else 0)

    @property
    def proxy_metrics_port(self) -> int:
        """Where the proxy tells its mode and its figures, on loopback."""
        return 10249 + (90 + self.slot if self.slot else 0)

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.data_dir / "pki"

    @property
    def logs(self) -> Path:
        """Where the daemons write what they have to say."""
        return self.data_dir / "log"

    @property
    def first_user(self) -> int:
        """The first id of the host for users of pods with user namespaces: 1024 ranges of 65536."""
        return 65536 + self.slot * (65536 << 10)

    @property
    def pod_logs(self) -> Path:
        """Logs of pods; those of the default instance are where users' collectors look."""
        return SYSTEM_LOGS / "pods" if self.name == "default" else self.logs / "pods"

    @property
    def container_logs(self) -> Path:
        """Links to them, by the names of pods and containers."""
        return self.pod_logs.with_name("containers")

    def pid_file(self, daemon: str) -> Path:
        """Who holds it is ``daemon`` (``server`` or ``node``)."""
        return self.run_dir / f"{daemon}.pid"


def instance_name(data_dir: Path) -> str:
    """The name by which run directories and messages know the instance of ``data_dir``."""
    if data_dir == DEFAULT_DATA_DIR:
        return "default"
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-zA-Z0-9]+", "-", data_dir.name).strip("-")[:24]
    return f"{readable}-{digest}" if readable else digest


def find(data_dir: Path) -> Instance | None:
    """The instance that lives in ``data_dir``, None where none was ever started.

    Raises:
        InstanceError: what is written there about it cannot be read.
    """
    path = data_dir / slots.INSTANCE
    try:
        saved = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InstanceError(f"{path} is damaged: {error}") from error
    for field in ("apiserver_args", "controller_args", "ingress_args", "api_names"):
        saved[field] = tuple(saved.get(field, ()))
    return Instance(data_dir=data_dir, **saved)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Somebody else's cluster, as a node of it must know it: its API server, its ranges."""

    server: str
    pod_range: str
    services: str
    domain: str
    pod_network: str = "auto"
    proxy_mode: str = ""


def open_or_create(
    data_dir: Path,
    *,
    api_port: int | None = None,
    node_name: str | None = None,
    node_ip: str | None = None,
    joined: Cluster | None = None,
    wanted: Wanted | None = None,
) -> Instance:
    """The instance of ``data_dir``; the first time, one with a slot and ports of its own.

    ``node_ip`` is the address by which others reach this machine, by default that of its default
    route. ``joined`` is the cluster whose node a new instance is to be. ``wanted`` is of which
    families the cluster is, and its ranges.

    Raises:
        InstanceError: its slot is held by another instance, no slot is free, or options contradict
            what the instance already is.
    """
    with slots.locked(RUN_ROOT):
        instance = find(data_dir)
        if instance is None:
            instance = _create(data_dir, api_port, node_name, node_ip, joined, wanted)
        elif wanted and not wanted.is_met(instance.cluster_range, instance.service_range):
            raise InstanceError(
                f"the instance in {data_dir} has the ranges {instance.cluster_range} for pods and "
                f"{instance.service_range} for Services; `wherry down --purge` forgets it"
            )
        elif joined is None and node_name not in (None, instance.node_name):
            raise InstanceError(
                f"the instance in {data_dir} is the node {instance.node_name}; "
                f"`wherry down --purge` forgets it"
            )
        elif api_port not in (None, instance.api_port):
            raise InstanceError(
                f"the instance in {data_dir} serves its API on port {instance.api_port}; "
                f"`wherry down --purge` forgets it"
            )
        if (holder := slots.claim(RUN_ROOT, instance.slot, data_dir)) is not None:
            raise InstanceError(
                f"the ranges of {data_dir} (slot {instance.slot}) are in use by the instance in "
                f"{holder}; stop and purge one of them"
            )
    make_private(instance.pki)
    for directory in (instance.logs, instance.pod_logs):
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    # The sockets inside have their own modes; group docker must get as far as docker.sock.
    instance.run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    return instance


def save(instance: Instance) -> None:
    """Write down what the instance is."""
    saved = {k: v for k, v in asdict(instance).items() if k != "data_dir"}
    write_atomic(instance.data_dir / slots.INSTANCE, json.dumps(saved, indent=1).encode())


def address_field(instance: Instance, address: str) -> str:
    """Which field is the node's address of that family.

    Raises:
        InstanceError: its cluster has none of that family.
    """
    first, *others = families_of(instance.cluster_range)
    family = family_of(address)
    if family == first:
        return "node_ip"
    if family in others:
        return "second_ip"
    raise InstanceError(
        f"{address} is no {first} address, as the cluster in {instance.data_dir} wants"
    )


def successor(instance: Instance) -> Path | None:
    """The data directory of the instance that has the slot of ``instance`` by now; None where that
    is its own, or nobody's.

    Claims do not outlive the machine's: after that, whoever is started first has the slot.
    """
    holder = slots.holder(RUN_ROOT, instance.slot)
    return holder if holder != instance.data_dir else None


def forget(instance: Instance) -> None:
    """Remove all files of an instance of which nothing runs, and give its slot back."""
    shutil.rmtree(instance.run_dir, ignore_errors=True)
    shutil.rmtree(instance.data_dir)
    slots.release(RUN_ROOT, instance.slot, instance.data_dir)
    with contextlib.suppress(OSError):  # other instances are there
        RUN_ROOT.rmdir()


def _create(
    data_dir: Path,
    api_port: int | None,
    node_name: str | None,
    node_ip: str | None,
    joined: Cluster | None,
    wanted: Wanted | None,
) -> Instance:
    if data_dir.exists() and any(data_dir.iterdir()):
        # `down --purge` removes the whole directory: it must never hold what is not ours.
        raise InstanceError(f"{data_dir} holds other files; give a directory of its own")
    others = list(range(1, pools.SLOTS))
    order = [0, *others] if data_dir == DEFAULT_DATA_DIR else [*others, 0]
    families = wanted.families if wanted else families_of(joined.pod_range if joined else "")
    if IPV6 in families and not surroundings.has_ipv6():
        raise InstanceError(
            "this machine has no IPv6: /proc/net/if_inet6 names no address, not even ::1 "
            "(net.ipv6.conf.lo.disable_ipv6, or ipv6.disable=1 of the kernel)"
        )
    in_use = surroundings.networks_in_use()
    own = [*wanted.pods, *wanted.services] if wanted else []
    if joined is not None:
        own = [*ranges.split(joined.pod_range), *ranges.split(joined.services)]
    for cidr in own:
        if taken := ranges.overlapped(cidr, in_use):
            raise InstanceError(
                f"the range {cidr} of the cluster overlaps {taken}, which this machine uses: "
                + ("" if joined else "give another, or ")
                + "take a machine or network namespace without it"
            )
    for slot in order:
        if slots.holder(RUN_ROOT, slot) is not None:
            continue
        instance = Instance(
            data_dir=data_dir,
            slot=slot,
            node_name=node_name or socket.gethostname().lower(),
            node_ip="",
            api_port=api_port or 6443 + slot,
            kubelet_port=_kubelet_port(slot),
        )
        if joined is not None:
            instance = _node_of(joined, instance)
        elif wanted is not None:
            pods, services = wanted.choose(instance.cluster_range, instance.service_range)
            instance = replace(instance, pod_range=pods, services=services)
        taken_here = [instance.bridge_range, *instance.cluster_ranges, *instance.service_ranges]
        if any(ranges.overlapped(cidr, in_use) for cidr in taken_here):
            continue
        # (A port that the user chose is not given up: who is in its way is told by the bind.)
        chosen = {api_port} if api_port else set()
        if not all(map(surroundings.is_free, {instance.api_port, instance.kubelet_port} - chosen)):
            continue
        instance = _with_addresses(instance, node_ip)
        # First the slot: whoever is killed in between leaves no instance whose slot others get.
        slots.claim(RUN_ROOT, slot, data_dir)
        make_private(data_dir)
        save(instance)
        return instance
    raise InstanceError(
        "no free address ranges and ports are left on this machine for another instance"
    )


def _kubelet_port(slot: int) -> int:
    """Those of 10250 on, without that of the first instance's proxy."""
    port = 10250 + slot
    return port if port < FIRST_PROXY_HEALTH else port + 1


def _node_of(cluster: Cluster, instance: Instance) -> Instance:
    """``instance`` as a node of ``cluster``."""
    return replace(
        instance,
        joined=cluster.server,
        pod_range=cluster.pod_range,
        services=cluster.services,
        cluster_domain=cluster.domain,
        pod_network=cluster.pod_network,
        proxy_mode=cluster.proxy_mode,
    )


def _with_addresses(instance: Instance, node_ip: str | None) -> Instance:
    """``instance`` at the machine's addresses of its families; ``node_ip`` is the primary one, or
    both with a comma in between, where somebody says so."""
    first, *others = families_of(instance.cluster_range)
    said = {family_of(address): address for address in (node_ip or "").split(",") if address}
    return replace(
        instance,
        node_ip=said.get(first) or surroundings.address(first) or _LOOPBACK[first],
        second_ip="".join(said.get(family) or surroundings.address(family) for family in others),
    )
