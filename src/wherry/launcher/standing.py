"""How a node of another's cluster stands with it, for ``wherry status``."""

from __future__ import annotations

import asyncio
import ssl

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import NODES
from wherry.kube.client.client import Client
from wherry.kube.client.https import from_kubeconfig
from wherry.kube.client.transport import Object
from wherry.kube.kubelet.node import silence
from wherry.launcher import credentials
from wherry.launcher.instance import Instance

_PATIENCE = 5.0  # seconds for an answer


def standing(instance: Instance) -> str:
    """In a few words, as the API server says it now; or why it says nothing."""
    return credentials.fault(instance) or asyncio.run(_asked(instance))


async def _asked(instance: Instance) -> str:
    transport = from_kubeconfig(instance.kubeconfig)
    try:
        async with asyncio.timeout(_PATIENCE):
            return of_node(await Client(transport).get(NODES, instance.node_name))
    except (StatusError, ConnectionError, TimeoutError) as error:
        if why := silence(error):
            return f"the API server cannot be reached ({why})"
        if isinstance(error, StatusError) and error.code == 404:
            return f"the cluster has no node {instance.node_name}"
        if isinstance(error.__cause__, ssl.SSLError):
            return (
                "the API server there is not the one that it has joined, as its certificate shows; "
                "if it was made anew, `wherry join` with a new token makes this a node of it"
            )
        return str(error)
    finally:
        await transport.close()


def of_node(node: Object) -> str:
    """What the cluster thinks of ``node``, as ``kubectl get nodes`` says it, and why."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = next((c for c in conditions if c["type"] == "Ready"), None)
    if ready is not None and ready["status"] == "True":
        return "Ready"
    return f"NotReady ({ready['message']})" if ready and ready.get("message") else "NotReady"
