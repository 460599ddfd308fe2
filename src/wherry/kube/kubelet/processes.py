"""How many processes pods may have: one that forks without end must not leave none to the others.

Upstream leaves a pod without a limit as many as the kernel has numbers for. Here it is a share of
them, large enough for whoever does not run wild, and all pods together leave some to the node.
"""

from __future__ import annotations

_SHARE = 4  # a pod gets at most one part in so many
_NODES_OWN = 10  # and one in so many is the node's own


def of_a_pod(configured: int, all_: int) -> int:
    """The limit of one pod; ``configured`` is ``podPidsLimit``, where none is -1."""
    return configured if configured > 0 else all_ // _SHARE


def of_all_pods(all_: int, reserved: int) -> int:
    """The limit of all pods together, 0 for none; ``reserved`` is what the configuration sets
    apart for others."""
    return max(0, all_ - max(reserved, all_ // _NODES_OWN))
