"""From the kubelet's words to create requests of the Engine API, as dockershim translated them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wherry.engine.container.create import CreateRequest, decode
from wherry.engine.container.limits import HUGE_PAGES
from wherry.engine.container.remapping import USER_RANGE
from wherry.engine.container.resolv_conf import SEARCH_ROOT
from wherry.engine.container.users import STRICT_GROUPS
from wherry.engine.cri import naming
from wherry.engine.cri.types import (
    ContainerConfig,
    LinuxResources,
    LinuxSecurity,
    Mount,
    NamespaceMode,
    PodSandboxConfig,
    PortMapping,
)
from wherry.engine.network import endpoints
from wherry.engine.network.network import POD_NETWORK
from wherry.runtime.groups import GroupLimits

# The pause process must be the last to be killed for want of memory, and gets the least CPU.
_SANDBOX_OOM_SCORE = -998
_SANDBOX_SHARES = 2
# Probes are the kubelet's, whatever an image says.
_NO_CHECK = {"Test": ["NONE"]}


def sandbox_request(config: PodSandboxConfig, image: str) -> CreateRequest:
    """The pause container of a pod."""
    on_host = config.network is NamespaceMode.NODE
    host: dict[str, Any] = {
        "NetworkMode": "host" if on_host else POD_NETWORK,
        "IpcMode": "host" if config.ipc is NamespaceMode.NODE else "shareable",
        "PidMode": "host" if config.pid is NamespaceMode.NODE else "",
        "CgroupParent": config.cgroup_parent,
        "PortBindings": {} if on_host else _port_bindings(config.port_mappings),
        "Dns": list(config.dns.servers),
        # With servers of its own nothing of the host's resolver is meant.
        "DnsSearch": list(config.dns.searches) or (["."] if config.dns.servers else []),
        "DnsOptions": list(config.dns.options),
        "Sysctls": dict(config.sysctls),
        "Runtime": config.runtime_handler,
        "Privileged": config.privileged,
        "OomScoreAdj": _SANDBOX_OOM_SCORE,
        "CpuShares": _SANDBOX_SHARES,
        # It only waits, and a filter would cost each pod its compilation.
        "SecurityOpt": ["seccomp=unconfined", "no-new-privileges"],
        "LogConfig": {"Type": "none", "Config": {}},
        "Annotations": _annotations(config) or None,
    }
    return decode(
        {
            "Image": image,
            "Hostname": "" if on_host else config.hostname,
            "Healthcheck": _NO_CHECK,
            "Labels": naming.sandbox_labels(config.metadata, config.labels, config.annotations),
            "HostConfig": host,
            "NetworkingConfig": {"EndpointsConfig": {} if on_host else _endpoint(config)},
        }
    )


def _endpoint(config: PodSandboxConfig) -> dict[str, Any]:
    rates = {
        endpoints.INGRESS_RATE: config.ingress_rate,
        endpoints.EGRESS_RATE: config.egress_rate,
    }
    options = {name: str(rate) for name, rate in rates.items() if rate}
    return {POD_NETWORK: {"DriverOpts": options}} if options else {}


def _annotations(config: PodSandboxConfig, *, strict: bool = False) -> dict[str, str]:
    """What the Engine API has no words for."""
    found = {STRICT_GROUPS: "true"} if strict else {}
    if "." in config.dns.searches:
        found[SEARCH_ROOT] = "true"
    if config.user_range is not None:
        first, size = config.user_range
        found[USER_RANGE] = f"{first}:{size}"
    return found


def _port_bindings(mappings: Sequence[PortMapping]) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for mapping in mappings:
        if not mapping.host_port:
            continue
        bindings.setdefault(f"{mapping.container_port}/{mapping.protocol.lower()}", []).append(
            {"HostIp": mapping.host_ip, "HostPort": str(mapping.host_port)}
        )
    return bindings


def container_request(
    config: ContainerConfig,
    sandbox: PodSandboxConfig,
    sandbox_id: str,
    seccomp: str | None = None,
) -> CreateRequest:
    """A container of a pod, which joins the namespaces of the sandbox.

    ``seccomp`` is the content of its own profile of system calls.
    """
    log_path = str(sandbox.log_directory / config.log_path) if config.log_path else ""
    body = {
        "Image": config.image,
        "Cmd": list(config.args) or None,
        "Entrypoint": list(config.command) or None,
        "Env": [f"{name}={value}" for name, value in config.envs.items()],
        "WorkingDir": config.working_dir,
        "User": _user(config.security),
        "Tty": config.tty,
        "OpenStdin": config.stdin,
        "StdinOnce": config.stdin_once,
        "Healthcheck": _NO_CHECK,
        "Labels": naming.container_labels(
            config.metadata,
            sandbox.metadata,
            sandbox_id,
            log_path,
            config.labels,
            config.annotations,
        ),
        "HostConfig": _host_config(config, sandbox, sandbox_id, seccomp),
    }
    if config.stop_signal:
        body["StopSignal"] = config.stop_signal
    request = decode(body)
    if not log_path:
        request.host_config["LogConfig"] = {"Type": "none", "Config": {}}
        return request
    return CreateRequest(
        request.config, request.host_config, request.endpoints, log_path=Path(log_path)
    )


def _user(security: LinuxSecurity) -> str:
    user = security.run_as_username
    if security.run_as_user is not None:
        user = str(security.run_as_user)
    if security.run_as_group is not None:
        return f"{user or '0'}:{security.run_as_group}"
    return user


_PID_MODES = {NamespaceMode.NODE: "host", NamespaceMode.CONTAINER: ""}


def _host_config(
    config: ContainerConfig, sandbox: PodSandboxConfig, sandbox_id: str, seccomp: str | None
) -> dict[str, Any]:
    security = config.security
    joined = f"container:{sandbox_id}"
    options = ["no-new-privileges"] if security.no_new_privileges else []
    if security.seccomp_unconfined:
        options.append("seccomp=unconfined")
    elif seccomp is not None:
        options.append(f"seccomp={seccomp}")
    pid = _PID_MODES.get(security.pid, joined)
    if security.pid is NamespaceMode.TARGET:
        pid = f"container:{security.pid_target}"
    shown: dict[str, Any] = {"MaskedPaths": [], "ReadonlyPaths": []} if security.unmasked else {}
    return {
        **shown,
        "Runtime": sandbox.runtime_handler,
        "NetworkMode": joined,
        "UTSMode": joined,
        "IpcMode": joined,
        "PidMode": pid,
        "CgroupParent": sandbox.cgroup_parent,
        "Mounts": [_mount(mount) for mount in config.mounts],
        "Devices": [
            {
                "PathOnHost": str(device.host_path),
                "PathInContainer": device.container_path,
                "CgroupPermissions": device.permissions,
            }
            for device in config.devices
        ]
        or None,
        "Privileged": security.privileged,
        "ReadonlyRootfs": security.readonly_rootfs,
        "CapAdd": list(security.add_capabilities) or None,
        "CapDrop": list(security.drop_capabilities) or None,
        "GroupAdd": [str(group) for group in security.supplemental_groups] or None,
        "SecurityOpt": options or None,
        "Annotations": {
            **_annotations(sandbox, strict=security.strict_groups),
            **_huge_pages(config.resources),
        }
        or None,
        **_resources(config.resources),
    }


def _huge_pages(resources: LinuxResources) -> dict[str, str]:
    limits = resources.hugepage_limits
    text = ",".join(f"{size}={bytes_}" for size, bytes_ in sorted(limits.items()))
    return {HUGE_PAGES: text} if limits else {}


def _mount(mount: Mount) -> dict[str, Any]:
    if mount.image:
        return {
            "Type": "image",
            "Source": mount.image,
            "Target": mount.container_path,
            "ReadOnly": True,
            "ImageOptions": {"Subpath": mount.image_sub_path},
        }
    return {
        "Type": "bind",
        "Source": str(mount.host_path),
        "Target": mount.container_path,
        "ReadOnly": mount.readonly,
        "BindOptions": _bind_options(mount),
    }


def _bind_options(mount: Mount) -> dict[str, Any]:
    """How a mount is bound. What is mounted below a read-only one stays as it is there, unless the
    pod wants otherwise."""
    options: dict[str, Any] = {"CreateMountpoint": True}
    if mount.propagation not in ("private", "rprivate"):
        options["Propagation"] = mount.propagation
    if mount.readonly:
        how = "ReadOnlyForceRecursive" if mount.recursive_readonly else "ReadOnlyNonRecursive"
        options[how] = True
    return options


def update_body(resources: LinuxResources) -> dict[str, Any]:
    """Limits to be changed, as the Engine API names them; -1 is none."""
    return {
        "CpuShares": resources.cpu_shares,
        "CpuQuota": resources.cpu_quota or -1,
        "CpuPeriod": resources.cpu_period,
        "Memory": resources.memory_limit or -1,
        "MemorySwap": resources.memory_limit or -1,
    }


def group_limits(resources: LinuxResources) -> GroupLimits:
    """Limits of a pod as a whole; what it does not have is taken away."""
    return GroupLimits(
        cpu_shares=resources.cpu_shares,
        cpu_quota=resources.cpu_quota or -1,
        cpu_period=resources.cpu_period,
        memory=resources.memory_limit or -1,
        pids=resources.pids_limit or -1,
        huge_pages=resources.hugepage_limits,
    )


def _resources(resources: LinuxResources) -> dict[str, Any]:
    return {
        "CpuShares": resources.cpu_shares,
        "CpuQuota": resources.cpu_quota,
        "CpuPeriod": resources.cpu_period,
        "Memory": resources.memory_limit,
        # A pod has no swap beyond its memory.
        "MemorySwap": resources.memory_limit,
        "OomScoreAdj": resources.oom_score_adj,
    }
