"""Carrying out what ``slices.Changes`` says."""

from __future__ import annotations

import asyncio

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import ENDPOINT_SLICES
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Controller, namespace_is_leaving
from wherry.kube.controllers.endpoints.slices import Changes


async def write(controller: Controller, changes: Changes) -> None:
    """Write the slices as ``controller``, which watches them; returns when its copy shows them.

    Raises:
        StatusError: one could not be written.
    """
    client = controller.client

    async def create(slice: Object) -> None:
        try:
            made = await client.create(ENDPOINT_SLICES, slice)
        except StatusError as error:
            if not namespace_is_leaving(error):
                raise
            return
        await controller.seen(ENDPOINT_SLICES, made)

    async def update(slice: Object) -> None:
        await controller.seen(ENDPOINT_SLICES, await client.update(ENDPOINT_SLICES, slice))

    async def delete(slice: Object) -> None:
        try:
            await client.delete(
                ENDPOINT_SLICES, meta.name(slice), meta.namespace(slice), uid=meta.uid(slice)
            )
        except StatusError as error:
            if error.code != 404:
                raise

    await asyncio.gather(*map(create, changes.create))
    await asyncio.gather(*map(update, changes.update))
    await asyncio.gather(*map(delete, changes.delete))
