"""Registries over HTTP: logging in, pushing, and what they have under a name.

Pulling is ``POST /images/create``, in ``images``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiohttp import web

from wherry.engine.api.messages import Messages
from wherry.engine.api.parameters import json_body, json_response
from wherry.engine.api.routing import Route
from wherry.engine.errors import BadParameter
from wherry.engine.image import progress
from wherry.engine.image.distribution.credentials import Credentials, from_document, read
from wherry.engine.image.distribution.endpoints import REGISTRY_OF_DOCKER, endpoints
from wherry.engine.image.distribution.registry import log_in
from wherry.engine.image.reference import DEFAULT_DOMAIN, LEGACY_DOMAIN, normalise, parse

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


def credentials(request: web.Request) -> Credentials:
    """What the request says of its user."""
    return read(request.headers.get("X-Registry-Auth", ""))


async def tell_all(
    request: web.Request, telling: AsyncGenerator[progress.Message, None]
) -> web.StreamResponse:
    """The answer that streams all messages of ``telling``."""
    async with Messages(request) as messages, aclosing(telling):
        async for message in telling:
            await messages.send(message)
    return messages.response


async def push(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``POST /images/{name}/push``; without a tag, all tags of the repository."""
    reference = parse(request.match_info["name"])
    if reference.digest:
        raise BadParameter("cannot push a digest reference")
    if tag := request.query.get("tag", ""):
        reference = reference.with_tag(tag)
    pushing = engine.images.distribution.push(reference, credentials(request))
    return await tell_all(request, pushing)


async def describe(engine: Engine, request: web.Request) -> web.Response:
    """``GET /distribution/{name}/json``."""
    reference = normalise(request.match_info["name"])
    distribution = engine.images.distribution
    return json_response(await distribution.describe(reference, credentials(request)))


async def log_in_to(engine: Engine, request: web.Request) -> web.Response:
    """``POST /auth``: would the registry take these credentials?"""
    document = await json_body(request)
    given = document if isinstance(document, dict) else {}
    address = str(given.get("serveraddress") or DEFAULT_DOMAIN)
    domain = (address.partition("://")[2] or address).partition("/")[0]
    if domain in (LEGACY_DOMAIN, REGISTRY_OF_DOCKER):
        domain = DEFAULT_DOMAIN
    await log_in(endpoints(domain, engine.images.distribution.settings), from_document(given))
    return json_response({"Status": "Login Succeeded", "IdentityToken": ""})


ROUTES = (
    Route("POST", "/auth", log_in_to),
    Route("POST", "/images/{name:.+}/push", push),
    Route("GET", "/distribution/{name:.+}/json", describe),
)
