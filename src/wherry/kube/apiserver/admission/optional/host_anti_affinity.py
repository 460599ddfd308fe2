"""LimitPodHardAntiAffinityTopology: a pod keeps others away from its node, not from a zone."""

from __future__ import annotations

from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context

_HOSTNAME = "kubernetes.io/hostname"


def validate(attributes: Attributes, context: Context) -> None:
    affinity = (attributes.new["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ():
        key = term.get("topologyKey", "")
        if key != _HOSTNAME:
            raise attributes.forbidden(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey "
                f"{key} but only key {_HOSTNAME} is allowed"
            )
