"""The errors of the distribution specification: a code, its message, and the HTTP status."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

# Code: status and the message that clients show.
CODES: dict[str, tuple[HTTPStatus, str]] = {
    "BLOB_UNKNOWN": (HTTPStatus.NOT_FOUND, "blob unknown to registry"),
    "BLOB_UPLOAD_INVALID": (HTTPStatus.BAD_REQUEST, "blob upload invalid"),
    "BLOB_UPLOAD_UNKNOWN": (HTTPStatus.NOT_FOUND, "blob upload unknown to registry"),
    "DENIED": (HTTPStatus.FORBIDDEN, "requested access to the resource is denied"),
    "DIGEST_INVALID": (
        HTTPStatus.BAD_REQUEST,
        "provided digest did not match uploaded content",
    ),
    "MANIFEST_BLOB_UNKNOWN": (
        HTTPStatus.NOT_FOUND,
        "manifest references a manifest or blob unknown to registry",
    ),
    "MANIFEST_INVALID": (HTTPStatus.BAD_REQUEST, "manifest invalid"),
    "MANIFEST_UNKNOWN": (HTTPStatus.NOT_FOUND, "manifest unknown"),
    "NAME_INVALID": (HTTPStatus.BAD_REQUEST, "invalid repository name"),
    "NAME_UNKNOWN": (HTTPStatus.NOT_FOUND, "repository name not known to registry"),
    "PAGINATION_NUMBER_INVALID": (
        HTTPStatus.BAD_REQUEST,
        "invalid number of results requested",
    ),
    "RANGE_INVALID": (HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "invalid content range"),
    "SIZE_INVALID": (
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "provided length did not match content length, or is over the limit",
    ),
    "TAG_INVALID": (HTTPStatus.BAD_REQUEST, "manifest tag did not match URI"),
    "UNAUTHORIZED": (HTTPStatus.UNAUTHORIZED, "authentication required"),
    "UNSUPPORTED": (HTTPStatus.METHOD_NOT_ALLOWED, "the operation is unsupported"),
}


class RegistryError(Exception):
    """What a request fails with; ``detail`` is whatever helps to find the reason."""

    def __init__(self, code: str, detail: Any = None) -> None:
        super().__init__(code)
        self.code = code
        self.status, self.message = CODES[code]
        self.detail = detail
        self.headers: dict[str, str] = {}

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        entry = {"code": self.code, "message": self.message}
        if self.detail is not None:
            entry["detail"] = self.detail
        return {"errors": [entry]}
