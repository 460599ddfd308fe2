"""The instance's own node is the control plane: its label says so, which a kubelet may not set.

Kubeadm labels such a node, too, but we leave out what goes with it on a cluster of many machines:
no taint, because pods must run somewhere, and no
``node.kubernetes.io/exclude-from-external-load-balancers``, because this node's address is the one
that load balancers have to give out.
https://kubernetes.io/docs/reference/labels-annotations-taints/#node-role-kubernetes-io-control-plane
"""

from __future__ import annotations

import asyncio
import logging

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import NODES
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.client import STRATEGIC_MERGE_PATCH, Client
from wherry.kube.client.informer import Informer

log = logging.getLogger(__name__)

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


async def label(client: Client, node_name: str) -> None:
    """Label the node whenever it appears, until cancelled.

    Who takes the label away is not contradicted as long as the node stays.
    """
    appeared = asyncio.Event()
    nodes = Informer(client, NODES, field_selector=f"metadata.name={node_name}")
    nodes.add_handlers(on_add=lambda _node: appeared.set())
    nodes.start()
    backoff = Backoff(0.1, 10)
    patch = {"metadata": {"labels": {CONTROL_PLANE: ""}}}
    try:
        while True:
            await appeared.wait()
            appeared.clear()
            node = nodes.get("", node_name)
            if node is None or CONTROL_PLANE in meta.labels(node):
                continue
            try:
                await client.patch(NODES, node_name, patch, content_type=STRATEGIC_MERGE_PATCH)
                backoff.reset()
            except (StatusError, ConnectionError, TimeoutError) as error:
                log.info("node %s is not labelled yet: %s", node_name, error)
                await asyncio.sleep(backoff.next())
                appeared.set()
    finally:
        await nodes.stop()
