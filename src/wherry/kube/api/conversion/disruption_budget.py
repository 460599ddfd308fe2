"""PodDisruptionBudgets of policy/v1beta1: an empty selector chose no pod; now it chooses all.

What one version cannot say in the other is said with a term on a label that no pod has.
Upstream: pkg/apis/policy/v1beta1/conversion.go.
"""

from __future__ import annotations

from wherry.kube.api.conversion.version import Conversion
from wherry.kube.api.kinds.base import Object

_LABEL = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"
_NONE: Object = {"matchExpressions": [{"key": _LABEL, "operator": "Exists"}]}
_ALL: Object = {"matchExpressions": [{"key": _LABEL, "operator": "DoesNotExist"}]}


def to_stored(o: Object) -> Object:
    """From v1beta1."""
    return _selecting(o, _NONE, _ALL)


def from_stored(o: Object) -> Object:
    """To v1beta1."""
    return _selecting(o, _ALL, _NONE)


def _selecting(o: Object, for_empty: Object, becomes_empty: Object) -> Object:
    selector = (o.get("spec") or {}).get("selector")
    if selector is None:
        return o
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        selector = for_empty
    elif selector == becomes_empty:
        selector = {}
    else:
        return o
    return {**o, "spec": {**o["spec"], "selector": selector}}


PDB = Conversion(to_stored, from_stored)
