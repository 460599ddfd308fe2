"""What a registry keeps on disk.

    blobs/<algorithm>/<two digits>/<hex>      the bytes, manifests included, once for all
    repositories/<name>/_blobs/<digest>       the repository has this blob (an empty file)
    repositories/<name>/_manifests/<digest>   … this manifest (its media type)
    repositories/<name>/_tags/<tag>           the digest that a tag means
    repositories/<name>/_referrers/<subject>/<digest>   a manifest whose subject is ``subject``
    uploads/<id>/                             a blob on its way: ``data``, and whose it is

No repository's name has a component that begins with ``_``. Everything gets its name when it is
complete and on the disk; what a kill leaves are uploads, which may be resumed. A file of ``blobs``
is touched whenever a client is told that it is there, so that the collector can tell what somebody
is about to refer to. All calls block.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wherry.host.files import make_private, sync_directory, write_atomic
from wherry.registry import names
from wherry.registry.errors import RegistryError

# An upload that nobody has gone on with for so long is given up, in seconds.
UPLOAD_LIFETIME = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was pushed."""

    digest: str
    media_type: str
    data: bytes


class Upload:
    """A blob on its way; the bytes so far are in a file, and digested as they come.

    The file is open only while it is written to: who begins an upload may never go on.
    """

    def __init__(self, id: str, directory: Path) -> None:
        self.id = id
        self.directory = directory
        self._data = directory / "data"
        self._data.touch()
        self.size = self._data.stat().st_size
        # What nearly every client will ask for; another algorithm reads the file again at the end.
        self._sha256 = self._digested("sha256") if self.size else hashlib.sha256()

    def append(self, data: bytes) -> None:
        """Add bytes, all or none.

        Raises:
            OSError: the disk takes no more.
        """
        with self._data.open("ab", buffering=0) as file:
            try:
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(self.size)
                raise
        self._sha256.update(data)
        self.size += len(data)

    def finish(self, digest: str) -> Path:
        """The complete file, on the disk.

        Raises:
            RegistryError: DIGEST_INVALID, it has another digest.
        """
        algorithm, _, wanted = digest.partition(":")
        found = self._sha256 if algorithm == "sha256" else self._digested(algorithm)
        if found.hexdigest() != wanted:
            raise RegistryError("DIGEST_INVALID", {"digest": digest})
        with self._data.open("rb") as file:
            os.fsync(file.fileno())
        return self._data

    def _digested(self, algorithm: str) -> hashlib._Hash:
        with self._data.open("rb") as file:
            return hashlib.file_digest(file, algorithm)


