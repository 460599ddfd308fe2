"""From a pod's spec to the runtime's words: what its sandbox and containers are made from. No I/O.

Follows generatePodSandboxConfig and generateContainerConfig of pkg/kubelet/kuberuntime.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wherry.engine.cri.types import (
    ContainerConfig,
    ContainerMetadata,
    Device,
    DNSConfig,
    LinuxSecurity,
    Mount,
    NamespaceMode,
    PodSandboxConfig,
    PodSandboxMetadata,
    PortMapping,
)
from wherry.kube.api import meta
from wherry.kube.kubelet import bandwidth, pods, resources
from wherry.kube.kubelet.config import DEFAULTS, Settings
from wherry.kube.kubelet.environment import ConfigError, expand_all

Object = dict[str, Any]

MAX_HOSTNAME, MAX_FQDN = 63, 64


def log_directory(pod_logs: Path, pod: Object) -> Path:
    """Where the logs of the pod's containers lie, as ``/var/log/pods`` has them."""
    return pod_logs / f"{meta.namespace(pod)}_{meta.name(pod)}_{meta.uid(pod)}"


def hostname(pod: Object, node_name: str, cluster_domain: str = "cluster.local") -> tuple[str, str]:
    """The pod's host name and its domain (``<subdomain>.<namespace>.svc.<cluster domain>``)."""
    spec = pod["spec"]
    if pods.is_host_network(pod):
        return node_name, ""
    if spec.get("hostnameOverride"):
        return spec["hostnameOverride"], ""
    name = spec.get("hostname") or meta.name(pod)
    name = name[:MAX_HOSTNAME].rstrip("-.")
    domain = ""
    if spec.get("subdomain"):
        domain = f"{spec['subdomain']}.{meta.namespace(pod)}.svc.{cluster_domain}"
    if spec.get("setHostnameAsFQDN") and domain:
        return f"{name}.{domain}", domain
    return name, domain


def sandbox_config(
    pod: Object,
    attempt: int,
    *,
    node_name: str,
    logs: Path,
    dns: DNSConfig,
    cluster_domain: str = "cluster.local",
    runtime_handler: str = "",
    user_range: tuple[int, int] | None = None,
) -> PodSandboxConfig:
    """What the pod's sandbox is made from.

    Raises:
        ConfigError: its host name is longer than the kernel takes, or a bandwidth makes no sense.
    """
    spec = pod["spec"]
    host_network = pods.is_host_network(pod)
    host_name, _domain = hostname(pod, node_name, cluster_domain)
    if len(host_name) > MAX_FQDN:
        raise ConfigError(
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {host_name} is "
            f"too long ({MAX_FQDN} characters is the max, {len(host_name)} characters requested)"
        )
    mappings = []
    for container in [*pods.init_containers(pod), *pods.containers(pod)]:
        for port in container.get("ports") or ():
            if port.get("hostPort") and not host_network:
                mappings.append(
                    PortMapping(
                        container_port=port["containerPort"],
                        host_port=port["hostPort"],
                        protocol=port.get("protocol") or "TCP",
                        host_ip=port.get("hostIP") or "",
                    )
                )
    sysctls = (spec.get("securityContext") or {}).get("sysctls") or ()
    try:
        ingress, egress = bandwidth.of(pod)
    except ValueError as error:
        raise ConfigError(f"failed to get pod bandwidth from annotations: {error}") from None
    return PodSandboxConfig(
        metadata=PodSandboxMetadata(meta.name(pod), meta.namespace(pod), meta.uid(pod), attempt),
        hostname=host_name,
        log_directory=log_directory(logs, pod),
        labels={**meta.labels(pod), **_pod_labels(pod)},
        annotations=dict(meta.annotations(pod)),
        dns=dns,
        port_mappings=mappings,
        cgroup_parent=resources.cgroup_parent(pod),
        network=NamespaceMode.NODE if host_network else NamespaceMode.POD,
        pid=_pid_mode(spec),
        ipc=NamespaceMode.NODE if spec.get("hostIPC") else NamespaceMode.POD,
        sysctls={s["name"]: s["value"] for s in sysctls},
        privileged=any(_security(c).get("privileged") for c in pods.all_containers(pod)),
        runtime_handler=runtime_handler,
        user_range=user_range,
        ingress_rate=ingress,
        egress_rate=egress,
    )


