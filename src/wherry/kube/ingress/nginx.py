"""The nginx process: it outlives who drives it, and is found again by its pid file."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from wherry.host.inotify import Directory
from wherry.host.readiness import readable
from wherry.kube.ingress import orphans

_TIMEOUT = 30.0  # seconds
_STOP_TIMEOUT = 10.0
_SAID = 64 * 1024  # bytes of what it says that are read
_SECRETS = "secrets"
_ENDING = b"is shutting down"  # in the title of a process that takes no more connections

_SECRET_NAME = re.compile(rf"/{_SECRETS}/([0-9a-z.]+);")

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
        self._former: frozenset[str] = frozenset()

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

    @property
    def serves(self) -> bool:
        """Whether one answers, with its master or, where that was killed, without."""
        return self.pid is not None or bool(orphans.find(self._directory))

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
        """Remove the secrets that neither this configuration names nor the one before it.

        Who reads passwords by that one may still have a request to answer.
        """
        for path in self._secrets.iterdir():
            if path.name not in kept and path.name not in self._former:
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
        if path.exists():
            self._former = frozenset(_SECRET_NAME.findall(path.read_text()))
        waiting.rename(path)
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGHUP)
            return
        left = orphans.find(self._directory)
        if sockets := orphans.listening(left):
            await self._take_over(path, sockets)
        orphans.end(left)
        if self.pid is None:
            await self._run("-c", str(path))

    async def _take_over(self, path: Path, sockets: Sequence[socket.socket]) -> None:
        """Start with sockets that are listened at already; it may be in vain."""
        numbers = [found.fileno() for found in sockets]
        with Directory(self._directory, content=True) as watched:
            # By a shell that does not wait: with these nginx does not go to the background itself.
            process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", '"$@" &', "sh", self._binary),
                *(*self._arguments(), "-c", str(path)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "NGINX": "".join(f"{number};" for number in numbers)},
                pass_fds=numbers,
            )
            await process.wait()
            for found in sockets:
                found.close()
            never = asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT):
                    while self.pid is None:  # until it has written its file
                        await watched.changed_or(never)

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

    async def version(self) -> tuple[int, ...]:
        """What it says of itself."""
        said = await self._run("-v")
        found = re.search(r"nginx/([0-9]+(?:\.[0-9]+)*)", said)
        return tuple(map(int, found[1].split("."))) if found else ()

    async def stop(self) -> None:
        """End it once its requests under way are answered, at the latest after ten seconds."""
        pid = self.pid
        if pid is None:
            orphans.end(orphans.find(self._directory))
            return
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            process = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(process, signal.SIGQUIT)
                async with asyncio.timeout(_STOP_TIMEOUT):
                    await readable(process)
            except TimeoutError:
                signal.pidfd_send_signal(process, signal.SIGTERM)
            finally:
                os.close(process)

    def _arguments(self) -> tuple[str, ...]:
        return "-p", str(self._directory), "-e", str(self._directory / "error.log")

    async def _run(self, *arguments: str) -> str:
        """What it says; it has ended, or gone on in the background.

        Raises:
            NginxError: it has failed.
        """
        # What it says goes to a file: a pipe would stay open as long as the daemon lives.
        with tempfile.TemporaryFile() as said:
            process = await asyncio.create_subprocess_exec(
                self._binary,
                *self._arguments(),
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
            said.seek(0)
            text = said.read(_SAID).decode(errors="replace").strip()
            if code:
                faults = [line for line in text.splitlines() if "[emerg]" in line]
                raise NginxError(" ".join(faults) or text or f"nginx ended with {code}")
            return text
