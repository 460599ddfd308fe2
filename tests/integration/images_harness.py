"""The image half of the engine alone behind a unix socket, enough of it for the docker CLI."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import web

from wherry.engine.api import images
from wherry.engine.api.parameters import VERSION, json_response
from wherry.engine.errors import EngineError
from wherry.engine.image.store import ImageStore


class Daemon:
    """Runs in a thread of its own; ``containers`` is what it believes to use images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "docker.sock"
        self.events: list[tuple[str, str, dict[str, str]]] = []
        self.containers: dict[str, dict[str, bool]] = {}  # image id: {container id: runs}
        self.store: ImageStore
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Daemon:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        runner = self.loop.run_until_complete(self._serve())
        self._ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())
        self.loop.close()

    async def _serve(self) -> web.AppRunner:
        self.store = ImageStore(
            self.root / "image",
            notify=lambda *told: self.events.append((told[0], told[1], dict(told[2]))),
        )
        self.store.in_use = lambda image: list(self.containers.get(image, ()))
        self.store.is_running = lambda container: any(
            used.get(container, False) for used in self.containers.values()
        )
        await self.store.open()
        runner = web.AppRunner(_application(self.store), handler_cancellation=True)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        return runner

    def docker(self, *arguments: str, input: bytes | None = None, check: bool = True) -> Any:
        environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.root / "config"),
        }
        done = subprocess.run(
            ["docker", *arguments],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            env=environment,
            timeout=120,
            check=False,
        )
        result = SimpleNamespace(
            code=done.returncode,
            raw=done.stdout,
            out=done.stdout.decode("utf-8", "replace"),
            err=done.stderr.decode("utf-8", "replace"),
        )
        if check:
            assert done.returncode == 0, result.err
        return result


def _application(store: ImageStore) -> web.Application:
    engine: Any = SimpleNamespace(images=store)

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        version = request.match_info.get("version")
        if version:
            major, minor = version.split(".")
            request[VERSION] = int(major), int(minor)
        try:
            response = await handler(request)
        except EngineError as error:
            response = json_response({"message": error.message}, error.status)
        response.headers["Api-Version"] = "1.50"
        return response

    async def ping(request: web.Request) -> web.Response:
        return web.Response(text="OK", headers={"Api-Version": "1.50", "Ostype": "linux"})

    app = web.Application(middlewares=[middleware])
    for method in ("GET", "HEAD"):
        app.router.add_route(method, "/_ping", ping)
    for route in images.ROUTES:

        def bound(handler: Any) -> Any:
            async def call(request: web.Request) -> web.StreamResponse:
                return await handler(engine, request)

            return call

        for prefix in ("", "/v{version:[0-9.]+}"):
            app.router.add_route(route.method, prefix + route.path, bound(route.handler))
    return app


def tar_of(files: dict[str, bytes | str]) -> bytes:
    """A tar archive; a value that is text is a symbolic link, a name that ends in / a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mtime = 1_700_000_000
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size, info.mode = len(content), 0o755
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def busybox_root() -> bytes:
    """A root file system with nothing but busybox."""
    busybox = Path("/usr/bin/busybox").read_bytes()
    return tar_of(
        {
            "bin/": b"",
            "etc/": b"",
            "tmp/": b"",
            "bin/busybox": busybox,
            "bin/sh": "busybox",
            "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
        }
    )
