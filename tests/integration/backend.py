"""A server behind the API server: on an address that is not loopback, as pods have."""

from __future__ import annotations

import contextlib
import random
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator

from aiohttp import web


@contextlib.contextmanager
def address() -> Iterator[str]:
    """An address of this machine that looks like a pod's; it goes at the end."""
    while True:
        found = f"10.254.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
        add = ["ip", "address", "add", f"{found}/32", "dev", "lo"]
        done = subprocess.run(add, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        assert re.search("exists|assigned", done.stderr), done.stderr  # somebody beside us has it
    try:
        yield found
    finally:
        subprocess.run(["ip", "address", "del", f"{found}/32", "dev", "lo"], check=True)


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, host: str, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """``app`` on a free port of ``host``."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0, ssl_context=context)
    await site.start()
    assert site._server is not None
    try:
        yield site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()
