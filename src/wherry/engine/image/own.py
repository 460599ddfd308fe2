"""The images that every node makes itself, from what is on its machine, once a pod asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wherry.engine.image import busybox

if TYPE_CHECKING:
    from wherry.engine.image.store import ImageStore

INGRESS: Final = "wherry.io/ingress-nginx:1"
IMAGES: Final = frozenset((busybox.REFERENCE, INGRESS))


async def ensure(store: ImageStore, image: str) -> None:
    """Make ``image``, one of these, where it is missing.

    Raises:
        Unavailable: what it is made from is not installed.
    """
    if image == busybox.REFERENCE:
        await busybox.ensure_busybox(store)
    else:
        from wherry.engine.image.ingress import ensure_ingress  # few ask for it

        await ensure_ingress(store, image)
