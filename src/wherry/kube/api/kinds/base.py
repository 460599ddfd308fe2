"""What every kind has: the generic half of upstream's defaulting, strategies and validation.

A module of this package says only what is special about its kind, by overriding a step of
:class:`Kind`. The steps come in the order a write meets them:

    decode → default → prepare_create | prepare_update | prepare_status_update
           → (admission) → validate | validate_update | validate_status_update → store

Every step before validation changes the object it is given in place; the caller hands in a
private copy. An ``old`` object is shared and never changed, and parts of it may be *shared into*
the new one (``new["spec"] = old["spec"]``), so nothing may edit a new object after its
prepare step except by replacing whole top-level parts.

Upstream: k8s.io/apiserver/pkg/registry/rest/{create,update}.go and pkg/registry/*/strategy.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import metadata
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal
from wherry.kube.api.merge_types import MergeType, merge_type
from wherry.kube.api.resources import Resource
from wherry.kube.api.schema import Decoded, decode

Object = dict[str, Any]

_TOP_LEVEL_KEPT = ("kind", "apiVersion", "metadata", "status")
_SYSTEM_METADATA = (
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the server-side table. Above ``priority`` 0 only ``-o wide`` shows it."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


NAME_COLUMN: Final = Column("Name", format="name", description="Unique within its namespace.")
AGE_COLUMN: Final = Column("Age", description="Time since the object was created.")


class Kind:
    """One served resource's rules. Instances hold no state; one lives in the table ``KINDS``."""

    columns: ClassVar[tuple[Column, ...]] = (NAME_COLUMN, AGE_COLUMN)

    has_generation: ClassVar[bool] = False
    """``metadata.generation`` counts the changes of the spec."""

    create_on_update: ClassVar[bool] = False
    """PUT to a name that is free creates the object."""

    unconditional_update: ClassVar[bool] = True
    """An update without a resourceVersion is taken (the last writer wins)."""

    strategic: ClassVar[bool] = True
    """Strategic merge patches are taken: its lists have merge keys."""

    kube_finalizers: ClassVar[bool] = True
    """Finalizers without a domain must be Kubernetes' own."""

    cleanup_finalizers: ClassVar[tuple[str, ...]] = ()
    """What holds an object from the moment its deletion is asked for."""

    field_names: ClassVar[frozenset[str]] = frozenset()
    """Selectable fields besides metadata.name and metadata.namespace."""

    orphans: ClassVar[bool] = False
    """What an object of it owns stays when that is deleted, if the client does not say."""

    deprecation: str = ""
    """What clients of this version are warned of."""

    defaults_since: int = 0
    """Objects stored before this revision may lack defaults that the kind has had since; 0 where
    defaults do not change."""

    schema_tag: str = ""
    """What tells apart the schemas of a kind that has its own, as custom resources do; empty for
    all whose definition is in the schema data."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.has_status = "status" in resource.subresources
        names = {"metadata.name"} | self.field_names
        if resource.namespaced:
            names.add("metadata.namespace")
        self.selectable: frozenset[str] = frozenset(names)
        """Every field a fieldSelector may name; another one is
        ``field label not supported: <name>`` (400)."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.resource.api_version} {self.resource.kind}>"

    # Reading ------------------------------------------------------------------------------------

    def decode(self, value: Any, *, patch: str | None = None) -> Decoded:
        """An object of this kind from a JSON value, see `schema.decode`. Raises StatusError."""
        return decode(self.resource, value, patch=patch)

    def merge_type(self) -> MergeType:
        """How server-side apply merges it."""
        return merge_type(self.resource.schema)

    # Writing ------------------------------------------------------------------------------------

    def default(self, o: Object) -> None:
        """Fill in what the client left out. Applying it twice changes nothing more."""

    def note_requester(
        self,
        o: Object,
        name: str,
        uid: str,
        groups: Sequence[str],
        extra: Mapping[str, Sequence[str]],
    ) -> None:
        """Write down who creates the object, in the few kinds where it counts."""

    def prepare_create(self, o: Object) -> None:
        """Take away what a client may not set when it creates; set the initial status."""
        if self.has_status:
            o["status"] = self.initial_status(o)
        if self.has_generation:
            o["metadata"]["generation"] = 1
        else:
            o["metadata"].pop("generation", None)

    def prepare_update(self, new: Object, old: Object) -> None:
        """Take away what a client may not set when it updates; count the generation."""
        self._keep_system_metadata(new, old)
        if self.has_status:
            _restore(new, old, "status")
        if self.has_generation and self.changes_generation(new, old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def prepare_status_update(self, new: Object, old: Object) -> None:
        """Keep everything but status and metadata as it was."""
        self._keep_system_metadata(new, old)
        for key in new.keys() - old.keys():
            if key not in _TOP_LEVEL_KEPT:
                del new[key]
        for key in old:
            if key not in _TOP_LEVEL_KEPT:
                new[key] = old[key]

    def initial_status(self, o: Object) -> Object:
        """The status of an object that was just created."""
        return {}

    def changes_generation(self, new: Object, old: Object) -> bool:
        """Whether the update is one that ``metadata.generation`` counts."""
        return not equal(new.get("spec"), old.get("spec"))

    def _keep_system_metadata(self, new: Object, old: Object) -> None:
        meta, before = new["metadata"], old["metadata"]
        for key in _SYSTEM_METADATA:
            _restore(meta, before, key)
        if not meta.get("uid"):  # a uid that differs is the registry's to refuse
            _restore(meta, before, "uid")

    # Judging ------------------------------------------------------------------------------------

    def validate(self, o: Object) -> list[FieldError]:
        """Every fault of a new object, its metadata included."""
        errors = metadata.validate(
            o.get("metadata") or {},
            namespaced=self.resource.namespaced,
            name_rule=self.name_messages,
            kube_finalizers=self.kube_finalizers,
        )
        errors += self.validate_body(o)
        return errors

    def validate_update(self, new: Object, old: Object) -> list[FieldError]:
        """Every fault of a changed object, and of the change itself."""
        errors = metadata.validate_update(
            new.get("metadata") or {}, old["metadata"], kube_finalizers=self.kube_finalizers
        )
        errors += self.validate_change(new, old)
        return errors

    def validate_status_update(self, new: Object, old: Object) -> list[FieldError]:
        """Every fault of a changed status."""
        errors = metadata.validate_update(
            new.get("metadata") or {}, old["metadata"], kube_finalizers=self.kube_finalizers
        )
        errors += self.validate_status(new, old)
        return errors

    def name_messages(self, name: str, prefix: bool) -> list[str]:
        """What is wrong with a name; ``prefix``: something will be appended to it."""
        return metadata.dns_subdomain(name, prefix)

    def validate_body(self, o: Object) -> list[FieldError]:
        """Faults of a new object outside its metadata."""
        return []

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        """Faults of an update outside the metadata: by default the rules for a new object."""
        return self.validate_body(new)

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        """Faults of a status update outside the metadata."""
        return []

    # Other versions -----------------------------------------------------------------------------

    def to_stored(self, o: Object) -> Object:
        """An object of this version as it is stored. New where it differs; may share parts."""
        return o

    def from_stored(self, o: Object) -> Object:
        """A stored object, which stays as it is, in this version; may share parts."""
        return o

    def as_asked(self, faults: list[FieldError], o: Object) -> list[FieldError]:
        """Faults of the stored object ``o`` in the words of this version; those go that this
        version allows."""
        return faults

    # Describing ---------------------------------------------------------------------------------

    def schemas(self, form: int) -> dict[str, Object]:
        """Definitions of the kind's own for the OpenAPI document of version ``form`` (2 or 3), by
        name; none where the schema data has them."""
        return {}

    # Deleting -----------------------------------------------------------------------------------

    def deletion_grace(self, o: Object, options: Object) -> int | None:
        """Seconds the object stays, marked as being deleted; 0: it goes at once; None: the kind
        knows no grace. ``options`` is the request's DeleteOptions. Only pods have a grace.
        """
        return None

    # Showing ------------------------------------------------------------------------------------

    def row(self, o: Object, now: datetime) -> list[Any]:
        """The cells of the object's row, one for each of ``columns``."""
        return [o["metadata"].get("name", ""), age(o["metadata"].get("creationTimestamp"), now)]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        """The values of all ``selectable`` fields, "" for what is absent."""
        meta = o.get("metadata") or {}
        fields = {"metadata.name": meta.get("name", "")}
        if self.resource.namespaced:
            fields["metadata.namespace"] = meta.get("namespace", "")
        return fields

    # Scaling ------------------------------------------------------------------------------------

    def scale(self, o: Object) -> Object:
        """The object's autoscaling/v1 Scale. Only for kinds with that subresource."""
        raise NotImplementedError(f"{self.resource.kind} has no scale")

    def apply_scale(self, o: Object, scale: Object) -> None:
        """Set the number of replicas a Scale asks for, in place."""
        raise NotImplementedError(f"{self.resource.kind} has no scale")

    def validate_scale(self, scale: Object) -> list[FieldError]:
        """Faults of a Scale."""
        raise NotImplementedError(f"{self.resource.kind} has no scale")


def _restore(target: Object, source: Object, key: str) -> None:
    if key in source:
        target[key] = source[key]
    else:
        target.pop(key, None)
