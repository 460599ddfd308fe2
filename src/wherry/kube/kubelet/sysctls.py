"""Which kernel parameters pods may set. No I/O.

https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/: the safe ones always, others
where the node allows them by name or by prefix (``net.core.*``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wherry.kube.kubelet import pods

Object = dict[str, Any]

REASON = "SysctlForbidden"
SAFE = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
)
_OF_IPC = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def fault(pod: Object, allowed_unsafe: Sequence[str]) -> str:
    """Why the node does not take ``pod``; empty where it does."""
    spec = pod["spec"]
    for entry in (spec.get("securityContext") or {}).get("sysctls") or ():
        name = str(entry["name"]).replace("/", ".")
        shared = (name.startswith("net.") and pods.is_host_network(pod)) or (
            name.startswith(_OF_IPC) and bool(spec.get("hostIPC"))
        )
        if shared or not (name in SAFE or any(_fits(name, p) for p in allowed_unsafe)):
            return f'forbidden sysctl: "{name}" not allowlisted'
    return ""


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
