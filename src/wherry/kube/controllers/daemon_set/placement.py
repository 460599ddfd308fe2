"""Which nodes a DaemonSet's pods belong on, and the pod that is bound for one of them.

The pods go through the scheduler, each tied to its node by an affinity to the node's name
(https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#how-daemon-pods-are-scheduled).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from wherry.kube.api import meta, node_selection
from wherry.kube.api.kinds.daemon_set import TEMPLATE_GENERATION
from wherry.kube.api.resources import DAEMON_SETS
from wherry.kube.api.taints import NO_EXECUTE, NO_SCHEDULE, untolerated
from wherry.kube.client.transport import Object
from wherry.kube.controllers.histories import HASH_LABEL
from wherry.kube.controllers.ownership import from_template

GENERATION_LABEL = "pod-template-generation"

_NODE = "node.kubernetes.io/"
_TOLERATED = (
    ("not-ready", NO_EXECUTE),
    ("unreachable", NO_EXECUTE),
    ("disk-pressure", NO_SCHEDULE),
    ("memory-pressure", NO_SCHEDULE),
    ("pid-pressure", NO_SCHEDULE),
    ("unschedulable", NO_SCHEDULE),
)


class Belongs(NamedTuple):
    """Whether a node shall get a pod, and whether one that is there may stay."""

    runs: bool
    stays: bool


def tolerations(spec: Mapping[str, Any]) -> list[Object]:
    """The pod's tolerations and those that every daemon has."""
    result = list(spec.get("tolerations") or ())
    wanted = list(_TOLERATED)
    if spec.get("hostNetwork"):
        wanted.append(("network-unavailable", NO_SCHEDULE))
    for key, effect in wanted:
        toleration = {"key": _NODE + key, "operator": "Exists", "effect": effect}
        if toleration not in result:
            result.append(toleration)
    return result


def belongs(set: Object, node: Object) -> Belongs:
    """Whether the pods of ``set`` belong on ``node``."""
    spec = set["spec"]["template"]["spec"]
    name = meta.name(node)
    if spec.get("nodeName") and spec["nodeName"] != name:
        return Belongs(runs=False, stays=False)
    if not node_selection.matches(spec, meta.labels(node), name):
        return Belongs(runs=False, stays=False)
    taints = (node.get("spec") or {}).get("taints") or ()
    if not taints:
        return Belongs(runs=True, stays=True)
    tolerated = tolerations(spec)
    if untolerated(taints, tolerated, (NO_EXECUTE, NO_SCHEDULE)) is None:
        return Belongs(runs=True, stays=True)
    return Belongs(runs=False, stays=untolerated(taints, tolerated, (NO_EXECUTE,)) is None)


def node_of(pod: Object) -> str:
    """The node the pod is on or bound for; empty where nothing tells."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    for term in node_selection.required_terms(spec) or ():
        for requirement in term.get("matchFields") or ():
            values = requirement.get("values") or []
            named = requirement.get("key") == "metadata.name"
            if named and requirement.get("operator") == "In" and len(values) == 1:
                return str(values[0])
    return ""


def make_pod(set: Object, node: str, hash: str) -> Object:
    """The pod of the set's present template, whose revision has ``hash``, for ``node``."""
    body = from_template(set["spec"]["template"], set, DAEMON_SETS)
    labels = {**(body["metadata"].get("labels") or {}), HASH_LABEL: hash}
    generation = meta.annotations(set).get(TEMPLATE_GENERATION)
    if generation:
        labels[GENERATION_LABEL] = generation
    body["metadata"]["labels"] = labels
    spec = dict(body["spec"])
    spec["tolerations"] = tolerations(spec)
    this_node = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    terms = node_selection.required_terms(spec)
    if not terms:
        terms = [{}]
    bound = [{**term, "matchFields": this_node} for term in terms]
    affinity = dict(spec.get("affinity") or {})
    affinity["nodeAffinity"] = {
        **node_selection.affinity(spec),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": bound},
    }
    spec["affinity"] = affinity
    return {**body, "spec": spec}
