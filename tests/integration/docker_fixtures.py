"""Fixtures of the tests of the engine alone; import them to use them."""

from __future__ import annotations

import functools
import shutil
import tempfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

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


@pytest.fixture
def http_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Files served over HTTP on loopback: ``root`` and ``url``."""
    root = tmp_path_factory.mktemp("http")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(root))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield SimpleNamespace(root=root, url=f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_volumes(daemon: Daemon) -> Iterator[None]:
    """No containers and volumes are left, and nothing is mounted."""
    yield
    daemon.remove_all()
    names = daemon.docker("volume", "ls", "-q").out.split()
    if names:
        daemon.docker("volume", "rm", *names)
    assert daemon.holdings()["mounts"] == []


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory of the host, away from the engine's own."""
    path = tmp_path / "host"
    path.mkdir()
    return path
