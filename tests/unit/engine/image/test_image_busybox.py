"""The image of the cluster's own pods is made once, from the host's busybox."""

from __future__ import annotations

import shutil

import pytest
from image_archives import Opened, needs_root

from wherry.engine.errors import Unavailable
from wherry.engine.image import busybox


@needs_root
@pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox")
async def test_it_holds_the_program_and_its_names_and_is_made_once(opened: Opened) -> None:
    assert await busybox.ensure_busybox(opened.store) == "wherry.io/busybox:1"
    image = opened.store.resolve(busybox.REFERENCE)
    (root,) = opened.store.layers(image)
    program = busybox.find().read_bytes()
    assert (root / "bin" / "sh").read_bytes() == program
    assert (root / "bin" / "find").stat().st_ino == (root / "bin" / "busybox").stat().st_ino
    told = len(opened.events)
    await busybox.ensure_busybox(opened.store)
    assert len(opened.events) == told


async def test_its_absence_is_said(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busybox.shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="busybox-static"):
        await busybox.ensure_busybox(opened.store)
