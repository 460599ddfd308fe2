"""Fixtures of the tests of the engine alone; import them to use them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_harness import Daemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """An engine with busybox in it, purged afterwards; nothing of it may stay."""
    root = Path(tempfile.mkdtemp(prefix="wherry-engine-"))
    daemon = Daemon(root)
    try:
        daemon.start()
        daemon.import_busybox()
        yield daemon
        daemon.stop()
    finally:
        daemon.purge()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def engine(daemon: Daemon) -> Iterator[Daemon]:
    """The same, without containers before and after each test."""
    yield daemon
    daemon.remove_all()
