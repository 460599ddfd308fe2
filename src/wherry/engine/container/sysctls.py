"""``--sysctl``: only what the kernel keeps for each namespace, in a namespace of the container's.

The words are those of runc, which is where dockerd leaves the judging.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wherry.engine.container.failure import refusal

_IPC = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni")
) | {"kernel.shm_rmid_forced"}


def check(sysctls: Mapping[str, str], *, network: Any, ipc: Any, uts: Any) -> None:
    """Judge before a start; the namespaces are as in ``Joined``, ``"host"`` for the host's.

    Raises:
        EngineError: one of them would change the host, or is none of a namespace.
    """
    for name in sysctls:
        dotted = name.replace("/", ".")
        if dotted in _IPC or dotted.startswith("fs.mqueue."):
            if ipc == "host":
                raise refusal(f'sysctl "{name}" is not allowed in the hosts ipc namespace')
        elif dotted.startswith("net."):
            if network == "host":
                raise refusal(f'sysctl "{name}" not allowed in host network namespace')
        elif dotted == "kernel.domainname":
            if uts == "host":
                raise refusal(f'sysctl "{name}" is not allowed in the hosts uts namespace')
        elif dotted == "kernel.hostname":
            raise refusal(
                f'sysctl "{name}" is not allowed as it conflicts with the OCI "hostname" field'
            )
        else:
            raise refusal(f'sysctl "{name}" is not in a separate kernel namespace')