class Storage:
    """All repositories below ``root``."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._repositories = root / "repositories"
        self._uploads = root / "uploads"
        self._open: dict[str, Upload] = {}

    def open(self) -> None:
        """Make the directories, and give up uploads that nobody has gone on with."""
        for directory in (self._blobs, self._repositories, self._uploads):
            make_private(directory)
        horizon = time.time() - UPLOAD_LIFETIME
        for directory in self._uploads.iterdir():
            if directory.stat().st_mtime < horizon:
                shutil.rmtree(directory, ignore_errors=True)

    # ---- repositories

    def repositories(self) -> list[str]:
        """Those that have, or had, anything, by name."""
        found = []
        for directory, children, _ in os.walk(self._repositories):
            if any(child in ("_manifests", "_tags") for child in children):
                found.append(os.path.relpath(directory, self._repositories))
            children[:] = [child for child in children if not child.startswith("_")]
        return sorted(found)

    def exists(self, repository: str) -> bool:
        """Whether anything was ever pushed to it."""
        return any(
            (self._repositories / repository / name).is_dir() for name in ("_blobs", "_tags")
        )

    def _place(self, repository: str, kind: str) -> Path:
        return self._repositories / repository / f"_{kind}"

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, data)

    # ---- blobs

    def blob_path(self, digest: str) -> Path:
        """Where its bytes lie, or would."""
        algorithm, _, value = digest.partition(":")
        return self._blobs / algorithm / value[:2] / value

    def blob(self, repository: str, digest: str) -> Path:
        """The file of a blob, or of a manifest, that the repository has.

        Raises:
            RegistryError: BLOB_UNKNOWN.
        """
        path = self.blob_path(digest)
        if not (self._place(repository, "blobs") / digest).exists() or not path.exists():
            raise RegistryError("BLOB_UNKNOWN", {"digest": digest})
        os.utime(path)
        return path

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository has the blob."""
        try:
            self.blob(repository, digest)
        except RegistryError:
            return False
        return True

    def mount(self, source: str, repository: str, digest: str) -> bool:
        """Give ``repository`` a blob of ``source`` (empty: of any); False where there is none."""
        path = self.blob_path(digest)
        if not path.exists() or (source and not self.has_blob(source, digest)):
            return False
        os.utime(path)
        self._write(self._place(repository, "blobs") / digest, b"")
        return True

    def delete_blob(self, repository: str, digest: str) -> None:
        """Take a blob from the repository; the bytes go with the next collection.

        Raises:
            RegistryError: BLOB_UNKNOWN.
        """
        self.blob(repository, digest)
        (self._place(repository, "blobs") / digest).unlink()

    def _keep(self, file: Path, digest: str) -> None:
        """Move a verified file, which is on the disk, to where its digest says."""
        target = self.blob_path(digest)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.replace(target)
        sync_directory(target.parent)

    # ---- uploads

    def begin(self, repository: str) -> Upload:
        """A new upload to the repository."""
        id = str(uuid.uuid4())
        directory = self._uploads / id
        directory.mkdir(mode=0o700)
        (directory / "repository").write_text(repository)
        upload = self._open[id] = Upload(id, directory)
        return upload

    def upload(self, repository: str, id: str) -> Upload:
        """An upload under way.

        Raises:
            RegistryError: BLOB_UPLOAD_UNKNOWN.
        """
        directory = self._uploads / id
        try:
            uuid.UUID(id)
            owner = (directory / "repository").read_text()
        except (ValueError, OSError):
            owner = ""
        if owner != repository:
            raise RegistryError("BLOB_UPLOAD_UNKNOWN", {"upload": id})
        if id not in self._open:
            self._open[id] = Upload(id, directory)
        return self._open[id]

    def finish(self, repository: str, upload: Upload, digest: str) -> None:
        """Make a blob of the repository out of an upload, which ends with this call.

        Raises:
            RegistryError: DIGEST_INVALID.
        """
        try:
            self._keep(upload.finish(digest), digest)
            self._write(self._place(repository, "blobs") / digest, b"")
        finally:
            self.cancel(upload)

    def cancel(self, upload: Upload) -> None:
        """Give an upload up."""
        self._open.pop(upload.id, None)
        shutil.rmtree(upload.directory, ignore_errors=True)

    # ---- manifests and tags

    def manifest(self, repository: str, reference: str, *, touch: bool = True) -> Manifest:
        """By tag or digest; without ``touch`` it is read for nobody who may refer to it.

        Raises:
            RegistryError: MANIFEST_UNKNOWN, NAME_UNKNOWN.
        """
        digest = reference
        if not names.is_digest(reference):
            try:
                digest = (self._place(repository, "tags") / reference).read_text()
            except (FileNotFoundError, NotADirectoryError):
                raise self._unknown(repository, reference) from None
        try:
            media_type = (self._place(repository, "manifests") / digest).read_text()
            path = self.blob_path(digest)
            if touch:
                os.utime(path)
            return Manifest(digest, media_type, path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise self._unknown(repository, reference) from None

    def _unknown(self, repository: str, reference: str) -> RegistryError:
        if not self.exists(repository):
            return RegistryError("NAME_UNKNOWN", {"name": repository})
        kind = "Digest" if names.is_digest(reference) else "Tag"
        return RegistryError("MANIFEST_UNKNOWN", {kind: reference})

    def has_manifest(self, repository: str, digest: str) -> bool:
        """Whether the repository has the manifest."""
        return (self._place(repository, "manifests") / digest).exists()

    def put_manifest(self, repository: str, manifest: Manifest, tag: str, subject: str) -> None:
        """Keep a manifest whose contents were judged; ``tag`` and ``subject`` may be empty."""
        path = self.blob_path(manifest.digest)
        if not path.exists():
            self._write(path, manifest.data)
        os.utime(path)
        self._write(self._place(repository, "blobs") / manifest.digest, b"")
        self._write(
            self._place(repository, "manifests") / manifest.digest, manifest.media_type.encode()
        )
        if subject:
            self._write(self._place(repository, "referrers") / subject / manifest.digest, b"")
        if tag:
            self._write(self._place(repository, "tags") / tag, manifest.digest.encode())

    def delete_tag(self, repository: str, tag: str) -> None:
        """Take a tag away; what it meant stays.

        Raises:
            RegistryError: MANIFEST_UNKNOWN, NAME_UNKNOWN.
        """
        try:
            (self._place(repository, "tags") / tag).unlink()
        except (FileNotFoundError, NotADirectoryError):
            raise self._unknown(repository, tag) from None

    def delete_manifest(self, repository: str, digest: str, subject: str) -> None:
        """Take a manifest from the repository, and the tags that mean it.

        Raises:
            RegistryError: MANIFEST_UNKNOWN, NAME_UNKNOWN.
        """
        if not self.has_manifest(repository, digest):
            raise self._unknown(repository, digest)
        for tag in self.tags(repository):
            path = self._place(repository, "tags") / tag
            if path.read_text() == digest:
                path.unlink()
        if subject:
            (self._place(repository, "referrers") / subject / digest).unlink(missing_ok=True)
        (self._place(repository, "manifests") / digest).unlink()
        (self._place(repository, "blobs") / digest).unlink(missing_ok=True)

    def tags(self, repository: str) -> list[str]:
        """In lexical order.

        Raises:
            RegistryError: NAME_UNKNOWN.
        """
        if not self.exists(repository):
            raise RegistryError("NAME_UNKNOWN", {"name": repository})
        return _listing(self._place(repository, "tags"))

    def manifests(self, repository: str) -> list[str]:
        """The digests of all manifests of the repository."""
        return _listing(self._place(repository, "manifests"))

    def referrers(self, repository: str, subject: str) -> Iterator[Manifest]:
        """The manifests whose subject is ``subject``."""
        for digest in _listing(self._place(repository, "referrers") / subject):
            try:
                yield self.manifest(repository, digest, touch=False)
            except RegistryError:
                continue  # it has just been deleted

    # ---- for the collector

    def unlink_blob(self, repository: str, digest: str) -> None:
        """Take a blob from the repository, if it has it."""
        (self._place(repository, "blobs") / digest).unlink(missing_ok=True)

    def all_blobs(self) -> Iterator[tuple[str, Path]]:
        """Every blob there is: its digest and its file."""
        for algorithm in names.ALGORITHMS:
            for path in (self._blobs / algorithm).glob("*/*"):
                if names.is_digest(digest := f"{algorithm}:{path.name}"):
                    yield digest, path


def _listing(directory: Path) -> list[str]:
    try:
        return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
