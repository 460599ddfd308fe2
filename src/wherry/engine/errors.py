"""What can go wrong, in the classes of the Engine API (each is one HTTP status).

The text is what the user of ``docker`` reads after ``Error response from daemon: ``; it follows
Docker's own wording wherever Docker has one.
"""

from __future__ import annotations


class EngineError(Exception):
    """An answer other than success; ``status`` is the HTTP status the Engine API gives it."""

    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadParameter(EngineError):
    """The request itself is wrong."""

    status = 400


class Unauthorized(EngineError):
    """A registry refused the credentials."""

    status = 401


class Forbidden(EngineError):
    """The request is understood and not allowed."""

    status = 403


class NotFound(EngineError):
    """No such container, image, network, volume or exec."""

    status = 404


class NotModified(EngineError):
    """It already is as asked (starting what runs, stopping what does not)."""

    status = 304


class Conflict(EngineError):
    """The state, or a name in use, does not permit it."""

    status = 409


class NotImplementedByEngine(EngineError):
    """A part of the API that this engine does not have."""

    status = 501


class Unavailable(EngineError):
    """Something the engine needs is not there."""

    status = 503
