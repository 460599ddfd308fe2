"""Images over HTTP (Docker Engine API reference, "Images")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from wherry.engine import filters
from wherry.engine.api.messages import Messages
from wherry.engine.api.parameters import filter_parameter, flag, json_response, version
from wherry.engine.api.registries import credentials, tell_all
from wherry.engine.api.routing import Route
from wherry.engine.errors import BadParameter, Forbidden
from wherry.engine.image import progress
from wherry.engine.image.distribution.http import open_url
from wherry.engine.image.distribution.search import search
from wherry.engine.image.image import Image
from wherry.engine.image.manifest import Platform, parse_platform, platform_of
from wherry.engine.image.reference import SHA256, Reference, parse
from wherry.engine.image.store import check_platform

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


async def list_images(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``GET /images/json``."""
    query, spoken = request.query, version(request)
    wanted = filter_parameter(request)
    if spoken < (1, 41) and query.get("filter"):
        wanted = filters.parse(orjson.dumps({"reference": [query["filter"]]}).decode())
    return json_response(
        await engine.images.summaries(
            wanted,
            all_=flag(request, "all"),
            shared_size=spoken >= (1, 42) and flag(request, "shared-size"),
            manifests=spoken >= (1, 47) and flag(request, "manifests"),
            version=spoken,
        )
    )


