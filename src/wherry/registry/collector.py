"""Freeing what nobody names any more: mark from the manifests, sweep the blobs.

It may run beside a registry that serves. A client that is told that a blob is there, and that will
refer to it in a moment, has touched it; so what is younger than ``grace`` stays.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from wherry.registry import manifests
from wherry.registry.errors import RegistryError
from wherry.registry.storage import Storage

GRACE = 3600.0


@dataclass(slots=True)
class Collected:
    """What was, or with ``dry_run`` would be, removed; ``size`` is in bytes."""

    manifests: list[str] = field(default_factory=list)
    blobs: list[str] = field(default_factory=list)
    size: int = 0


def collect(
    storage: Storage, *, grace: float = GRACE, delete_untagged: bool = False, dry_run: bool = False
) -> Collected:
    """Free the blobs that no manifest needs and that nobody has asked for in ``grace`` seconds.

    With ``delete_untagged``, manifests go too that no tag, no index and no subject leads to.
    """
    result = Collected()
    horizon = time.time() - grace
    needed: set[str] = set()
    for repository in storage.repositories():
        if delete_untagged:
            for digest in _untagged(storage, repository):
                if storage.blob_path(digest).stat().st_mtime >= horizon:
                    continue
                result.manifests.append(f"{repository}@{digest}")
                if not dry_run:
                    subject = manifests.subject_of(
                        storage.manifest(repository, digest, touch=False)
                    )
                    storage.delete_manifest(repository, digest, subject)
        needed |= _marked(storage, repository, set(result.manifests))
    for digest, path in storage.all_blobs():
        status = path.stat()
        if digest in needed or status.st_mtime >= horizon:
            continue
        result.blobs.append(digest)
        result.size += status.st_size
        if not dry_run:
            for repository in storage.repositories():
                storage.unlink_blob(repository, digest)
            path.unlink()
    return result


def _marked(storage: Storage, repository: str, deleted: set[str]) -> set[str]:
    """The digests that the manifests of a repository need, their own among them."""
    marked = set()
    for digest in storage.manifests(repository):
        if f"{repository}@{digest}" in deleted:
            continue
        marked.add(digest)
        document = manifests.document_of(storage.manifest(repository, digest, touch=False))
        marked |= {descriptor["digest"] for descriptor in manifests.blobs_of(document)}
    return marked


def _untagged(storage: Storage, repository: str) -> list[str]:
    """The manifests that nothing leads to from a tag."""
    reached: set[str] = set()
    pending = []
    for tag in storage.tags(repository):
        try:
            pending.append(storage.manifest(repository, tag, touch=False).digest)
        except RegistryError:
            continue  # it has just been deleted
    while pending:
        digest = pending.pop()
        if digest in reached or not storage.has_manifest(repository, digest):
            continue
        reached.add(digest)
        document = manifests.document_of(storage.manifest(repository, digest, touch=False))
        pending += manifests.manifests_of(document)
        pending += [one.digest for one in storage.referrers(repository, digest)]
    return [digest for digest in storage.manifests(repository) if digest not in reached]
