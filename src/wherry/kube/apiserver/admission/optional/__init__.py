"""Plugins that are off until they are asked for (``--enable-admission-plugins``). They are loaded
when the first write meets them."""

from __future__ import annotations

from collections.abc import Awaitable
from importlib import import_module

from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.plugin import Call


def lazy(module: str, function: str) -> Call:
    """``function`` of a module of this package, loaded when it is called."""
    loaded: list[Call] = []

    def call(attributes: Attributes, context: Context) -> Awaitable[None] | None:
        if not loaded:
            loaded.append(getattr(import_module(f"{__name__}.{module}"), function))
        return loaded[0](attributes, context)

    return call


def event_rates(context: Context) -> object:
    """What EventRateLimit keeps. Raises ValueError: its configuration is wrong."""
    from wherry.kube.apiserver.admission.optional.event_rate import Limits

    return context.part(Limits)
