"""The shape of a resource module of the Engine API: a tuple of routes, each with its handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

Handler = Callable[["Engine", web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint; ``path`` is as in the API's reference, without the version prefix."""

    method: str
    path: str
    handler: Handler
