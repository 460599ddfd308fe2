"""Where the bytes of images lie: blobs as they were received, layers unpacked once.

    blobs/sha256/<hex>         configs, manifests and layers
    layers/<hex>/diff          a layer unpacked over the ones below it; <hex> is its chain id
    layers/<hex>/layer.json    what it came from
    tmp/                       whatever is not finished; emptied at every start

A layer is kept twice: packed as it was received, and unpacked. Docker keeps it once and stores what
tar headers looked like (tar-split) to put the archive together again. Keeping the received bytes
costs disk, as it does with containerd, and buys three things: what leaves by save or push has
exactly the digests with which it came, compressed layers included; every byte can be checked
against its name at any time; and save is a copy, not a reconstruction that depends on ten thousand
files being untouched.

Nothing gets its final name before it is complete and verified. A blob or layer without an image
that needs it is rubbish: ``collect`` sweeps it, except where a ``Lease`` of work in progress holds
it. Locks are held for renames only. All calls block and may come from any thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import stat
import tempfile
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from wherry.host.files import make_private, sync_directory

log = logging.getLogger(__name__)

# Up to so many files are synced one by one; for more, one sync of the file system is cheaper.
_SYNC_SINGLY = 64


@dataclass(frozen=True, slots=True)
class Layer:
    """What is known of an unpacked layer; ``size`` is in bytes, unpacked, as Docker counts it."""

    diff_id: str
    size: int
    entries: int
    blob: str  # digest of the archive it came from
    blob_size: int
    media_type: str


class Content:
    """Blobs and layers below ``root``. Digests and chain ids are written ``sha256:…``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.temporary = root / "tmp"
        self._trash = self.temporary / "trash"
        self.empty = root / "empty"
        self._blobs_dir = root / "blobs" / "sha256"
        self._layers_dir = root / "layers"
        self._lock = threading.Lock()
        self._blobs: set[str] = set()
        self._layers: dict[str, Layer] = {}
        self._pinned: Counter[str] = Counter()

    def open(self, blobs: Collection[str], layers: Collection[str]) -> None:
        """Take stock of the content named here; anything else is what a kill has left behind."""
        make_private(self.root)
        if self.temporary.exists():
            remove_tree(self.temporary)
        for directory in (self._trash, self._blobs_dir, self._layers_dir):
            make_private(directory)
        self.empty.mkdir(mode=0o755, exist_ok=True)
        for directory in self._layers_dir.iterdir():
            chain = f"sha256:{directory.name}"
            if chain in layers:
                try:
                    document = orjson.loads((directory / "layer.json").read_bytes())
                    self._layers[chain] = Layer(**document)
                except (OSError, ValueError, TypeError):
                    log.exception("layer %s is damaged", chain)
            else:
                remove_tree(directory)
        needed = {*blobs, *(layer.blob for layer in self._layers.values())}
        for blob in self._blobs_dir.iterdir():
            digest = f"sha256:{blob.name}"
            if digest in needed:
                self._blobs.add(digest)
            else:
                blob.unlink()

    # Looking

    def blob_path(self, digest: str) -> Path:
        """Where the blob lies, or would."""
        return self._blobs_dir / digest.removeprefix("sha256:")

    def read_blob(self, digest: str) -> bytes:
        """A small blob (a config, a manifest)."""
        return self.blob_path(digest).read_bytes()

    def layer(self, chain: str) -> Layer:
        """What is known of a layer that is there."""
        return self._layers[chain]

    def has_layer(self, chain: str) -> bool:
        """Whether the layer is there."""
        return chain in self._layers

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there."""
        return digest in self._blobs

    def diff(self, chain: str) -> Path:
        """The layer's directory, for overlay's ``lowerdir``."""
        return self._layer_path(chain) / "diff"

    # Adding

    @contextlib.contextmanager
    def lease(self) -> Iterator[Lease]:
        """Work during which nothing that it touches is swept, with a scratch directory."""
        scratch = Path(tempfile.mkdtemp(dir=self.temporary))
        lease = Lease(self, scratch)
        try:
            yield lease
        finally:
            with self._lock:
                self._pinned -= lease.pinned
            remove_tree(scratch)

    # Sweeping

    def collect(
        self, blobs: Collection[str], layers: Collection[str]
    ) -> tuple[list[str], list[Path]]:
        """Take away what is neither named here nor leased.

        Returns the chain ids of the layers taken, and the places they were moved to, which the
        caller is to ``remove_tree`` in its own time.
        """
        trash: list[Path] = []
        with self._lock:
            dead = [c for c in self._layers if c not in layers and not self._pinned[c]]
            for chain in dead:
                trash.append(self._layer_path(chain).rename(tempfile.mkdtemp(dir=self._trash)))
                del self._layers[chain]
            # A layer's own archive stays with it: the next image on it is saved with that.
            needed = {*blobs, *(layer.blob for layer in self._layers.values())}
            for digest in [b for b in self._blobs if b not in needed and not self._pinned[b]]:
                self.blob_path(digest).unlink()
                self._blobs.discard(digest)
        return dead, trash

    def _layer_path(self, chain: str) -> Path:
        return self._layers_dir / chain.removeprefix("sha256:")


class Lease:
    """A piece of work that adds to the content; what it touches stays until it ends."""

    def __init__(self, content: Content, scratch: Path) -> None:
        self._content = content
        self.scratch = scratch
        self.pinned: Counter[str] = Counter()
        self._fresh_blobs: list[Path] = []
        self._fresh_layers: list[tuple[Path, int]] = []

    def use_layer(self, chain: str) -> Layer | None:
        """The layer, held from now on; None where it is not there."""
        content = self._content
        with content._lock:
            layer = content._layers.get(chain)
            if layer is not None:
                self._pin(chain)
        return layer

    def use_blob(self, digest: str) -> bool:
        """Hold the blob from now on; False where it is not there."""
        content = self._content
        with content._lock:
            if digest not in content._blobs:
                return False
            self._pin(digest)
        return True

    def add_blob(self, file: Path, digest: str) -> None:
        """Move ``file`` in, whose content the caller has verified against ``digest``."""
        content = self._content
        with content._lock:
            self._pin(digest)
            if digest in content._blobs:
                return
            target = content.blob_path(digest)
            file.rename(target)
            content._blobs.add(digest)
        self._fresh_blobs.append(target)

    def add_blob_bytes(self, data: bytes, digest: str) -> None:
        """Store a small document."""
        if self.use_blob(digest):
            return
        descriptor, name = tempfile.mkstemp(dir=self.scratch)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        self.add_blob(Path(name), digest)

    def add_layer(self, chain: str, directory: Path, layer: Layer) -> Layer:
        """Move ``directory``, which holds a complete ``diff``, in; the layer that counts.

        Where someone else has brought the same layer meanwhile, theirs stays.
        """
        (directory / "layer.json").write_bytes(orjson.dumps(asdict(layer)))
        content = self._content
        with content._lock:
            self._pin(chain)
            existing = content._layers.get(chain)
            if existing is not None:
                return existing
            target = content._layer_path(chain)
            if target.exists():  # one that was found damaged at the start
                target.rename(tempfile.mkdtemp(dir=content._trash))
            directory.rename(target)
            content._layers[chain] = layer
        self._fresh_layers.append((target, layer.entries))
        return layer

    def sync(self) -> None:
        """Bring to the disk what this lease has added, names included."""
        content = self._content
        if not self._fresh_blobs and not self._fresh_layers:
            return
        files = len(self._fresh_blobs) + sum(entries for _, entries in self._fresh_layers)
        if files > _SYNC_SINGLY:
            _sync_file_system(content.root)
            return
        for blob in self._fresh_blobs:
            _sync_file(blob)
        for layer, _ in self._fresh_layers:
            for directory, _, names in os.walk(layer):
                for name in names:
                    _sync_file(Path(directory) / name)
                sync_directory(Path(directory))
        sync_directory(content._blobs_dir)
        sync_directory(content._layers_dir)

    def _pin(self, name: str) -> None:
        if not self.pinned[name]:
            self.pinned[name] = 1
            self._content._pinned[name] += 1


def remove_tree(directory: Path) -> None:
    """Delete a directory of ours that nobody else knows.

    ``shutil.rmtree`` guards against names being exchanged meanwhile, and takes five times as long.
    """
    pending, emptied = [str(directory)], []
    while pending:
        current = pending.pop()
        emptied.append(current)
        with os.scandir(current) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    os.unlink(entry.path)  # noqa: PTH108  a Path each would cost more than this
    for path in reversed(emptied):
        os.rmdir(path)  # noqa: PTH106


def _sync_file(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)
