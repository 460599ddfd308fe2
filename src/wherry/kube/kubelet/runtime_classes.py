"""Which of the runtime's handlers a pod's ``runtimeClassName`` means.

https://kubernetes.io/docs/concepts/containers/runtime-class/. A handler never changes, so one that
was found is not asked for again.
"""

from __future__ import annotations

from typing import Any

from wherry.kube.api.resources import RUNTIME_CLASSES
from wherry.kube.client.client import Client

Object = dict[str, Any]


class RuntimeClasses:
    """Handlers by the names of their classes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._handlers: dict[str, str] = {}

    async def handler(self, pod: Object) -> str:
        """The handler for ``pod``; empty for the usual one.

        Raises:
            StatusError: there is no such class.
            ConnectionError: the API cannot be reached.
        """
        name = pod["spec"].get("runtimeClassName") or ""
        if not name:
            return ""
        if name not in self._handlers:
            found = await self._client.get(RUNTIME_CLASSES, name)
            self._handlers[name] = str(found.get("handler") or "")
        return self._handlers[name]
