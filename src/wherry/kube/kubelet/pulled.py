"""Who showed a registry that it may have an image, so that others cannot have it for nothing.

An image that was pulled with a secret lies on the node for all to see; a pod without a user that
the registry took must pull it again, and fails as it would on a node of its own. What was built,
loaded or tagged here belongs to the node. Follows KEP-2535 and
https://kubernetes.io/docs/concepts/containers/images/#ensureimagepullcredentialverification.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path

from wherry.engine.cri.types import AuthConfig
from wherry.host.files import write_atomic

log = logging.getLogger(__name__)

NEVER = "NeverVerify"
PRELOADED, ALLOWLISTED = "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages"
ALWAYS = "AlwaysVerify"
POLICIES = (NEVER, PRELOADED, ALLOWLISTED, ALWAYS)
_ANYBODY = ""


class PulledImages:
    """What this kubelet pulled: image ids, below them repositories, and who had them.

    Users are kept as salted hashes in ``file``, which only root may read; without ``file`` all is
    forgotten with the process.
    """

    def __init__(
        self, file: Path | None = None, policy: str = PRELOADED, allowlist: Sequence[str] = ()
    ) -> None:
        self._file = file
        self._policy = policy
        self._allowlist = allowlist
        self._salt = ""
        self._images: dict[str, dict[str, list[str]]] | None = None

    def needs_proof(self, image_id: str, name: str, users: Sequence[AuthConfig]) -> bool:
        """Whether the registry must be asked if ``users`` may have an image that is here."""
        if self._policy == NEVER:
            return False
        known = self._known().get(image_id)
        repository = repository_of(name)
        holders = (known or {}).get(repository)
        if holders is None:
            if known is not None and not repository:
                return True  # by its id alone, it is whoever's it was pulled for
            return self._policy == ALWAYS or (
                self._policy == ALLOWLISTED and not self._is_allowed(repository)
            )
        return _ANYBODY not in holders and not any(self._hash(u) in holders for u in users)

    def note(
        self, image_id: str, name: str, user: AuthConfig | None, present: Collection[str]
    ) -> None:
        """``user`` has pulled it; ``present`` are the ids of all images that are here."""
        images = self._known()
        for gone in set(images) - set(present) - {image_id}:
            del images[gone]
        holders = images.setdefault(image_id, {}).setdefault(repository_of(name), [])
        holder = _ANYBODY if user is None else self._hash(user)
        if holder not in holders:
            holders.append(holder)
            self._save()

    def _known(self) -> dict[str, dict[str, list[str]]]:
        if self._images is None:
            self._images, self._salt = {}, secrets.token_hex(16)
            try:
                text = self._file.read_text() if self._file is not None else ""
                if text:
                    document = json.loads(text)
                    self._images, self._salt = dict(document["images"]), str(document["salt"])
            except FileNotFoundError:
                pass
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("who pulled which image is forgotten: %s: %s", self._file, error)
        return self._images

    def _save(self) -> None:
        if self._file is None:
            return
        document = {"salt": self._salt, "images": self._images}
        try:
            write_atomic(self._file, json.dumps(document).encode())
        except OSError as error:
            # (A full disk, say.) It is known to this process all the same.
            log.warning("who pulled which image is not written down: %s", error)

    def _hash(self, user: AuthConfig) -> str:
        self._known()
        text = json.dumps([self._salt, user.username, user.password, user.identity_token])
        return hashlib.sha256(text.encode()).hexdigest()

    def _is_allowed(self, repository: str) -> bool:
        return any(
            repository.startswith(entry[:-1]) if entry.endswith("/*") else repository == entry
            for entry in self._allowlist
        )


def repository_of(name: str) -> str:
    """The name of an image without its tag or digest; empty for an id."""
    if name.startswith("sha256:") or (len(name) == 64 and not set(name) - set("0123456789abcdef")):
        return ""
    name = name.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"
