"""The ranges of cluster IPs, and this machine's ways to them.

Those that the node was told are there from the start; further ones come and go with ServiceCIDRs.
Nobody checks these before they are written: one in which there is something already, of this
machine or of the cluster's nodes, is left alone, as rules and ways would cut that off.
What is taken from the kernel for these is noted in a file before, so that it is given back also by
who comes after a kill, or takes the node down.
https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from wherry.kube.api.kinds.service_ranges import overlap, overlapped
from wherry.net.link import routes
from wherry.net.service import local_routing

Object = dict[str, Any]


def further(told: Sequence[str], present: Iterable[Object]) -> dict[str, Object]:
    """The ranges of ServiceCIDRs besides those the node was told, of the same families, each with
    its ServiceCIDR.

    One that is being deleted counts as long as it is there: Services may have addresses of it.
    """
    families = {":" in cidr for cidr in told}
    found: dict[str, Object] = {}
    for o in sorted(present, key=lambda o: str(o["metadata"]["name"])):
        for cidr in (o.get("spec") or {}).get("cidrs") or ():
            with contextlib.suppress(ValueError):
                if (":" in cidr) in families:
                    found.setdefault(str(ipaddress.ip_network(cidr)), o)
    return {cidr: o for cidr, o in found.items() if cidr not in told}


def clashes(
    cidrs: Iterable[str], pods: Sequence[str], nodes: Sequence[Object], here: Sequence[str]
) -> dict[str, str]:
    """Those of ``cidrs`` in which there is something already, and what: it would be cut off by our
    rules. ``pods`` are the cluster's ranges, ``here`` is what this machine reaches by its links.
    """
    found = {}
    for cidr in cidrs:
        what = overlapped(cidr, nodes)
        if not what and (other := next((o for o in pods if overlap(cidr, o)), "")):
            what = f"{other}, the pods of the cluster"
        if not what and (other := next((o for o in here if overlap(cidr, o)), "")):
            what = f"{other}, which this node reaches otherwise"
        if what:
            found[cidr] = what
    return found


class Ways:
    """The routes to the ranges. All that is done blocks.

    Args:
        told: the ranges that the node was told.
        source: the machine's address for connections of its own to a range.
        noted: the file that says which further ones have routes; None: there are none.
        pods: all ranges of pods of the cluster.
    """

    def __init__(
        self,
        told: Sequence[str],
        source: Callable[[str], str],
        noted: Path | None = None,
        pods: Sequence[str] = (),
    ) -> None:
        self._told = tuple(told)
        self._pods = tuple(pods)
        self._source = source
        self._noted = noted

    def open(self) -> tuple[str, ...]:
        """Have ways to the ranges that are known before the cluster is: those that were told, and
        those that a former process used. Returns them.

        Raises:
            OSError: as `use`.
        """
        noted = self._read()
        gone = self.clashes(noted, ()) if noted else {}
        cidrs = (*self._told, *(cidr for cidr in noted if cidr not in gone))
        self.use(cidrs)
        return cidrs

    def clashes(self, cidrs: Iterable[str], nodes: Sequence[Object]) -> dict[str, str]:
        """Those of these ranges that are not free on this machine, nor around the cluster's nodes,
        and why.

        Raises:
            OSError: the kernel does not tell.
        """
        own = {*self._told, *self._read()}
        claimed = [cidr for cidr in routes.blocked() if cidr not in own]
        return clashes(cidrs, self._pods, nodes, [*routes.occupied(), *claimed])

    def use(self, cidrs: Sequence[str]) -> None:
        """Have ways to these ranges, and to no further ones that were used before.

        Raises:
            OSError: the kernel refuses, or the file cannot be written.
        """
        further = [cidr for cidr in cidrs if cidr not in self._told]
        before = self._read()
        self._write([*before, *(cidr for cidr in further if cidr not in before)])
        for cidr in (*self._told, *further):
            routes.block(cidr)
            local_routing.add(cidr, self._source(cidr))
        for cidr in before:
            if cidr not in further:
                _leave(cidr)
        self._write(further)

    def close(self) -> None:
        """Lead nobody to the rules any more, before these go: on a way without them packets would
        go round and round. They do not leave the machine all the same.

        Raises:
            OSError: the kernel refuses.
        """
        for cidr in (*self._told, *self._read()):
            with contextlib.suppress(ValueError):
                local_routing.remove(cidr)

    def remove(self) -> None:
        """Take all of them away; no error where there are none.

        Raises:
            OSError: the kernel refuses.
        """
        for cidr in (*self._told, *self._read()):
            _leave(cidr)
        self._write([])

    def _read(self) -> list[str]:
        if self._noted is None:
            return []
        try:
            return [line for line in self._noted.read_text().split() if line not in self._told]
        except FileNotFoundError:
            return []

    def _write(self, cidrs: Sequence[str]) -> None:
        if self._noted is None or list(cidrs) == self._read():
            return
        if cidrs:
            new = self._noted.with_name(f"{self._noted.name}.new")
            new.write_text("".join(f"{cidr}\n" for cidr in cidrs))
            new.replace(self._noted)
        else:
            self._noted.unlink(missing_ok=True)


def _leave(cidr: str) -> None:
    with contextlib.suppress(ValueError):
        local_routing.remove(cidr)
        routes.unblock(cidr)
