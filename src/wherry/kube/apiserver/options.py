"""The parameters of requests: ListOptions, DeleteOptions and the like, read and checked.

Upstream: k8s.io/apimachinery/pkg/apis/meta/v1 (types, validation) and .../internalversion.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import orjson

from wherry.kube.api.errors import FieldError, StatusError, bad_request, invalid
from wherry.kube.api.kinds import Kind
from wherry.kube.api.schema import decode_kind
from wherry.kube.api.selectors import FieldSelector, LabelSelector, parse_fields, parse_labels
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import Query


def _integer(query: Query, name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if not -(2**63) <= number < 2**63:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def parse_revision(text: str) -> int:
    """A resourceVersion as a number; "" is 0. Raises StatusError 400."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise bad_request(
            f'invalid resource version: resourceVersion: Invalid value: "{text}": '
            f'strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)


def _forbidden(field: str, detail: str) -> FieldError:
    return FieldError(field, "FieldValueForbidden", f"Forbidden: {detail}")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects a list, watch or deletecollection is about."""

    labels: LabelSelector
    fields: FieldSelector

    @property
    def everything(self) -> bool:
        return self.labels.empty and self.fields.empty

    def matches(self, kind: Kind, o: Object) -> bool:
        if not self.labels.empty and not self.labels.matches(o["metadata"].get("labels")):
            return False
        return self.fields.empty or self.fields.matches(kind.selectable_fields(o))


def parse_selection(query: Query, kind: Kind) -> Selection:
    """The selectors of a request.

    Raises:
        StatusError: 400, one cannot be read, or names a field this kind is not selected by.
    """
    fields = parse_fields(query.get("fieldSelector"))
    fields.check(kind.selectable, plain=not kind.field_names and not kind.resource.custom)
    return Selection(parse_labels(query.get("labelSelector")), fields)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """How to list or watch. ``revision`` None: unset, the most recent."""

    selection: Selection
    revision: int | None
    match: str
    limit: int
    after: str  # the continue token
    timeout: int | None
    bookmarks: bool
    initial_events: bool | None


def parse_list_options(query: Query, kind: Kind, *, watch: bool) -> ListOptions:
    """The ListOptions of a request.

    Raises:
        StatusError: 400 or 422, they cannot be read or contradict each other.
    """
    text = query.get("resourceVersion")
    match, after = query.get("resourceVersionMatch"), query.get("continue")
    initial = query.flag("sendInitialEvents") if query.has("sendInitialEvents") else None
    errors = _match_faults(text, match, after, watch=watch, initial=initial)
    if errors:
        raise invalid("ListOptions", "", errors, "meta.k8s.io")
    limit = _integer(query, "limit") or 0
    if after and text not in ("", "0") and not watch:
        raise bad_request("specifying resource version is not allowed when using continue")
    return ListOptions(
        parse_selection(query, kind),
        parse_revision(text) if text else None,
        match,
        max(limit, 0),
        after,
        _integer(query, "timeoutSeconds"),
        query.flag("allowWatchBookmarks"),
        initial,
    )


def _match_faults(
    revision: str, match: str, after: str, *, watch: bool, initial: bool | None
) -> list[FieldError]:
    field = "resourceVersionMatch"
    errors = []
    if initial is not None and watch and match != "NotOlderThan":
        detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        errors.append(_forbidden(field, detail))
    if match:
        if watch and initial is None:
            detail = f"{field} is forbidden for watch unless sendInitialEvents is provided"
            errors.append(_forbidden(field, detail))
        if not watch and not revision:
            detail = f"{field} is forbidden unless resourceVersion is provided"
            errors.append(_forbidden(field, detail))
        possible = ("NotOlderThan",) if watch else ("Exact", "NotOlderThan")
        continued = _forbidden(field, f"{field} is forbidden when continue is provided")
        if after and not watch:
            errors.append(continued)
        if match not in possible:
            names = "".join(f'"{each}", ' for each in possible)
            detail = f'Unsupported value: "{match}": supported values: {names}""'
            if watch:
                detail = detail.removesuffix(', ""')
            errors.append(FieldError(field, "FieldValueNotSupported", detail))
        if after and watch:
            errors.append(continued)
        if match == "Exact" and revision == "0" and not watch:
            detail = f'{field} "exact" is forbidden for resourceVersion "0"'
            errors.append(_forbidden(field, detail))
    if initial is not None and not watch:
        errors.append(_forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return errors


@dataclass(frozen=True, slots=True)
class Continue:
    """A continue token: go on at key ``start``, in the state of ``revision`` (-1: the present)."""

    revision: int
    start: str

    def encode(self) -> str:
        token = {"v": "meta.k8s.io/v1", "rv": self.revision, "start": self.start}
        return base64.urlsafe_b64encode(orjson.dumps(token)).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Continue:
        """Raises StatusError 400."""
        try:
            token = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            version, revision, start = token["v"], token["rv"], token["start"]
        except (binascii.Error, ValueError, KeyError, TypeError):
            raise _bad_token(text) from None
        if version != "meta.k8s.io/v1":
            raise _bad_token(f'server does not recognize this encoded version "{version}"')
        if type(revision) is not int or not isinstance(start, str) or revision >= 2**63:
            raise _bad_token(text)
        if revision == 0:
            raise _bad_token("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
        if not start:
            raise _bad_token("encoded start key empty (version meta.k8s.io/v1)")
        if any(part in ("", ".", "..") for part in start.split("/")):
            raise _bad_token(start)
        return cls(revision, start)


def _bad_token(why: str) -> StatusError:
    return bad_request(f"invalid continue token: continue key is not valid: {why}")


def continue_expired(rest: Continue) -> StatusError:
    """410 for a page of a list too old; its token goes on in the present."""
    return StatusError(
        410,
        "Expired",
        "The provided continue parameter is too old to display a consistent list result. You can "
        "start a new list without the continue parameter, or use the continue token in this "
        "response to retrieve the remainder of the results. Continuing with the provided token "
        "results in an inconsistent list - objects that were created, modified, or deleted between "
        "the time the first chunk was returned and now may show up in the list.",
        metadata={"continue": Continue(-1, rest.start).encode()},
    )


def dry_run(values: list[str], kind: str) -> bool:
    """Whether nothing is to be kept. Raises StatusError 422 for anything but "All"."""
    wrong = [value for value in values if value != "All"]
    if wrong:
        faults = [
            FieldError(
                "dryRun",
                "FieldValueNotSupported",
                f'Unsupported value: "{value}": supported values: "All"',
            )
            for value in wrong
        ]
        raise invalid(kind, "", faults, "meta.k8s.io")
    return bool(values)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """CreateOptions, UpdateOptions and PatchOptions."""

    dry_run: bool
    field_manager: str
    field_validation: str  # Ignore, Warn or Strict
    force: bool | None
    kind: str = "CreateOptions"

    def as_meta(self) -> Object:
        """As an object of meta.k8s.io/v1."""
        o: Object = {"kind": self.kind, "apiVersion": "meta.k8s.io/v1"}
        if self.dry_run:
            o["dryRun"] = ["All"]
        if self.force is not None:
            o["force"] = self.force
        if self.field_manager:
            o["fieldManager"] = self.field_manager
        return {**o, "fieldValidation": self.field_validation}


def parse_write_options(query: Query, kind: str, user_agent: str) -> WriteOptions:
    """``kind`` is that of the options: CreateOptions, UpdateOptions, PatchOptions.

    Raises:
        StatusError: 422.
    """
    faults = []
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        faults.append(
            FieldError(
                "fieldValidation",
                "FieldValueNotSupported",
                f'Unsupported value: "{validation}": '
                'supported values: "Ignore", "Strict", "Warn", ""',
            )
        )
    manager = query.get("fieldManager")
    if len(manager) > 128:
        faults.append(
            FieldError(
                "fieldManager", "FieldValueTooLong", "Too long: may not be more than 128 bytes"
            )
        )
    elif not manager.isprintable():
        faults.append(
            FieldError(
                "fieldManager",
                "FieldValueInvalid",
                f"Invalid value: {orjson.dumps(manager).decode()}: should only contain printable "
                "characters",
            )
        )
    if faults:
        raise invalid(kind, "", faults, "meta.k8s.io")
    return WriteOptions(
        dry_run(query.all("dryRun"), kind),
        manager or user_agent.split("/", 1)[0][:128] or "unknown",
        validation,
        query.flag("force") if query.has("force") else None,
        kind,
    )


DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
"""The name of their definition."""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """``policy`` is "", Orphan, Background or Foreground."""

    grace: int | None = None
    uid: str | None = None
    revision: str | None = None
    policy: str = ""
    dry_run: bool = False

    def as_object(self) -> Object:
        """As the kinds' rules read it."""
        return {} if self.grace is None else {"gracePeriodSeconds": self.grace}

    def as_meta(self) -> Object:
        """As an object of meta.k8s.io/v1."""
        o: Object = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", **self.as_object()}
        preconditions = {"uid": self.uid, "resourceVersion": self.revision}
        if given := {name: value for name, value in preconditions.items() if value is not None}:
            o["preconditions"] = given
        if self.policy:
            o["propagationPolicy"] = self.policy
        if self.dry_run:
            o["dryRun"] = ["All"]
        return o


