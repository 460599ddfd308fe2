"""Building images: ``POST /build``, as the classic builder answers it."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from wherry.engine.api.messages import Messages
from wherry.engine.api.parameters import flag, integer, no_content, version
from wherry.engine.api.routing import Route
from wherry.engine.errors import BadParameter, EngineError
from wherry.engine.image.distribution import credentials
from wherry.engine.image.manifest import parse_platform
from wherry.engine.image.progress import Message, failure
from wherry.engine.image.threads import ThreadReader, in_thread
from wherry.runtime.types import RuntimeFailure

if TYPE_CHECKING:
    from wherry.engine.build.options import Options
    from wherry.engine.engine import Engine

_NUMBERS = {
    "memory": "Memory",
    "memswap": "MemorySwap",
    "cpushares": "CpuShares",
    "cpuperiod": "CpuPeriod",
    "cpuquota": "CpuQuota",
    "shmsize": "ShmSize",
}
_TEXTS = {
    "cpusetcpus": "CpusetCpus",
    "cpusetmems": "CpusetMems",
    "cgroupparent": "CgroupParent",
    "networkmode": "NetworkMode",
}


async def build_image(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``POST /build``."""
    from wherry.engine.build.options import CommandFailed

    query = request.query
    options = _options(request)
    quiet, aux = flag(request, "q"), version(request) >= (1, 30)
    messages = Messages(request)
    kept: list[Message] = []

    async def send(message: Message) -> None:
        if "aux" in message and not aux:
            return
        if quiet:
            kept.append(message)
        else:
            await messages.send(message)

    identity = query.get("buildid", "")
    task = asyncio.current_task()
    if identity and task is not None:
        engine.builder.running[identity] = task
    try:
        image = await _build(engine, request, options, send)
        if quiet:
            await messages.send({"stream": f"{image}\n"})
    except (EngineError, OSError, RuntimeFailure) as error:
        if isinstance(error, ConnectionError) or not (messages.response.prepared or kept):
            raise
        for message in kept:
            await messages.send(message)
        text = str(error) if isinstance(error, OSError) else error.message
        told = failure(text)
        if isinstance(error, CommandFailed):
            told["errorDetail"] = {"code": error.code, "message": text}
        await messages.send(told)
    finally:
        engine.builder.running.pop(identity, None)
    await messages.response.write_eof()
    return messages.response


async def _build(
    engine: Engine, request: web.Request, options: Options, send: Callable[[Message], Any]
) -> str:
    from wherry.engine.build.remote import fetch_context
    from wherry.engine.build.sources import Context

    remote = request.query.get("remote", "")
    async with engine.builder.scratch() as scratch:
        if remote:
            context = await fetch_context(remote, options.dockerfile, scratch, send)
        else:
            reader = ThreadReader(request.content.iter_any())
            context = await in_thread(Context.receive, reader, scratch, abort=reader.abort)
        try:
            return (await engine.builder.build(options, context, scratch, send)).id
        finally:
            context.close()


async def cancel_build(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``POST /build/cancel``."""
    identity = request.query.get("id", "")
    if not identity:
        raise EngineError("build ID not provided")
    task = engine.builder.running.get(identity)
    if task is not None:
        task.cancel()
    return no_content()


def _options(request: web.Request) -> Options:
    from wherry.engine.build.options import Options

    query, spoken = request.query, version(request)
    if flag(request, "squash"):
        raise BadParameter("squash is only supported with experimental mode")
    if query.getall("securityopt", []):
        raise BadParameter(
            "The daemon on this platform does not support setting security options on build"
        )
    builder = query.get("version") or "1"
    if builder == "2":
        raise BadParameter("BuildKit is not available on this engine: use builder version 1")
    if builder != "1":
        raise BadParameter(f'invalid version "{builder}"')
    resources: dict[str, Any] = {
        field: integer(request, name) for name, field in _NUMBERS.items() if query.get(name)
    }
    resources |= {field: query[name] for name, field in _TEXTS.items() if query.get(name)}
    if ulimits := _json(request, "ulimits", "error reading ulimit settings", list):
        resources["Ulimits"] = ulimits
    if hosts := [one for text in query.getall("extrahosts", []) for one in text.split(",")]:
        resources["ExtraHosts"] = hosts
    platform = query.get("platform", "") if spoken >= (1, 32) else ""
    force = flag(request, "forcerm")
    return Options(
        dockerfile=query.get("dockerfile") or "Dockerfile",
        tags=[tag for tag in query.getall("t", []) if tag],
        target=query.get("target", ""),
        arguments=_json(request, "buildargs", "error reading build args", dict) or {},
        labels=_json(request, "labels", "error reading labels", dict) or {},
        use_cache=not flag(request, "nocache"),
        cache_from=_json(request, "cachefrom", "error reading cache-from", list) or [],
        pull=flag(request, "pull"),
        remove=force or flag(request, "rm", True),
        force_remove=force,
        platform=parse_platform(platform) if platform else None,
        resources=resources,
        credentials=_credentials(request),
    )


def _json(request: web.Request, name: str, what: str, kind: type) -> Any:
    text = request.query.get(name, "")
    if not text:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadParameter(f"{what}: {error}") from None
    if value is not None and not isinstance(value, kind):
        raise BadParameter(f"{what}: json: cannot unmarshal {text[:64]}")
    return value


def _credentials(request: web.Request) -> Mapping[str, credentials.Credentials]:
    """``X-Registry-Config``: credentials by registry; what cannot be read counts as none."""
    encoded = request.headers.get("X-Registry-Config", "")
    try:
        document = orjson.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {str(name): credentials.from_document(one) for name, one in document.items()}


ROUTES = (
    Route("POST", "/build", build_image),
    Route("POST", "/build/cancel", cancel_build),
)
