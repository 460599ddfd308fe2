"""Errors of the engine in the words of CRI."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from wherry.engine.cri.types import CRIError, CRINotFound
from wherry.engine.errors import EngineError, NotFound
from wherry.runtime.types import RuntimeFailure

_P = ParamSpec("_P")
_R = TypeVar("_R")


def cri_errors(
    reason: str = "",
) -> Callable[[Callable[_P, Awaitable[_R]]], Callable[_P, Coroutine[Any, Any, _R]]]:
    """Errors of the method become errors of CRI; ``reason`` is the kubelet's word for them."""

    def decorate(
        method: Callable[_P, Awaitable[_R]],
    ) -> Callable[_P, Coroutine[Any, Any, _R]]:
        @functools.wraps(method)
        async def translated(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return await method(*args, **kwargs)
            except NotFound as error:
                raise CRINotFound(error.message, reason) from error
            except (EngineError, RuntimeFailure) as error:
                raise CRIError(error.message, reason) from error

        return translated

    return decorate
