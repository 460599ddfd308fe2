"""The networks of an engine as they lie on the disk."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from wherry.engine.errors import EngineError
from wherry.engine.network.network import Network
from wherry.host.files import write_atomic

FORMAT = 2


def write(path: Path, site: str, networks: Iterable[Network], *, durable: bool) -> None:
    """Put the engine's networks, and its range of unique local addresses, in place of those there.

    ``durable`` is whether they must have come as far as the disk.
    """
    entries = [network.to_document() for network in networks]
    document = {"format": FORMAT, "site": site, "networks": entries}
    write_atomic(path, orjson.dumps(document, option=orjson.OPT_INDENT_2), durable=durable)


def read(path: Path) -> dict[str, Any]:
    """The document of networks, in its present form; an empty one where there is none.

    Raises:
        EngineError: it is from a later version.
    """
    try:
        document: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        document = {"format": FORMAT, "site": _new_site(), "networks": []}
    if document.get("format") == 1:
        document = {
            "format": FORMAT,
            "site": _new_site(),
            "networks": [_from_first_format(entry) for entry in document["networks"]],
        }
    if document.get("format") != FORMAT:
        raise EngineError(f"{path} is of a format that this version does not know")
    return document


def _from_first_format(entry: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("name", "driver", "id", "created_at", "internal", "options", "labels")
    network = {key: entry[key] for key in kept} | {"link": entry["bridge"], "subnets": []}
    if entry["subnet"]:
        network["subnets"] = [{"cidr": entry["subnet"], "gateway": entry["gateway"]}]
    return network


def _new_site() -> str:
    """A /48 of unique local addresses that nobody else is likely to have (RFC 4193)."""
    packed = b"\xfd" + secrets.token_bytes(5) + bytes(10)
    return f"{ipaddress.IPv6Address(packed)}/48"
