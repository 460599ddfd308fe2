"""``host``, ``null`` and ``cni``: no link and no address of ours; there is one network of each at
most, made by the engine. That of ``cni`` is the pods', whose places others' plugins make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wherry.engine.container.container import Endpoint
from wherry.engine.errors import Forbidden
from wherry.engine.network.network import Network
from wherry.net.firewall.rules import Segment


class Lone:
    """A driver with a single network."""

    addressed = False
    interface = ""

    def __init__(self, name: str) -> None:
        self._name = name

    def judge(self, network: Network, others: Sequence[Network]) -> None:
        """There is one already."""
        raise Forbidden(f'only one instance of "{self._name}" network is allowed')

    def segment(self, network: Network) -> Segment | None:
        return None

    def publishes(self, network: Network) -> bool:
        return False

    def up(self, network: Network) -> None:
        return

    def down(self, network: Network) -> None:
        return

    def plug(
        self, network: Network, endpoint: Endpoint, namespace: Path, gateways: Sequence[str]
    ) -> None:
        return

    def unplug(self, network: Network, endpoint: Endpoint, namespace: Path) -> None:
        return
