"""CustomResourceDefinition: kinds that users bring.

Upstream: k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition/strategy.go and
.../pkg/apis/apiextensions/{v1,validation}.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api import conditions, names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.base import NAME_COLUMN, Column, Kind, Object

_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
Faults = list[FieldError]


class CustomResourceDefinition(Kind):
    has_generation = True
    unconditional_update = False
    kube_finalizers = False
    cleanup_finalizers = (_FINALIZER,)
    columns = (
        NAME_COLUMN,
        Column("Created At", "date", description="When the object was created."),
    )

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        given = spec.setdefault("names", {})
        if kind := given.get("kind"):
            given.setdefault("singular", kind.lower())
            given.setdefault("listKind", f"{kind}List")
        conversion = spec.setdefault("conversion", {})
        conversion.setdefault("strategy", "None")
        client = (conversion.get("webhook") or {}).get("clientConfig") or {}
        if "service" in client:
            client["service"].setdefault("port", 443)
        for version in spec.get("versions") or ():
            for column in version.get("additionalPrinterColumns") or ():
                column.setdefault("jsonPath", "")

    def initial_status(self, o: Object) -> Object:
        stored = [
            v.get("name", "")
            for v in (o.get("spec") or {}).get("versions") or ()
            if v.get("storage")
        ]
        return {
            "conditions": [],
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": stored,
        }

    def prepare_update(self, new: Object, old: Object) -> None:
        super().prepare_update(new, old)
        stored = list((old.get("status") or {}).get("storedVersions") or ())
        for version in new.get("spec", {}).get("versions") or ():
            if version.get("storage") and version.get("name", "") not in stored:
                new["status"] = {
                    **(old.get("status") or {}),
                    "storedVersions": [*stored, version.get("name", "")],
                }

    def name_messages(self, name: str, prefix: bool) -> list[str]:
        return names.is_dns1123_subdomain(name)

    def validate_body(self, o: Object) -> Faults:
        from wherry.kube.api.custom.checks import check_definition

        return check_definition(o, None)

    def validate_change(self, new: Object, old: Object) -> Faults:
        from wherry.kube.api.custom.checks import check_definition

        faults = check_definition(new, old)
        before, spec = old.get("spec") or {}, new.get("spec") or {}
        faults += fields.immutable("spec.group", spec.get("group"), before.get("group"))
        plural = (spec.get("names") or {}).get("plural")
        faults += fields.immutable(
            "spec.names.plural", plural, (before.get("names") or {}).get("plural")
        )
        if conditions.is_true(old, "Established"):
            faults += fields.immutable("spec.scope", spec.get("scope"), before.get("scope"))
            kind = (spec.get("names") or {}).get("kind")
            faults += fields.immutable(
                "spec.names.kind", kind, (before.get("names") or {}).get("kind")
            )
        present = {v.get("name") for v in spec.get("versions") or ()}
        for i, name in enumerate((old.get("status") or {}).get("storedVersions") or ()):
            if name not in present:
                faults.append(
                    fields.invalid(
                        f"status.storedVersions[{i}]",
                        name,
                        f"missing from spec.versions; {name} was previously a storage version, and "
                        "must remain in spec.versions until a storage migration ensures no data "
                        f"remains persisted in {name} and removes {name} from "
                        "status.storedVersions",
                    )
                )
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        return [o["metadata"].get("name", ""), o["metadata"].get("creationTimestamp")]