def _pid_mode(spec: Object) -> NamespaceMode:
    if spec.get("hostPID"):
        return NamespaceMode.NODE
    return NamespaceMode.POD if spec.get("shareProcessNamespace") else NamespaceMode.CONTAINER


def _pod_labels(pod: Object) -> dict[str, str]:
    return {
        pods.POD_NAME: meta.name(pod),
        pods.POD_NAMESPACE: meta.namespace(pod),
        pods.POD_UID: meta.uid(pod),
    }


def container_config(
    pod: Object,
    container: Object,
    attempt: int,
    *,
    image: str,
    environment: Mapping[str, str],
    mounts: Sequence[Mount],
    devices: Sequence[Device] = (),
    image_user: str,
    memory_capacity: int,
    seccomp_root: Path,
    seccomp_default: bool = False,
    target: str = "",
    settings: Settings = DEFAULTS,
    page_sizes: Sequence[str] = (),
    round_: int = 0,
) -> ContainerConfig:
    """What a container is made from.

    Args:
        attempt: how often it was started before.
        image: the id of its image.
        image_user: whom the image says to run as.
        memory_capacity: bytes of memory the node has, to which OOM scores relate.
        seccomp_root: below which profiles of the node lie.
        seccomp_default: who asks for no filter of system calls gets the default one.
        target: the id of the container whose processes it is to see.
        page_sizes: those of the node's huge pages.
        round_: how often all containers of the pod were restarted before.

    Raises:
        ConfigError: the spec forbids what the image wants.
    """
    security = security_context(
        pod, container, image_user, seccomp_root, seccomp_default=seccomp_default, target=target
    )
    annotations = {
        pods.CONTAINER_HASH: pods.container_hash(container),
        pods.IMAGE: container.get("image") or "",
        pods.RESTART_COUNT: str(attempt),
        pods.MESSAGE_PATH: container.get("terminationMessagePath") or "",
        pods.MESSAGE_POLICY: container.get("terminationMessagePolicy") or "",
        pods.GRACE_PERIOD: str(pods.grace_period(pod)),
    }
    if round_:
        annotations[pods.ROUND] = str(round_)
    pre_stop = (container.get("lifecycle") or {}).get("preStop")
    if pre_stop:
        annotations[pods.PRE_STOP] = json.dumps(pre_stop)
    if container.get("ports"):
        annotations[pods.PORTS] = json.dumps(container["ports"])
    return ContainerConfig(
        metadata=ContainerMetadata(container["name"], attempt),
        image=image,
        command=expand_all(container.get("command") or (), environment),
        args=expand_all(container.get("args") or (), environment),
        working_dir=container.get("workingDir") or "",
        envs=environment,
        mounts=mounts,
        devices=devices,
        labels={**_pod_labels(pod), pods.CONTAINER_NAME: container["name"]},
        annotations=annotations,
        log_path=f"{container['name']}/{attempt}.log",
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        resources=resources.linux_resources(
            pod,
            container,
            memory_capacity,
            period=int(settings.cpu_cfs_period * 1_000_000),
            quota=settings.cpu_cfs_quota,
            page_sizes=page_sizes,
        ),
        security=security,
        stop_signal=(container.get("lifecycle") or {}).get("stopSignal") or "",
    )


def _security(container: Object) -> Object:
    return container.get("securityContext") or {}


