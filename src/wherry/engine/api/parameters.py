"""Reading requests and writing answers, as all resource modules do it."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from wherry.engine import filters
from wherry.engine.errors import BadParameter
from wherry.engine.filters import Filters

if TYPE_CHECKING:
    from wherry.engine.api.routing import Handler
    from wherry.engine.engine import Engine

CURRENT = (1, 50)
OLDEST = (1, 24)
VERSION = "version"  # the part of a path that names it


def version(request: web.Request) -> tuple[int, int]:
    """The version of the API that the client speaks.

    Raises:
        BadParameter: it is not one that we speak.
    """
    asked = parse_version(request.match_info.get(VERSION))
    return min(asked, meant(request.headers.get("User-Agent", "")))


def meant(agent: str) -> tuple[int, int]:
    """The latest version that a client was written for, by what it calls itself.

    docker-compose 1 asks for whatever is current, and cannot do without what 1.45 took away.
    """
    return (1, 44) if agent.startswith("docker-compose/1.") else CURRENT


def parse_version(text: str | None) -> tuple[int, int]:
    """The version in a path; the current one where the path has none.

    Raises:
        BadParameter: it is not one that we speak.
    """
    if text is None:
        return CURRENT
    numbers = [int(part or 0) for part in text.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    if tuple(numbers) < OLDEST:
        raise BadParameter(
            f"client version {text} is too old. Minimum supported API version is "
            f"{OLDEST[0]}.{OLDEST[1]}, please upgrade your client to a newer version"
        )
    if tuple(numbers) > CURRENT:
        raise BadParameter(
            f"client version {text} is too new. Maximum supported API version is "
            f"{CURRENT[0]}.{CURRENT[1]}"
        )
    return numbers[0], numbers[1]


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """A boolean parameter: everything is true but nothing, 0, no, false and none."""
    value = request.query.get(name)
    if value is None:
        return default
    return value.strip().lower() not in ("", "0", "no", "false", "none")


def integer(request: web.Request, name: str, default: int = 0) -> int:
    """A number.

    Raises:
        BadParameter: it is none.
    """
    text = request.query.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"[+-]?\d+", text):
        raise BadParameter(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def required_integer(request: web.Request, name: str) -> int:
    """A number that must be given.

    Raises:
        BadParameter: it is not, or is none.
    """
    if not request.query.get(name):
        raise BadParameter('strconv.Atoi: parsing "": invalid syntax')
    return integer(request, name)


def optional_integer(request: web.Request, name: str) -> int | None:
    """A number, or None where the parameter is not given."""
    return integer(request, name) if request.query.get(name) else None


def filter_parameter(request: web.Request) -> Filters:
    """The ``filters`` parameter."""
    return filters.parse(request.query.get("filters", ""))


async def json_body(request: web.Request, *, required: bool = True) -> Any:
    """The document in the body; None where there is none and it is not ``required``.

    Raises:
        BadParameter: it is missing, of another media type, or no JSON.
    """
    data = await request.read()
    if not data:
        if required:
            raise BadParameter("invalid JSON: got EOF while reading request body")
        return None
    _check_json(request.headers.get("Content-Type", ""))
    try:
        return orjson.loads(data)
    except ValueError:
        return _first_value(data)


def _check_json(kind: str) -> None:
    media = kind.partition(";")[0].strip().lower()
    if not media:
        raise BadParameter(f"malformed Content-Type header ({kind}): mime: no media type")
    if media != "application/json":
        raise BadParameter(f"unsupported Content-Type header ({kind}): must be 'application/json'")


def _first_value(data: bytes) -> Any:
    """What dockerd, which reads values from a stream, makes of a body that is not one value."""
    from wherry.wire.json_syntax import first_value

    end, fault = first_value(data)
    if fault:
        raise BadParameter(f"invalid JSON: {fault}")
    if data[end:].strip(b" \t\r\n")[:1] not in (b"", b"}", b"]"):
        raise BadParameter("unexpected content after JSON")
    try:
        return orjson.loads(data[:end])
    except ValueError as error:
        # Go takes it for JSON; orjson is stricter about surrogates and the size of numbers.
        raise BadParameter(f"invalid JSON: {error}") from None


def json_response(
    document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """``document`` as an answer."""
    return web.Response(
        body=orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE),
        status=status,
        content_type="application/json",
        headers=headers,
    )


def no_content() -> web.Response:
    """Done, and there is nothing to say."""
    return web.Response(status=204)


def uninterrupted(
    handler: Callable[[Engine, web.Request], Coroutine[Any, Any, web.StreamResponse]],
) -> Handler:
    """A handler that goes on when its client leaves, for what must not stop half-way."""

    @functools.wraps(handler)
    async def shielded(engine: Engine, request: web.Request) -> web.StreamResponse:
        return await asyncio.shield(engine.in_flight(handler(engine, request)))

    return shielded
