"""Failures in the form clients know: the ``Status`` object of meta/v1, with reason and causes.

The same exception is raised on both sides: the API server answers with ``error.status()``, the
client raises what it read. Texts follow k8s.io/apimachinery/pkg/api/errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault in one field; ``str()`` is upstream's sentence for it.

    ``reason`` is a CauseType: FieldValueRequired, FieldValueInvalid, FieldValueNotSupported,
    FieldValueDuplicate, FieldValueForbidden, FieldValueTooLong, FieldValueNotFound,
    FieldValueTypeInvalid, FieldValueTooMany. ``detail`` is the whole text behind the path.
    """

    field: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.field}: {self.detail}"


class StatusError(Exception):
    """An answer other than success from the API."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = headers or {}
        self.metadata = metadata or {}

    def status(self) -> dict[str, Any]:
        """The ``Status`` object that tells of this failure."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": dict(self.metadata),
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = dict(self.details)
        body["code"] = self.code
        return body

    @classmethod
    def from_status(cls, status: Mapping[str, Any], code: int = 500) -> Self:
        """The failure that a received ``Status`` tells of."""
        return cls(
            int(status.get("code") or code),
            str(status.get("reason") or ""),
            str(status.get("message") or ""),
            details=status.get("details"),
            metadata=status.get("metadata"),
        )


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def _details(resource: str, group: str, name: str) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    details["kind"] = resource
    return details


def not_found(resource: str, name: str, group: str = "") -> StatusError:
    """404: no object of that name (``resource`` is the plural)."""
    return StatusError(
        404,
        "NotFound",
        f'{_qualified(resource, group)} "{name}" not found',
        details=_details(resource, group, name),
    )


def already_exists(resource: str, name: str, group: str = "") -> StatusError:
    """409: the name is taken."""
    return StatusError(
        409,
        "AlreadyExists",
        f'{_qualified(resource, group)} "{name}" already exists',
        details=_details(resource, group, name),
    )


def conflict(resource: str, name: str, why: str, group: str = "") -> StatusError:
    """409: the object is no longer what the request was based on."""
    return StatusError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {why}',
        details=_details(resource, group, name),
    )


MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def invalid(kind: str, name: str, errors: Sequence[FieldError], group: str = "") -> StatusError:
    """422: the object breaks rules of its kind (``kind`` in CamelCase)."""
    texts = [str(error) for error in errors]
    unique = list(dict.fromkeys(texts))
    summary = unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"
    details = _details(kind, group, name)
    details["causes"] = [
        {"reason": e.reason, "message": e.detail, "field": e.field} for e in errors
    ]
    return StatusError(
        422,
        "Invalid",
        f'{_qualified(kind, group)} "{name}" is invalid: {summary}',
        details=details,
    )


def bad_request(message: str) -> StatusError:
    """400: the request makes no sense."""
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    """401: nobody we know."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: str, name: str, why: str, group: str = "") -> StatusError:
    """403: known, and not allowed."""
    subject = f'{_qualified(resource, group)} "{name}"' if name else _qualified(resource, group)
    return StatusError(
        403,
        "Forbidden",
        f"{subject} is forbidden: {why}",
        details=_details(resource, group, name),
    )


def expired(message: str) -> StatusError:
    """410: the revision is older than what is kept."""
    return StatusError(410, "Expired", message)
