"""The shape of a plugin, and the chain that leads writes through those that want to see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context

Call = Callable[[Attributes, Context], Awaitable[None] | None]
"""Changes ``attributes.object``, or raises StatusError. One that need not wait is no coroutine:
most writes then pass without any."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Writes a plugin wants to see; empty: all. ``subresources`` (None: all) are of the resources,
    "" the object itself."""

    operations: tuple[str, ...] = ()
    resources: tuple[Resource, ...] = ()
    subresources: tuple[str, ...] | None = ("",)

    def matches(self, attributes: Attributes) -> bool:
        return (
            (not self.operations or attributes.operation in self.operations)
            and (not self.resources or any(r is attributes.resource for r in self.resources))
            and (self.subresources is None or attributes.subresource in self.subresources)
        )


def on(operations: str, *resources: Resource, subresources: tuple[str, ...] | None = ("",)) -> Rule:
    """``on("CREATE UPDATE", PODS)``; without resources: of all of them."""
    return Rule(tuple(operations.split()), resources, subresources)


EVERYTHING = Rule((), (), None)


@dataclass(frozen=True, slots=True)
class Plugin:
    """One step. ``rules``: which writes it sees. ``default``: whether it is on without being
    asked for. ``prepare`` makes the part of the context it keeps; at the start, so that a wrong
    configuration is known then (ValueError)."""

    name: str
    call: Call
    rules: tuple[Rule, ...]
    default: bool = True
    prepare: Callable[[Context], object] | None = None


class Chain:
    """Plugins in order. For each sort of write those concerned are found once."""

    def __init__(self, plugins: Iterable[Plugin], context: Context) -> None:
        self._plugins = tuple(plugins)
        self._context = context
        self._concerned: dict[tuple[str, str, str, str], tuple[Call, ...]] = {}

    async def __call__(self, attributes: Attributes) -> None:
        """Raises StatusError: a plugin refuses."""
        resource = attributes.resource
        sort = (attributes.operation, resource.plural, attributes.subresource, resource.group)
        calls = self._concerned.get(sort)
        if calls is None:
            calls = self._find(attributes, sort)
        for call in calls:
            waiting = call(attributes, self._context)
            if waiting is not None:
                await waiting

    def _find(self, attributes: Attributes, sort: tuple[str, str, str, str]) -> tuple[Call, ...]:
        if len(self._concerned) > 4096:  # definitions come and go
            self._concerned.clear()
        found = self._concerned[sort] = tuple(
            plugin.call
            for plugin in self._plugins
            if any(rule.matches(attributes) for rule in plugin.rules)
        )
        return found
