"""Exec: more processes in running containers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from wherry.engine.api.parameters import (
    json_body,
    json_response,
    required_integer,
    uninterrupted,
)
from wherry.engine.api.routing import Route
from wherry.engine.api.streams import take_over
from wherry.engine.container import detach, options
from wherry.engine.container.execs import Exec
from wherry.engine.errors import BadParameter

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_FIELDS = {
    "User": (options.STRING, ""),
    "Privileged": (options.BOOL, False),
    "Tty": (options.BOOL, False),
    "AttachStdin": (options.BOOL, False),
    "AttachStderr": (options.BOOL, False),
    "AttachStdout": (options.BOOL, False),
    "DetachKeys": (options.STRING, ""),
    "Env": (options.STRINGS, []),
    "WorkingDir": (options.STRING, ""),
    "ConsoleSize": ("[2]uint", None),
    "Cmd": (options.STRINGS, []),
}


async def create_exec(engine: Engine, request: web.Request) -> web.Response:
    body = options.decode(_FIELDS, await json_body(request), "ExecOptions")
    if not body["Cmd"]:
        raise BadParameter("No exec command specified")
    container = engine.containers.get(request.match_info["id"])
    keys = body["DetachKeys"]
    exec_ = engine.containers.execs.add(
        Exec(
            container,
            body["Cmd"],
            tty=body["Tty"],
            stdin=body["AttachStdin"],
            stdout=body["AttachStdout"],
            stderr=body["AttachStderr"],
            user=body["User"],
            working_dir=body["WorkingDir"],
            env=body["Env"],
            privileged=body["Privileged"],
            detach_keys=detach.parse(keys, "escape") if keys else b"",
            size=_size(body["ConsoleSize"]),
        ),
        request.match_info["id"],
    )
    return json_response({"Id": exec_.id}, 201)


def _size(console_size: list[int] | None) -> tuple[int, int] | None:
    """Width and height of the API's height and width."""
    if console_size is None or len(console_size) != 2:
        return None
    return console_size[1], console_size[0]


_START_FIELDS = {
    "Detach": (options.BOOL, False),
    "Tty": (options.BOOL, False),
    "ConsoleSize": ("[2]uint", None),
}


async def start_exec(engine: Engine, request: web.Request) -> web.StreamResponse:
    execs = engine.containers.execs
    body = options.decode(_START_FIELDS, await json_body(request), "ExecStartOptions")
    exec_ = execs.get(request.match_info["id"])
    execs.check_startable(exec_)
    exec_.size = _size(body["ConsoleSize"]) or exec_.size
    if body["Detach"]:
        await asyncio.shield(engine.in_flight(execs.run_detached(exec_)))
        return web.Response()
    # How the output is read is for the client to say, as what it says here is all it may know.
    client = take_over(request, tty=body["Tty"])
    try:
        await execs.run_attached(exec_, client, framed=not body["Tty"])
    except ConnectionError:
        return client.response  # the client has left
    finally:
        await client.close()
    return client.response


@uninterrupted
async def resize_exec(engine: Engine, request: web.Request) -> web.Response:
    height, width = required_integer(request, "h"), required_integer(request, "w")
    execs = engine.containers.execs
    exec_ = execs.get(request.match_info["id"])
    await execs.resize(exec_, width, height)
    return web.Response()


async def inspect_exec(engine: Engine, request: web.Request) -> web.Response:
    execs = engine.containers.execs
    return json_response(execs.inspect(execs.get(request.match_info["id"])))


ROUTES = (
    Route("POST", "/containers/{id}/exec", create_exec),
    Route("POST", "/exec/{id}/start", start_exec),
    Route("POST", "/exec/{id}/resize", resize_exec),
    Route("GET", "/exec/{id}/json", inspect_exec),
)
