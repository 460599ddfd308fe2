"""How much a pod may send and receive, as its annotations say.

Upstream: pkg/util/bandwidth.
"""

from __future__ import annotations

from typing import Any

from wherry.kube.api import meta, quantity

INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"
_LEAST, _MOST = 10**3, 10**15


def of(pod: dict[str, Any]) -> tuple[int, int]:
    """Bits a second to the pod and from it; 0 is as many as go.

    Raises:
        ValueError: an annotation is none; the text is upstream's.
    """
    ingress, egress = (_rate(meta.annotations(pod).get(name)) for name in (INGRESS, EGRESS))
    return ingress, egress


def _rate(text: str | None) -> int:
    if text is None:
        return 0
    value = quantity.parse(text).to_int()
    if value < _LEAST:
        raise ValueError("resource is unreasonably small (< 1kbit)")
    if value > _MOST:
        raise ValueError("resource is unreasonably large (> 1Pbit)")
    return value
