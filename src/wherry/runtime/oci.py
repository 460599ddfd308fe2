"""The OCI runtime's command line: crun, else runc, which take the same commands.

https://github.com/opencontainers/runtime-spec/blob/v1.0.2/runtime.md
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherry.host.process import run
from wherry.runtime.types import ExitStatus, RuntimeFailure


def preference(*, is_v2: bool, privileges: Collection[str]) -> tuple[str, ...]:
    """The runtimes in the order in which we like them.

    crun is quicker, but where devices are a matter of BPF (cgroups v2) it insists on lifting the
    limit of locked memory, which root may not do everywhere.
    """
    if is_v2 and "CAP_SYS_RESOURCE" not in privileges:
        return "runc", "crun"
    return "crun", "runc"


def find(preferred: Sequence[str]) -> Path:
    """The runtime to use.

    Raises:
        RuntimeFailure: none is installed.
    """
    for name in preferred:
        if found := shutil.which(name, path=_PATH):
            return Path(found)
    names = " or ".join(preferred)
    raise RuntimeFailure(f"no OCI runtime found: install {names}")


# A daemon's PATH may lack the system's directories.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class OCIRuntime:
    """One runtime program with one state directory."""

    program: Path
    root: Path

    @property
    def is_crun(self) -> bool:
        """Whether this is crun, whose manners we know better."""
        return self.program.name == "crun"

    @property
    def global_arguments(self) -> list[str]:
        """What comes before the command."""
        return [f"--root={self.root}"]

    def command(self, *args: str | Path) -> list[str]:
        """The whole command line of ``args``."""
        return [str(self.program), *self.global_arguments, *map(str, args)]

    def waits_for_start(self, id: str) -> bool:
        """Whether container ``id`` is created and not started: both runtimes then keep a FIFO."""
        return self._fifo(id).exists()

    def _fifo(self, id: str) -> Path:
        return self.root / id / "exec.fifo"

    async def start(
        self, id: str, command: Sequence[str], ended: asyncio.Future[ExitStatus]
    ) -> None:
        """Have container ``id`` execute ``command``; ``ended`` comes true at its end.

        A process that is killed just before would be awaited for ever at the FIFO: then we stand in
        for it.

        Raises:
            RuntimeFailure: with what the runtime said.
        """
        starting = asyncio.ensure_future(self.call("start", id, command=command))
        try:
            either: set[asyncio.Future[Any]] = {starting, ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            with self._reader(id) if not starting.done() else contextlib.nullcontext():
                await starting
        finally:
            starting.cancel()

    @contextlib.contextmanager
    def _reader(self, id: str) -> Iterator[None]:
        """Be at the other end of the FIFO of container ``id``, where it still has one."""
        try:
            descriptor = os.open(self._fifo(id), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            yield
            return
        try:
            yield
        finally:
            os.close(descriptor)

    async def call(
        self, *args: str | Path, command: Sequence[str] = (), input: Mapping[str, Any] | None = None
    ) -> None:
        """Run a command to its end; ``command`` is what the container was to execute.

        Raises:
            RuntimeFailure: with what the runtime said.
        """
        data = json.dumps(input).encode() if input is not None else None
        done = await run(self.command(*args), input=data)
        if done.exit_code != 0:
            raise failure(done.stderr.decode(errors="replace"), command)


_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z?:?\s+")
_NOT_FOUND = re.compile(r"executable file [`\"']?(?P<name>.*?)[`\"']? not found in \$PATH")
_CRUN_OPEN = re.compile(
    r"^(?:open|exec) executable: (?P<reason>.*)|^exec `(?P<name>.*)`: (?P<why>.*)"
)
_CHDIR = re.compile(r"^chdir `(?P<directory>.*)`: (?P<reason>.*)")
_MOUNT = re.compile(r"^mount `(?P<source>.*)` to `/?(?P<target>.*)`: (?P<reason>.*)")
_STAT = re.compile(r"^error stat'ing file `(?P<source>.*)`: (?P<reason>.*)")
_RUNC = re.compile(r"exec: (?P<name>\".*?\"): (?P<reason>.*)", re.DOTALL)


def failure(text: str, command: Sequence[str], rootfs: Path | None = None) -> RuntimeFailure:
    """What the runtime's complaint means, in the words Docker's users know.

    Docker's exit codes: 127 where the command is not there, 126 where it cannot be executed, else
    128 (docker run reference, "Exit status"). ``rootfs``, where given, tells a missing command from
    a directory, which crun does not.
    """
    reason = _message(text)
    name = command[0] if command else ""
    if match := _RUNC.search(reason):
        if _is_directory(name, rootfs):
            return _classify(f"exec: {match['name']}: is a directory")
        return _classify(f"exec: {match['name']}: {match['reason']}")
    if match := _NOT_FOUND.search(reason):
        return _not_found(match["name"] or name, rootfs)
    if match := _CRUN_OPEN.match(reason):
        why = match["reason"] or match["why"]
        if _is_directory(name, rootfs):
            return _classify(f'exec: "{name}": is a directory')
        return _classify(f'exec: "{match["name"] or name}": {why[:1].lower()}{why[1:]}')
    if match := _CHDIR.match(reason):
        directory, why = match["directory"], match["reason"].lower()
        return _classify(f'chdir to cwd ("{directory}") set in config.json failed: {why}')
    if match := _MOUNT.match(reason):
        source, target, why = match["source"], f"/{match['target']}", match["reason"].lower()
        return _classify(
            f'error during container init: error mounting "{source}" to rootfs at "{target}": '
            f"mount {source}:{target}: {why}"
        )
    if match := _STAT.match(reason):
        source, why = match["source"], match["reason"].lower()
        return _classify(
            f'error during container init: error mounting "{source}" to rootfs: '
            f"stat {source}: {why}"
        )
    return _classify(reason or "the OCI runtime failed without a word")


def _message(text: str) -> str:
    """The last complaint in a runtime's output: plain lines (crun) or JSON or logfmt (runc)."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    for line in reversed(lines):
        if line.startswith("{"):
            try:
                return str(json.loads(line)["msg"])
            except (ValueError, KeyError):
                continue
        if match := re.search(r'msg="((?:[^"\\]|\\.)*)"', line):
            return match[1].replace('\\"', '"').replace("\\\\", "\\")
    return _STAMP.sub("", lines[-1])


def _not_found(name: str, rootfs: Path | None) -> RuntimeFailure:
    if "/" not in name:
        return RuntimeFailure(f'exec: "{name}": executable file not found in $PATH', 127)
    if _is_directory(name, rootfs):
        return RuntimeFailure(f'exec: "{name}": is a directory', 126)
    if rootfs is not None and (rootfs / name.lstrip("/")).is_file():
        return RuntimeFailure(f'exec: "{name}": permission denied', 126)
    return RuntimeFailure(f'exec: "{name}": stat {name}: no such file or directory', 127)


def _is_directory(name: str, rootfs: Path | None) -> bool:
    return rootfs is not None and "/" in name and (rootfs / name.lstrip("/")).is_dir()


def _classify(message: str) -> RuntimeFailure:
    lower = message.lower()
    if "executable file not found" in lower or "no such file or directory" in lower:
        return RuntimeFailure(message, 127)
    if "permission denied" in lower or "is a directory" in lower:
        return RuntimeFailure(message, 126)
    if "not a directory" in lower:
        return RuntimeFailure(message, 127)
    return RuntimeFailure(message, 128)
