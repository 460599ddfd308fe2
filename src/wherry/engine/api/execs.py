"""Exec: more processes in running containers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from wherry.engine.api.parameters import (
    integer,
    json_body,
    json_response,
    uninterrupted,
)
from wherry.engine.api.routing import Route
from wherry.engine.api.streams import take_over
from wherry.engine.container import detach, options
from wherry.engine.container.execs import Exec

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
    "Cmd": (options.STRINGS, []),
}


async def create_exec(engine: Engine, request: web.Request) -> web.Response:
    container = engine.containers.get(request.match_info["id"])
    body = options.decode(_FIELDS, await json_body(request), "ExecOptions")
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
            detach_keys=detach.parse(body["DetachKeys"]),
        )
    )
    return json_response({"Id": exec_.id}, 201)


async def start_exec(engine: Engine, request: web.Request) -> web.StreamResponse:
    execs = engine.containers.execs
    exec_ = execs.get(request.match_info["id"])
    body = await json_body(request, required=False) or {}
    execs.check_startable(exec_)
    if body.get("Detach"):
        await asyncio.shield(engine.in_flight(execs.run_detached(exec_)))
        return web.Response()
    if size := body.get("ConsoleSize"):
        exec_.size = (int(size[1]), int(size[0]))
    client = take_over(request, tty=exec_.tty)
    try:
        await execs.run_attached(exec_, client)
    except ConnectionError:
        return client.response  # the client has left
    finally:
        await client.close()
    return client.response


@uninterrupted
async def resize_exec(engine: Engine, request: web.Request) -> web.Response:
    execs = engine.containers.execs
    exec_ = execs.get(request.match_info["id"])
    await execs.resize(exec_, integer(request, "w"), integer(request, "h"))
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
