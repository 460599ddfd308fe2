"""Making new images out of tar archives (blocking, for a worker thread)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, cast

import orjson

from wherry.engine.errors import BadParameter
from wherry.engine.image.catalog import Record
from wherry.engine.image.content import Content, Layer, Lease
from wherry.engine.image.image import Image
from wherry.engine.image.layers import add_layer, spool, storable
from wherry.engine.image.loading import store_image
from wherry.engine.image.manifest import Platform, chain_ids, digest_of, host_platform


@dataclass(frozen=True, slots=True)
class Addition:
    """An image whose content is in the store; it exists once the catalog has the record."""

    id: str
    record: Record


def add_root(
    lease: Lease,
    source: io.RawIOBase,
    message: str,
    changes: Sequence[str],
    platform: Platform | None,
) -> Addition:
    """``docker import``: one layer from the archive in ``source``, settings from ``changes``.

    Raises:
        BadParameter: an instruction or the archive is wrong.
    """
    wanted = platform or host_platform()
    if wanted.os != "linux":
        raise BadParameter("operating system is not supported")
    settings = _changed(changes)
    layer = _new_layer(lease, source, None, [])
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    config: dict[str, Any] = {
        "architecture": wanted.architecture,
        "comment": message,
        "config": settings,
        "created": created,
        "history": [{"created": created, "comment": message}],
        "os": wanted.os,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    }
    if wanted.variant:
        config["variant"] = wanted.variant
    return _addition(lease, config, [layer], "")


def _changed(changes: Sequence[str]) -> dict[str, Any]:
    if not changes:
        return {}
    from wherry.engine.image import changes as instructions

    return instructions.apply({}, changes)


def add_layered(
    content: Content,
    lease: Lease,
    config: Mapping[str, Any],
    base: Image | None,
    sources: Sequence[io.RawIOBase],
    parent: str,
) -> Addition:
    """An image of the layers of ``base`` and one new layer for each of ``sources``.

    Raises:
        BadParameter: an archive is wrong, or the base is gone.
    """
    layers: list[Layer] = []
    chain: list[str] = []
    for one in base.chain if base is not None else ():
        layer = lease.use_layer(one)
        if layer is None:
            raise BadParameter(f"layer {one} of the base image is gone")
        layers.append(layer)
        chain.append(one)
    for source in sources:
        lower = [content.diff(one) for one in reversed(chain)]
        layers.append(_new_layer(lease, source, chain[-1] if chain else None, lower))
        chain = list(chain_ids([layer.diff_id for layer in layers]))
    whole = dict(config)
    whole["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    return _addition(lease, whole, layers, parent)


def _new_layer(
    lease: Lease, source: io.RawIOBase, below: str | None, lower: Sequence[Any]
) -> Layer:
    path, digest, _ = spool(cast(IO[bytes], source), lease.scratch)
    path, digest, diff_id = storable(lease, path, digest)
    chain = diff_id if below is None else digest_of(f"{below} {diff_id}".encode())
    existing = lease.use_layer(chain)
    if existing is not None:
        return existing
    return add_layer(lease, chain, diff_id, path, digest, lower)


def _addition(
    lease: Lease, config: Mapping[str, Any], layers: list[Layer], parent: str
) -> Addition:
    data = orjson.dumps(config, option=orjson.OPT_SORT_KEYS)
    chain = chain_ids([layer.diff_id for layer in layers])
    record = store_image(lease, data, chain, layers, parent=parent)
    return Addition(digest_of(data), record)
