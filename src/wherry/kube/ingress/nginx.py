"""The nginx process: it outlives who drives it, and is found again by its pid file."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

_TIMEOUT = 30.0  # seconds
_STOP_TIMEOUT = 10.0
_SAID = 64 * 1024  # bytes of what it says that are read
_SECRETS = "secrets"
_ENDING = b"is shutting down"  # in the title of a process that takes no more connections

WORKERS = "nobody", "nogroup"
"""User and group of the processes that serve."""
OLD_WORKERS = 32
"""So many processes of former configurations may stay with their connections."""
PASSWORDS = ".passwords"
"""Ends the names of files that those processes read."""


class NginxError(Exception):
    """nginx refused; ``str()`` is what it said."""


def find(path: str = "") -> str:
    """The program.

    Raises:
        NginxError: it is not here.
    """
    found = shutil.which(path or "nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise NginxError(
            "nginx is not here: install it (on Debian and Ubuntu: apt-get install nginx)"
        )
    return found


def listeners(port: int) -> tuple[str, ...]:
    """Where to listen for a port: all addresses, of both families where this machine has both."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return (str(port),)
    return (str(port), f"[::]:{port}")


class Nginx:
    """One nginx with all that it needs below ``directory``."""

    def __init__(self, binary: str, directory: Path) -> None:
        self._binary = binary
        self._directory = directory
        self._secrets = directory / _SECRETS

    def prepare(self) -> None:
        """Make the directories."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._secrets.mkdir(exist_ok=True, mode=0o711)
        (self._directory / "tmp").mkdir(exist_ok=True, mode=0o711)

    @property
    def pid(self) -> int | None:
        """Of the master process, where one runs on this directory."""
        try:
            pid = int((self._directory / "nginx.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self._directory).encode() in command else None

    def has_file(self, name: str) -> bool:
        """Whether there is such a secret."""
        return (self._secrets / name).exists()

    def keep_files(self, files: Mapping[str, bytes]) -> None:
        """Write the secrets that are not there yet.

        Keys are root's alone, as the master reads them; passwords are for the workers to read.
        """
        for name, content in files.items():
            path = self._secrets / name
            if path.exists():
                continue
            waiting = path.with_suffix(".new")
            descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                if path.suffix == PASSWORDS:
                    os.fchown(descriptor, -1, grp.getgrnam(WORKERS[1]).gr_gid)
                    os.fchmod(descriptor, 0o640)
            waiting.rename(path)

    def drop_files(self, kept: Mapping[str, bytes]) -> None:
        """Remove the secrets that no configuration names any more."""
        for path in self._secrets.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)

    async def test(self, text: str) -> str:
        """What nginx has against a configuration; empty where it has nothing."""
        path = self._directory / "nginx.test.conf"
        path.write_text(text)
        try:
            await self._run("-t", "-q", "-c", str(path))
        except NginxError as error:
            return str(error)
        return ""

    async def apply(self, text: str) -> None:
        """Let this tested configuration be the one in force.

        Raises:
            NginxError: nginx does not start.
        """
        path = self._directory / "nginx.conf"
        waiting = self._directory / "nginx.conf.new"
        waiting.write_text(text)
        waiting.rename(path)
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGHUP)
        else:
            await self._run("-c", str(path))

    def retire(self) -> None:
        """End the oldest processes of former configurations where there are too many.

        Each stays as long as its last request, or WebSocket, which may be for ever.
        """
        for pid in self._old_workers()[:-OLD_WORKERS]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _old_workers(self) -> list[int]:
        """The oldest first."""
        pid = self.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return []
        found = []
        for child in children:
            place = Path("/proc") / child
            with contextlib.suppress(OSError):  # it has just ended
                if _ENDING in (place / "cmdline").read_bytes():
                    began = (place / "stat").read_text().rpartition(")")[2].split()[19]
                    found.append((int(began), int(child)))
        return [child for _, child in sorted(found)]

    async def stop(self) -> None:
        """End it once its requests under way are answered, at the latest after ten seconds."""
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, signal.SIGQUIT)
        end = time.monotonic() + _STOP_TIMEOUT
        while self.pid is not None:
            if time.monotonic() > end:
                os.kill(pid, signal.SIGTERM)
                return
            await asyncio.sleep(0.05)

    async def _run(self, *arguments: str) -> None:
        # What it says goes to a file: a pipe would stay open as long as the daemon lives.
        with tempfile.TemporaryFile() as said:
            process = await asyncio.create_subprocess_exec(
                self._binary,
                "-p",
                str(self._directory),
                "-e",
                str(self._directory / "error.log"),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(_TIMEOUT):
                    code = await process.wait()
            except TimeoutError:
                process.kill()
                raise NginxError("nginx did not answer") from None
            if code:
                said.seek(0)
                text = said.read(_SAID).decode(errors="replace").strip()
                faults = [line for line in text.splitlines() if "[emerg]" in line]
                raise NginxError(" ".join(faults) or text or f"nginx ended with {code}")
