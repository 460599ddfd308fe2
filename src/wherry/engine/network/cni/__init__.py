"""Pods' places on the network by plugins of others: the Container Network Interface.

``conf`` reads what an administrator has written, ``protocol`` knows what plugins are told and what
they answer (both without I/O but for reading the directory), ``plugins`` runs them and keeps on
disk what they must be told when a pod goes. https://www.cni.dev/docs/spec/, 0.3.1 to 1.1.0.
"""

from __future__ import annotations

DRIVER = "cni"
"""The driver of the pods' network when plugins make it."""
