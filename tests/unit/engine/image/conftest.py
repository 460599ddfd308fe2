"""A store in a directory of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_archives import Opened, Tar


@pytest.fixture
async def opened(tmp_path: Path) -> Opened:
    opened = Opened(tmp_path / "image")
    await opened.store.open()
    return opened


@pytest.fixture
def layer() -> bytes:
    return Tar().directory("etc").add("etc/hostname", b"box\n").bytes()
