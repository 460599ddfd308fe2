"""The keys of ServiceAccount tokens: one that signs, and all that are believed.

Several keys let one be replaced: the new one signs, the old one is believed until its last token
has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from wherry.host.files import write_atomic
from wherry.kube.api import jose


def ensure(path: Path) -> None:
    """Make a key that signs at ``path``, for its owner alone, where there is none."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, jose.generate().private_pem(), mode=0o600)


class Keys:
    """The keys of files, read when first needed (most servers start before anybody asks).

    Args:
        signing: the file with the private key that signs; without it, a key is made that lasts as
            long as the process.
        believed: files with more public or private keys, whose tokens are good too.
    """

    def __init__(self, signing: Path | None = None, believed: Sequence[Path] = ()) -> None:
        self._signing = signing
        self._believed = tuple(believed)

    def check(self) -> None:
        """Raises OSError, ValueError where a file cannot be what it should."""
        for path in (*([self._signing] if self._signing else []), *self._believed):
            if b"-----BEGIN " not in path.read_bytes():
                raise ValueError(f"{path}: it holds no PEM key")

    @cached_property
    def signer(self) -> jose.Key:
        """Raises OSError, BadKey."""
        if self._signing is None:
            return jose.generate()
        for key in jose.load(self._signing.read_bytes()):
            if key.private is not None:
                return key
        raise jose.BadKey(f"{self._signing}: it holds no private key")

    @cached_property
    def believed(self) -> tuple[jose.Key, ...]:
        """Raises OSError, BadKey."""
        keys = [self.signer]
        for path in self._believed:
            keys += jose.load(path.read_bytes())
        return tuple({key.id: key for key in reversed(keys)}.values())[::-1]

    def key_set(self) -> jose.Claims:
        """The public keys as a JSON Web Key Set."""
        return {"keys": [key.jwk() for key in self.believed]}
