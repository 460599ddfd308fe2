"""``/etc/hosts`` of a container: made at its start, changed line by line while it runs.

What others have written into the file of a running container stays there until its next start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_BASE = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


@dataclass(frozen=True, slots=True)
class Record:
    """One line; ``names`` are separated by blanks."""

    address: str
    names: str

    def __str__(self) -> str:
        return f"{self.address}\t{self.names}\n"


def build(records: Iterable[Record]) -> str:
    """A whole file."""
    return _BASE + "".join(map(str, records))


def own_names(hostname: str, domainname: str) -> str:
    """What a container's own addresses are called: its full name, then its first part."""
    full = f"{hostname}.{domainname}" if domainname else hostname
    short, dot, _ = full.partition(".")
    return f"{full} {short}" if dot else full


def replaced(text: str, names: str, records: Sequence[Record]) -> str:
    """``text`` with ``records`` for the lines that are for exactly ``names``."""
    wanted = [str(record).rstrip("\n") for record in records]
    lines = text.removesuffix("\n").split("\n") if text else []
    kept = [line for line in lines if line in wanted or line.partition("\t")[2] != names]
    kept += [line for line in wanted if line not in kept]
    return "".join(f"{line}\n" for line in kept)


def without(text: str, name: str) -> str:
    """``text`` without the lines whose first name is ``name``."""
    return re.sub(rf"(?m)^[^#\s]+\t{re.escape(name)}(?:[ \t].*)?\n?", "", text)


def moved(text: str, name: str, address: str) -> str:
    """``text`` with ``address`` in the lines whose first name is ``name``, of its own family."""
    kind = r"[0-9a-fA-F:]*:[0-9a-fA-F:.]*" if ":" in address else r"[0-9.]+"
    return re.sub(rf"(?m)^{kind}\t({re.escape(name)})(?=\s|$)", rf"{address}\t\1", text)


def added_hosts(specifications: Sequence[str], gateways: Sequence[str]) -> list[Record]:
    """``--add-host`` values, ``name:address`` or ``name=address``.

    ``host-gateway`` stands for ``gateways``, the host's addresses, one of each family.
    """
    records = []
    for text in specifications:
        name, _, address = text.partition("=" if "=" in text else ":")
        addresses = gateways if address == "host-gateway" else [address.strip("[]")]
        records += [Record(each, name) for each in addresses if each]
    return records