async def inspect_image(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``GET /images/{name}/json``."""
    image = engine.images.resolve(request.match_info["name"])
    if version(request) >= (1, 49):
        check_platform(image, _json_platform(request))
    return json_response(engine.images.inspect(image, version(request)))


async def image_history(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``GET /images/{name}/history``."""
    image = engine.images.resolve(request.match_info["name"])
    if version(request) >= (1, 48):
        check_platform(image, _json_platform(request))
    return json_response(engine.images.history(image))


async def create_image(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``POST /images/create``: a pull (``fromImage``) or an import (``fromSrc``)."""
    if request.query.get("fromImage"):
        return await _pull(engine, request)
    return await _import(engine, request)


async def _pull(engine: Engine, request: web.Request) -> web.StreamResponse:
    reference = parse(request.query["fromImage"].removesuffix(":"))
    tag = request.query.get("tag", "")
    if SHA256.fullmatch(tag):
        reference = Reference(reference.domain, reference.path, digest=tag)
    elif tag:
        reference = reference.with_tag(tag)
    if reference.familiar_name == "scratch":
        raise Forbidden("'scratch' is a reserved name")
    pulling = engine.images.distribution.pull(
        reference,
        credentials(request),
        platform=_platform(request),
        all_tags=not (reference.tag or reference.digest),
    )
    return await tell_all(request, pulling)


async def _import(engine: Engine, request: web.Request) -> web.StreamResponse:
    query = request.query
    source, target = query.get("fromSrc", ""), query.get("repo", "")
    if target:
        target = str(_tagged(target, query.get("tag", "")))
    message = query.get("message") or f"Imported from {source}"
    changes = query.getall("changes", [])
    platform = _platform(request)

    async def bring_in(stream: AsyncIterator[bytes]) -> str:
        image: Image = await engine.images.import_(
            stream, reference=target, message=message, changes=changes, platform=platform
        )
        return image.id

    if source == "-":
        identity = await bring_in(request.content.iter_any())
        return await _stream(request, progress.status(identity))
    if not source:
        raise BadParameter("fromSrc or fromImage must be given")
    url = source if "://" in source else f"http://{source}"
    async with Messages(request) as messages:

        async def fetch(answer: Any) -> str:
            await messages.send(progress.status(f"Downloading from {url}"))
            return await bring_in(answer.content.iter_any())

        await messages.send(progress.status(await open_url(url, fetch)))
    return messages.response


async def load_images(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``POST /images/load``."""
    platform = _json_platform(request) if version(request) >= (1, 48) else None
    quiet = flag(request, "quiet", True)
    async with Messages(request) as messages:
        await messages.start()
        stream = request.content.iter_any()
        loading = engine.images.load(stream, quiet=quiet, platform=platform)
        async with aclosing(loading):
            async for message in loading:
                await messages.send(message)
    return messages.response


async def save_images(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``GET /images/get`` and ``GET /images/{name}/get``."""
    name = request.match_info.get("name")
    names = [name] if name else request.query.getall("names", [])
    platform = _json_platform(request) if version(request) >= (1, 48) else None
    archive = await engine.images.save(names, platform)
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    async with aclosing(archive):
        first = await anext(archive)
        await response.prepare(request)
        await response.write(first)
        async for piece in archive:
            await response.write(piece)
    await response.write_eof()
    return response


async def tag_image(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``POST /images/{name}/tag``."""
    target = _tagged(request.query.get("repo", ""), request.query.get("tag", ""))
    await engine.images.tag(request.match_info["name"], str(target))
    return web.Response(status=201)


async def remove_image(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``DELETE /images/{name}``."""
    name = request.match_info["name"]
    if not name.strip():
        raise BadParameter("image name cannot be blank")
    return json_response(
        await engine.images.remove(
            name, force=flag(request, "force"), noprune=flag(request, "noprune")
        )
    )


async def prune_images(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``POST /images/prune``."""
    return json_response(await engine.images.prune(filter_parameter(request)))


async def search_images(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``GET /images/search``, which asks Docker Hub."""
    query = request.query
    limit = query.get("limit", "")
    if limit and (not limit.isdigit() or int(limit) > 100):
        raise BadParameter("invalid limit specified: must be a number between 1 and 100")
    wanted = filter_parameter(request)
    wanted.check(("is-automated", "is-official", "stars"))
    for stars in wanted.get("stars"):
        if not stars.isdigit():
            raise BadParameter(f"invalid filter 'stars=[{stars}]'")
    official = wanted.flag("is-official") if "is-official" in wanted else None
    least = max((int(stars) for stars in wanted.get("stars")), default=0)
    found = await search(
        query.get("term", ""),
        int(limit or 0),
        credentials(request),
        engine.images.distribution.settings,
    )
    return json_response(
        [
            one
            for one in found
            if one["star_count"] >= least and official in (None, one["is_official"])
        ]
    )


async def _stream(request: web.Request, *messages: progress.Message) -> web.StreamResponse:
    async with Messages(request) as stream:
        for message in messages:
            await stream.send(message)
    return stream.response


def _tagged(repository: str, tag: str) -> Reference:
    reference = parse(repository)
    if reference.digest:
        raise BadParameter("refusing to create a tag with a digest reference")
    return reference.with_tag(tag) if tag else reference.with_default_tag()


def _platform(request: web.Request) -> Platform | None:
    """``platform=linux/amd64`` (API 1.32)."""
    text = request.query.get("platform", "")
    return parse_platform(text) if text and version(request) >= (1, 32) else None


def _json_platform(request: web.Request) -> Platform | None:
    """``platform={"os": …}`` (API 1.48)."""
    texts = request.query.getall("platform", [])
    if len(texts) > 1:
        raise BadParameter("multiple platform parameters not supported")
    if not texts or not texts[0]:
        return None
    try:
        document = orjson.loads(texts[0])
    except orjson.JSONDecodeError as error:
        raise BadParameter(f"failed to parse platform: {error}") from None
    if not isinstance(document, dict) or not document.get("os") or not document.get("architecture"):
        raise BadParameter("both OS and Architecture must be provided")
    return platform_of(document)


ROUTES = (
    Route("GET", "/images/json", list_images),
    Route("GET", "/images/search", search_images),
    Route("GET", "/images/get", save_images),
    Route("POST", "/images/create", create_image),
    Route("POST", "/images/load", load_images),
    Route("POST", "/images/prune", prune_images),
    Route("GET", "/images/{name:.+}/json", inspect_image),
    Route("GET", "/images/{name:.+}/history", image_history),
    Route("GET", "/images/{name:.+}/get", save_images),
    Route("POST", "/images/{name:.+}/tag", tag_image),
    Route("DELETE", "/images/{name:.*}", remove_image),
)
