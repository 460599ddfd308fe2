"""PodTopologyLabels: a pod that is bound to a node learns zone and region from it.

https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#podtopologylabels
"""

from __future__ import annotations

from wherry.kube.api.resources import NODES
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context

_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


def admit(attributes: Attributes, context: Context) -> None:
    """Of a Binding, or of a pod that is created on a node."""
    o = attributes.new
    if attributes.subresource == "binding":
        target = o.get("target") or {}
        node = target.get("name", "") if target.get("kind") in (None, "", "Node") else ""
    else:
        node = (o.get("spec") or {}).get("nodeName", "")
    found = context.cache.of(NODES).get("", node) if node else None
    if found is None:
        return
    labels = found.object["metadata"].get("labels") or {}
    known = {name: labels[name] for name in _LABELS if name in labels}
    if known:
        o["metadata"]["labels"] = {**(o["metadata"].get("labels") or {}), **known}