def _decoded_delete_options(body: Any) -> Object:
    """The body, its types checked. Clients call its group version by that of the resource."""
    if isinstance(body, dict):
        kind = body.get("kind") or "DeleteOptions"
        if kind != "DeleteOptions":
            raise bad_request(
                f"decoded object cannot be converted to DeleteOptions: it is a {kind}"
            )
        body = {k: v for k, v in body.items() if k not in ("kind", "apiVersion")}
    decoded: Object = decode_kind(DELETE_OPTIONS, "v1", "DeleteOptions", body).value
    return decoded


def parse_delete_options(body: Any, query: Query) -> DeleteOptions:
    """From the body where there is one (a DeleteOptions), else from the query.

    Raises:
        StatusError: 400 or 422.
    """
    if body is None:
        body = {
            "propagationPolicy": query.get("propagationPolicy") or None,
            "gracePeriodSeconds": _integer(query, "gracePeriodSeconds"),
            "dryRun": query.all("dryRun"),
        }
        if query.has("orphanDependents"):
            body["orphanDependents"] = query.flag("orphanDependents")
    else:
        body = _decoded_delete_options(body)
    policy, orphan = body.get("propagationPolicy"), body.get("orphanDependents")
    preconditions = body.get("preconditions") or {}
    faults = []
    if policy is not None and orphan is not None:
        faults.append(
            FieldError(
                "propagationPolicy",
                "FieldValueInvalid",
                f'Invalid value: "{policy}": orphanDependents and deletionPropagation cannot be '
                "both set",
            )
        )
    if policy not in (None, "", "Foreground", "Background", "Orphan"):
        faults.append(
            FieldError(
                "propagationPolicy",
                "FieldValueNotSupported",
                f'Unsupported value: "{policy}": '
                'supported values: "Background", "Foreground", "Orphan", "nil"',
            )
        )
    if faults:
        raise invalid("DeleteOptions", "", faults, "meta.k8s.io")
    if orphan is not None:
        policy = "Orphan" if orphan else "Background"
    grace = body.get("gracePeriodSeconds")
    return DeleteOptions(
        1 if grace is not None and grace < 0 else grace,
        preconditions.get("uid"),
        preconditions.get("resourceVersion"),
        policy or "",
        dry_run(body.get("dryRun") or [], "DeleteOptions"),
    )
