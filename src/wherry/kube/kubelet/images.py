"""See that a container's image is there, as its pull policy says.

Follows pkg/kubelet/images/image_manager.go and
https://kubernetes.io/docs/concepts/containers/images/#image-pull-policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.engine.cri.types import AuthConfig, ContainerRuntime, CRIError, Image
from wherry.kube.api import meta
from wherry.kube.kubelet.backoff import Backoff
from wherry.kube.kubelet.pull_secrets import Entry, fitting
from wherry.kube.kubelet.pulled import PulledImages

Object = dict[str, Any]
Tell = Callable[[str, str, str], None]
"""Records an event: type, reason, message."""

_Key = tuple[str, str, tuple[AuthConfig, ...]]  # pod, image, users

TOLD_FOR = 5.0  # seconds after which ErrImagePull becomes ImagePullBackOff
_REFERENCE = re.compile(
    r"(?:(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z0-9+.-]+:[0-9a-fA-F]{32,})?"
)


class ImageError(Exception):
    """The image is not there; ``reason`` is the container's waiting reason.

    ``retry_after`` seconds from now it is worth another try; None: only when the pod changes.
    """

    def __init__(self, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Present:
    """An image that is there, and whom it says to run as."""

    id: str
    user: str


def default_policy(image: str) -> str:
    """Always for ``:latest`` or no tag, else IfNotPresent."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


class ImagePuller:
    """Finds and fetches images; pulls of one image at the same time are one pull."""

    def __init__(self, runtime: ContainerRuntime, pulled: PulledImages | None = None) -> None:
        self._runtime = runtime
        self._pulled = pulled or PulledImages()
        self._backoff = Backoff()
        self._failures: dict[_Key, tuple[float, str, str]] = {}
        self._pulls: dict[tuple[str, AuthConfig | None], asyncio.Future[str]] = {}

    async def ensure(
        self,
        pod: Object,
        container: Object,
        tell: Tell,
        known: Sequence[Entry] = (),
        missing: Sequence[str] = (),
    ) -> Present:
        """The image of ``container``, fetched if its policy wants that.

        An image that was built or loaded here, and so has no digest of a registry, is simply
        there: nobody has a newer one. One that was pulled with a secret is for those who have such
        a secret.

        Args:
            known: the users of registries that the pod's secrets tell of.
            missing: the names of those secrets that are not there.

        Raises:
            ImageError: it cannot be had now.
        """
        image = container.get("image") or ""
        if not _REFERENCE.fullmatch(image) and not re.fullmatch(r"(sha256:)?[0-9a-f]{64}", image):
            message = (
                f'Failed to apply default image tag "{image}": couldn\'t parse image name '
                f'"{image}": invalid reference format'
            )
            tell("Warning", "InspectFailed", message)
            raise ImageError("InvalidImageName", message)
        policy = container.get("imagePullPolicy") or default_policy(image)
        try:
            found = await self._runtime.image_status(image)
        except CRIError as error:
            message = f'Failed to inspect image "{image}": {error}'
            tell("Warning", "InspectFailed", message)
            raise ImageError("ImageInspectError", message, 10.0) from error
        users = tuple(fitting(image, known))
        if (
            found is not None
            and (policy != "Always" or not found.repo_digests)
            and not self._pulled.needs_proof(found.id, image, users)
        ):
            tell(
                "Normal",
                "Pulled",
                f'Container image "{image}" already present on machine '
                "and can be accessed by the pod",
            )
            return Present(found.id, found.user)
        if policy == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            tell("Warning", "ErrImageNeverPull", message)
            raise ImageError("ErrImageNeverPull", message, 10.0)
        if missing:
            tell(
                "Warning",
                "FailedToRetrieveImagePullSecret",
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
                "attempting to pull the image may not succeed.",
            )
        return await self._pull(pod, image, tell, users)

    async def _pull(
        self, pod: Object, image: str, tell: Tell, users: tuple[AuthConfig, ...]
    ) -> Present:
        # Other users are another try: a secret that comes is used at once.
        key = (meta.uid(pod), image, users)
        now = time.monotonic()
        if key in self._failures:
            failed_at, why, registry_reason = self._failures[key]
            remaining = self._backoff.remaining(key, failed_at, now)
            if remaining > 0:
                message = f'Back-off pulling image "{image}"'
                tell("Normal", "BackOff", message)
                raise ImageError(
                    "ImagePullBackOff", f"{message}: {registry_reason}: {why}", remaining
                )
        tell("Normal", "Pulling", f'Pulling image "{image}"')
        begun = time.monotonic()
        try:
            id_, user = await self._pull_with(image, users)
            found = await self._runtime.image_status(id_) or Image(id_)
            present = [one.id for one in await self._runtime.list_images()]
        except CRIError as error:
            reason = error.reason or "ErrImagePull"
            tell("Warning", "Failed", f'Failed to pull image "{image}": {error.message}')
            now = time.monotonic()
            self._failures[key] = (now, error.message, reason)
            self._backoff.next(key, now, now)
            again = min(self._backoff.delay(key), TOLD_FOR)
            raise ImageError(reason, error.message, again) from error
        self._pulled.note(found.id, image, user, present)
        self._failures.pop(key, None)
        self._backoff.reset(key)
        took = f"{(time.monotonic() - begun) * 1000:.0f}ms"
        tell(
            "Normal",
            "Pulled",
            f'Successfully pulled image "{image}" in {took} ({took} including waiting). '
            f"Image size: {found.size} bytes.",
        )
        return Present(found.id, found.user)

    async def _pull_with(
        self, image: str, users: tuple[AuthConfig, ...]
    ) -> tuple[str, AuthConfig | None]:
        """Try one user after the other; the image's id and who had it. The last failure is told."""
        for user in users[:-1]:
            with contextlib.suppress(CRIError):
                return await self._pull_once(image, user), user
        last = users[-1] if users else None
        return await self._pull_once(image, last), last

    async def _pull_once(self, image: str, user: AuthConfig | None) -> str:
        key = (image, user)
        task = self._pulls.get(key)
        if task is None:
            pulling = self._runtime.pull_image(image, user)
            task = asyncio.ensure_future(pulling)
            self._pulls[key] = task
            task.add_done_callback(lambda _: self._pulls.pop(key, None))
        return await asyncio.shield(task)

    def release(self, pod: Object) -> None:
        """Forget the failures of a pod that has gone."""
        for key in [k for k in self._failures if k[0] == meta.uid(pod)]:
            del self._failures[key]
            self._backoff.reset(key)
