"""CRI's ImageService on the engine: what a kubelet wants of images."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from wherry.engine.cri import status
from wherry.engine.cri.errors import cri_errors
from wherry.engine.cri.types import AuthConfig, Image
from wherry.engine.engine import Engine
from wherry.engine.errors import EngineError, NotFound
from wherry.engine.image import own
from wherry.engine.image.distribution.credentials import Credentials


class EngineImages:
    """The images of an engine, and those that it makes itself when they are asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._making = asyncio.Lock()

    async def image_status(self, image: str) -> Image | None:
        """The image; None where it is not in the store, or its name is none."""
        try:
            await self._make_own(image)
            return status.image(self._engine.images.resolve(image))
        except EngineError:
            return None

    async def _make_own(self, image: str) -> bool:
        if image not in own.IMAGES:
            return False
        async with self._making:
            await own.ensure(self._engine.images, image)
        return True

    @cri_errors("ErrImagePull")
    async def pull_image(self, image: str, auth: AuthConfig | None = None) -> str:
        """Fetch it; returns its id. Our own images are made here, or it is said why not."""
        if await self._make_own(image):
            return self._engine.images.resolve(image).id
        who = auth or AuthConfig()
        credentials = Credentials(who.username, who.password, who.identity_token)
        return (await self._engine.images.fetch(image, credentials)).id

    async def list_images(self) -> Sequence[Image]:
        """All images."""
        return [status.image(stored) for stored in self._engine.images.list()]

    async def images_in_use(self) -> Collection[str]:
        """Those of Docker's containers, too."""
        return {container.image_id for container in self._engine.containers.store.all()}

    @cri_errors()
    async def remove_image(self, image: str) -> None:
        """Untag it, and remove what nothing uses."""
        try:
            await self._engine.images.remove(image)
        except NotFound:
            return
