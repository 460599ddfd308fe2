"""CertificateSigningRequests.

Upstream: pkg/apis/certificates/validation/validation.go and
pkg/registry/certificates/certificates/strategy.go.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields, metadata
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age, human
from wherry.kube.api.meta import now as time_now

_USAGES = (
    *("any", "cert sign", "client auth", "code signing", "content commitment", "crl sign"),
    *("data encipherment", "decipher only", "digital signature", "email protection"),
    *("encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement"),
    *("key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime"),
    *("server auth", "signing", "timestamping"),
)
_SHORTEST: Final = 600
_HEAD = b"-----BEGIN CERTIFICATE REQUEST-----"
_DECISIONS = ("Approved", "Denied")
_KINDS = (*_DECISIONS, "Failed")
_SIGNER_LIMIT: Final = 571


class CertificateSigningRequest(Kind):
    """A demand for a certificate."""

    columns = (
        NAME_COLUMN,
        AGE_COLUMN,
        Column("SignerName", description="Who is to sign it."),
        Column("Requestor", description="Who asked for it."),
        Column("RequestedDuration", description="How long it should be valid."),
        Column("Condition", description="What became of it."),
    )
    field_names = frozenset({"spec.signerName"})

    def note_requester(
        self,
        o: Object,
        name: str,
        uid: str,
        groups: Sequence[str],
        extra: Mapping[str, Sequence[str]],
    ) -> None:
        """Who asks is what the request says; what the object says of it does not count."""
        spec = o.setdefault("spec", {})
        more = {key: list(values) for key, values in extra.items()}
        said = (("username", name), ("uid", uid), ("groups", list(groups)), ("extra", more))
        for key, value in said:
            spec.pop(key, None)
            if value:
                spec[key] = value

    def prepare_update(self, new: Object, old: Object) -> None:
        super().prepare_update(new, old)
        new["spec"] = old.get("spec") or {}

    def prepare_status_update(self, new: Object, old: Object) -> None:
        super().prepare_status_update(new, old)
        before = [c for c in _conditions(old) if c.get("type") in _DECISIONS]
        others = [c for c in _conditions(new) if c.get("type") not in _DECISIONS]
        new["status"] = _with_conditions(new.get("status") or {}, [*before, *others], old)

    def prepare_approval_update(self, new: Object, old: Object) -> None:
        """For the subresource ``approval``: only the conditions of a decision are taken."""
        super().prepare_status_update(new, old)
        others = [c for c in _conditions(old) if c.get("type") not in _DECISIONS]
        decided = [c for c in _conditions(new) if c.get("type") in _DECISIONS]
        new["status"] = _with_conditions(old.get("status") or {}, [*others, *decided], old)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        if why := _unreadable(spec.get("request", "")):
            faults.append(fields.invalid("spec.request", spec.get("request", ""), why))
        usages = spec.get("usages") or ()
        if not usages:
            faults.append(fields.required("spec.usages"))
        for index, usage in enumerate(usages):
            where = f"spec.usages[{index}]"
            if usage not in _USAGES:
                faults.append(fields.not_supported(where, usage, _USAGES))
            if usage in usages[:index]:
                faults.append(fields.duplicate(where, usage))
        _check_signer(spec.get("signerName", ""), "spec.signerName", faults)
        seconds = spec.get("expirationSeconds")
        if seconds is not None and seconds < _SHORTEST:
            why = "may not specify a duration less than 600 seconds (10 minutes)"
            faults.append(fields.invalid("spec.expirationSeconds", seconds, why))
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        return []

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        _check_conditions(new, old, faults)
        certificate = (new.get("status") or {}).get("certificate")
        before = (old.get("status") or {}).get("certificate")
        if before and certificate != before:
            why = "field is immutable once set"
            faults.append(fields.invalid("status.certificate", certificate or "", why))
        return faults

    def validate_approval_update(self, new: Object, old: Object) -> list[FieldError]:
        """Faults of a request to ``approval``."""
        faults = metadata.validate_update(new.get("metadata") or {}, old["metadata"])
        _check_conditions(new, old, faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec = o["metadata"], o.get("spec") or {}
        seconds = spec.get("expirationSeconds")
        return [
            meta.get("name", ""),
            age(meta.get("creationTimestamp"), now),
            spec.get("signerName") or "<none>",
            spec.get("username", ""),
            "<none>" if seconds is None else human(seconds),
            _state(o),
        ]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        values = super().selectable_fields(o)
        values["spec.signerName"] = (o.get("spec") or {}).get("signerName", "")
        return values


def _conditions(o: Object) -> list[Object]:
    return (o.get("status") or {}).get("conditions") or []


def _with_conditions(status: Object, conditions: list[Object], old: Object) -> Object:
    """The status with these conditions, each dated."""
    before = {c.get("type"): c for c in _conditions(old)}
    moment, dated = time_now(), []
    for condition in conditions:
        same = before.get(condition.get("type"))
        if condition == same:
            dated.append(condition)
            continue
        filled = {"lastUpdateTime": moment, **condition}
        if same is not None and same.get("status") == condition.get("status"):
            filled.setdefault("lastTransitionTime", same.get("lastTransitionTime", moment))
        dated.append({"lastTransitionTime": moment, **filled})
    rest = {key: value for key, value in status.items() if key != "conditions"}
    return {**rest, "conditions": dated} if dated else rest


def _state(o: Object) -> str:
    held = {c.get("type") for c in _conditions(o)}
    words = []
    if "Denied" in held:
        words.append("Denied")
    elif "Approved" in held:
        words.append("Approved")
    if "Failed" in held:
        words.append("Failed")
    if (o.get("status") or {}).get("certificate"):
        words.append("Issued")
    return ",".join(words) or "Pending"


def _unreadable(request: str) -> str:
    """Why the bytes are no certificate request, or ""."""
    try:
        pem = base64.b64decode(request, validate=True)
    except (binascii.Error, ValueError):
        pem = b""
    if not pem.lstrip().startswith(_HEAD):
        return "PEM block type must be CERTIFICATE REQUEST"
    from cryptography import x509

    try:
        x509.load_pem_x509_csr(pem)
    except ValueError as error:
        return str(error)
    return ""


def _check_signer(signer: str, path: str, faults: Faults) -> None:
    if not signer:
        faults.append(fields.required(path))
        return
    domain, slash, rest = signer.partition("/")
    if signer == "kubernetes.io/legacy-unknown":
        why = "the legacy signerName is not allowed via this API version"
        faults.append(fields.invalid(path, signer, why))
        return
    if not slash or not domain or not rest:
        why = 'must be a fully qualified domain and path of the form "example.com/signer-name"'
        faults.append(fields.invalid(path, signer, why))
        return
    checks.check(names.is_dns1123_subdomain, domain, path, faults)
    if "." not in domain:
        why = "should be a domain with at least two segments separated by dots"
        faults.append(fields.invalid(path, domain, why))
    if len(signer) > _SIGNER_LIMIT:
        faults.append(fields.too_long(path, _SIGNER_LIMIT))
    for part in rest.split("/"):
        checks.check(names.is_dns1123_subdomain, part, path, faults)


def _check_conditions(new: Object, old: Object, faults: Faults) -> None:
    held: set[str] = set()
    for index, condition in enumerate(_conditions(new)):
        path, kind = f"status.conditions[{index}]", condition.get("type", "")
        status = condition.get("status", "")
        if not kind:
            faults.append(fields.required(f"{path}.type"))
        elif kind in held:
            faults.append(fields.duplicate(f"{path}.type", kind))
        if not status:
            faults.append(fields.required(f"{path}.status"))
        elif kind in _KINDS and status != "True":
            faults.append(fields.not_supported(f"{path}.status", status, ("True",)))
        elif status not in ("True", "False", "Unknown"):
            supported = ("False", "True", "Unknown")
            faults.append(fields.not_supported(f"{path}.status", status, supported))
        other = {"Approved": "Denied", "Denied": "Approved"}.get(kind)
        if other in held:
            why = "Approved and Denied conditions are mutually exclusive"
            faults.append(fields.invalid(f"{path}.type", kind, why))
        held.add(kind)
    for condition in _conditions(old):
        if (kind := condition.get("type", "")) in _KINDS and kind not in held:
            why = f"updates may not remove a condition of type {fields.quote(kind)}"
            faults.append(fields.forbidden("status.conditions", why))