def security_context(
    pod: Object,
    container: Object,
    image_user: str,
    seccomp_root: Path,
    *,
    seccomp_default: bool = False,
    target: str = "",
) -> LinuxSecurity:
    """The container's own security context over its pod's.

    Raises:
        ConfigError: ``runAsNonRoot`` is asked for and the container would run as root.
    """
    spec = pod["spec"]
    of_pod = spec.get("securityContext") or {}
    own = _security(container)

    def effective(name: str) -> Any:
        return own[name] if own.get(name) is not None else of_pod.get(name)

    user = effective("runAsUser")
    if effective("runAsNonRoot"):
        _verify_non_root(pod, container, user, image_user)
    capabilities = own.get("capabilities") or {}
    groups = list(of_pod.get("supplementalGroups") or ())
    if of_pod.get("fsGroup") is not None and of_pod["fsGroup"] not in groups:
        groups.append(of_pod["fsGroup"])
    seccomp = effective("seccompProfile") or {}
    kind = seccomp.get("type", "RuntimeDefault" if seccomp_default else "Unconfined")
    profile = None
    if kind == "Localhost":
        profile = seccomp_root / str(seccomp.get("localhostProfile") or "")
    privileged = bool(own.get("privileged"))
    group = effective("runAsGroup")
    pid = _pid_mode(spec)
    if target and pid is NamespaceMode.CONTAINER:
        pid = NamespaceMode.TARGET
    return LinuxSecurity(
        run_as_user=user,
        run_as_group=group,
        # Another group goes with the image's own user.
        run_as_username="" if group is None else image_user.partition(":")[0],
        supplemental_groups=groups,
        privileged=privileged,
        readonly_rootfs=bool(own.get("readOnlyRootFilesystem")),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        add_capabilities=list(capabilities.get("add") or ()),
        drop_capabilities=list(capabilities.get("drop") or ()),
        # As upstream: no filter unless one is asked for.
        seccomp_unconfined=privileged or kind == "Unconfined",
        seccomp_profile=profile,
        strict_groups=of_pod.get("supplementalGroupsPolicy") == "Strict",
        unmasked=own.get("procMount") == "Unmasked",
        pid=pid,
        pid_target=target if pid is NamespaceMode.TARGET else "",
    )


def _verify_non_root(pod: Object, container: Object, user: int | None, image_user: str) -> None:
    who = f'(pod: "{pods.describe(pod)}", container: {container["name"]})'
    if user is not None:
        if user == 0:
            raise ConfigError(f"container's runAsUser breaks non-root policy {who}")
        return
    name = image_user.partition(":")[0]
    if name in ("", "0", "root"):
        raise ConfigError(f"container has runAsNonRoot and image will run as root {who}")
    if not name.isdigit():
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({name}), "
            f"cannot verify user is non-root {who}"
        )


def hosts_file(
    pod: Object, ips: Sequence[str], host_name: str, domain: str, host_content: bytes
) -> bytes:
    """The pod's ``/etc/hosts``; with the host's network, the host's own and the pod's aliases."""
    aliases = pod["spec"].get("hostAliases") or ()
    if pods.is_host_network(pod):
        text = "# Kubernetes-managed hosts file (host network).\n" + host_content.decode(
            "utf-8", "replace"
        )
    else:
        lines = [
            "# Kubernetes-managed hosts file.",
            "127.0.0.1\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
            "fe00::0\tip6-localnet",
            "fe00::0\tip6-mcastprefix",
            "fe00::1\tip6-allnodes",
            "fe00::2\tip6-allrouters",
        ]
        short = host_name.removesuffix(f".{domain}") if domain else host_name
        names = f"{short}.{domain}\t{short}" if domain else host_name
        lines += [f"{ip}\t{names}" for ip in ips]
        text = "\n".join(lines) + "\n"
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
        for alias in aliases:
            text += "\t".join([alias["ip"], *(alias.get("hostnames") or ())]) + "\n"
    return text.encode()


def message_file(pod_dir: Path, container_name: str, attempt: int) -> Path:
    """The file behind a container's ``terminationMessagePath``: one per incarnation."""
    short = hashlib.sha256(f"{container_name}/{attempt}".encode()).hexdigest()[:8]
    return pod_dir / "containers" / container_name / short
