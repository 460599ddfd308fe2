"""The HTTP server: versions, routes, errors."""

from __future__ import annotations

import logging
import platform
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from wherry import __version__
from wherry.engine.api import (
    archive,
    build,
    containers,
    events,
    execs,
    images,
    networks,
    registries,
    streams,
    system,
    volumes,
)
from wherry.engine.api.listeners import BACKLOG, TLSAddress, TLSListener, bind_unix
from wherry.engine.api.parameters import CURRENT, VERSION, json_response, version
from wherry.engine.errors import EngineError, NotModified
from wherry.runtime.types import RuntimeFailure

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger(__name__)

MODULES = (
    system,
    events,
    containers,
    streams,
    archive,
    execs,
    images,
    build,
    registries,
    networks,
    volumes,
)
# A body of JSON is small; images are streamed and not limited by this.
BODY_LIMIT = 16 << 20
HEADERS = {
    "Api-Version": "{}.{}".format(*CURRENT),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Wherry/{__version__} ({platform.system().lower()})",
}

_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(engine: Engine) -> web.Application:
    """The whole API on ``engine``."""
    app = web.Application(middlewares=[_middleware], client_max_size=BODY_LIMIT)
    app.on_response_prepare.append(_add_headers)
    for module in MODULES:
        for route in module.ROUTES:
            handler = _bound(engine, route.handler)
            app.router.add_route(route.method, route.path, handler)
            app.router.add_route(route.method, f"/v{{{VERSION}:[0-9.]+}}{route.path}", handler)
    return app


def _bound(
    engine: Engine, handler: Callable[[Engine, web.Request], Awaitable[web.StreamResponse]]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def bound(request: web.Request) -> web.StreamResponse:
        return await handler(engine, request)

    return bound


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


@web.middleware
async def _middleware(request: web.Request, handler: _Next) -> web.StreamResponse:
    """Judge the version; turn errors into answers."""
    try:
        version(request)
        return await handler(request)
    except NotModified:
        return web.Response(status=304)
    except EngineError as error:
        return json_response({"message": error.message}, error.status)
    except RuntimeFailure as failure:
        return json_response({"message": failure.message}, 500)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        return json_response({"message": "page not found"}, 404)
    except web.HTTPRequestEntityTooLarge:
        return json_response({"message": "http: request body too large"}, 400)
    except (ConnectionError, web.HTTPException):
        raise
    except Exception as error:
        log.exception("%s %s", request.method, request.path)
        return json_response({"message": f"{type(error).__name__}: {error}"}, 500)


class Server:
    """Serves an engine on a unix socket and, where wanted, on TCP with TLS."""

    def __init__(self, engine: Engine) -> None:
        # A handler is cancelled when its client leaves; those that must not be say so themselves.
        self._runner = web.AppRunner(
            application(engine), access_log=None, handler_cancellation=True, shutdown_timeout=0.2
        )
        self._path: Path | None = None
        self._tcp: TLSListener | None = None

    async def listen(self, path: Path, tcp: TLSAddress | None = None) -> None:
        """Begin to serve at ``path``, for root and group docker, and at ``tcp``.

        Raises:
            EngineError: the TCP address or its keys cannot be used.
        """
        await self._runner.setup()
        await web.SockSite(self._runner, bind_unix(path), backlog=BACKLOG).start()
        self._path = path
        if tcp is not None:
            assert self._runner.server is not None
            self._tcp = TLSListener(tcp, self._runner.server)
            await self._tcp.listen()

    def reload(self) -> None:
        """Take up keys that were renewed."""
        if self._tcp is not None:
            self._tcp.reload()

    async def close(self) -> None:
        """Serve no longer; streams that clients hold are cut off."""
        if self._tcp is not None:
            self._tcp.close()
        await self._runner.cleanup()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
