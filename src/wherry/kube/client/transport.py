"""What carries a component's requests to an API server.

Two implementations, which a component cannot tell apart: HTTPS (``https``), and the API server's
own in-memory transport where both live in one process. Objects that come back may be shared with
other readers and must never be changed in place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

Object = dict[str, Any]
"""An API object as JSON has it. Shared and read-only once received."""

Query = Sequence[tuple[str, str]]
"""Query parameters in order; a name may repeat."""


class Transport(Protocol):
    """Requests by path, watches as streams."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: object = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request; ``body`` is a JSON value. Returns the decoded answer.

        Raises:
            StatusError: the API answered with a failure.
            ConnectionError: the API server cannot be reached.
        """

    def watch(self, path: str, query: Query = ()) -> AsyncIterator[tuple[str, Object]]:
        """The events of a watch as (ADDED, MODIFIED, DELETED, BOOKMARK, object).

        Ends when the server ends it. An ERROR event is raised as StatusError (410 where the
        revision is too old), a broken connection as ConnectionError.
        """

    async def close(self) -> None:
        """Give connections back."""
