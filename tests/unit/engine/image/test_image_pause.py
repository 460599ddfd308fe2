"""The pause image is made once, from the host's catatonit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from image_archives import Opened, needs_root

from wherry.engine.errors import Unavailable
from wherry.engine.image import pause


@needs_root
@pytest.mark.skipif(shutil.which("catatonit") is None, reason="needs catatonit")
async def test_it_holds_the_program_and_is_made_once(opened: Opened, tmp_path: Path) -> None:
    assert await pause.ensure_pause(opened.store) == "registry.k8s.io/pause:3.10"
    image = opened.store.resolve(pause.REFERENCE)
    assert image.settings["Entrypoint"] == ["/pause", "-P"]
    (root,) = opened.store.layers(image)
    assert (root / "pause").read_bytes() == pause.find_catatonit().read_bytes()
    told = len(opened.events)
    await pause.ensure_pause(opened.store)
    assert len(opened.events) == told
    other = Opened(tmp_path / "other")
    await other.store.open()
    await pause.ensure_pause(other.store)
    assert other.store.resolve(pause.REFERENCE).id == image.id


async def test_its_absence_is_said(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause.shutil, "which", lambda name: None)
    monkeypatch.setattr(pause.os, "access", lambda place, mode: False)
    with pytest.raises(Unavailable, match="apt-get install catatonit"):
        await pause.ensure_pause(opened.store)
