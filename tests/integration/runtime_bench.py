"""One runtime on the real kernel for a test, and what it needs around it; see ``Bench``."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from wherry.runtime import capabilities, seccomp
from wherry.runtime.rootfs import mount_overlay
from wherry.runtime.service import Runtime
from wherry.runtime.types import (
    ContainerSpec,
    ExitStatus,
    ProcessSpec,
)

APPLETS = ("sh", "true", "cat", "sleep", "echo", "ls", "id", "wc", "stty", "dd", "test", "ps")
PATH = "PATH=/bin"
# A new size reaches a terminal beside what is typed, not behind it.
UNTIL_SIZE = 'while [ "$(stty size 2>/dev/null)" != "30 100" ]; do sleep 0.01; done'


class Log:
    """What a container's log is given."""

    def __init__(self) -> None:
        self.written: dict[int, bytes] = {1: b"", 2: b""}
        self.closed = False

    async def write(self, stream: int, data: bytes) -> None:
        assert not self.closed
        self.written[stream] += data

    async def close(self) -> None:
        assert not self.closed
        self.closed = True


class Bench:
    """One runtime with what its tests need around it."""

    def __init__(self, tmp: Path, layer: Path, program: str) -> None:
        self.tmp = tmp
        self.layer = layer
        self.name = f"/wherry-test-{os.getpid()}-{secrets.token_hex(3)}"
        self.program = program
        self.exits: dict[str, asyncio.Future[ExitStatus]] = {}
        self.logs: dict[str, Log] = {}
        self.runtime = self.make()

    def make(self) -> Runtime:
        return Runtime(
            state_dir=self.tmp / "state",
            run_dir=self.tmp / "run",
            cgroup_root=self.name,
            on_exit=lambda status: self.exit(status.id).set_result(status),
            program=self.program,
        )

    def exit(self, id: str) -> asyncio.Future[ExitStatus]:
        if id not in self.exits:
            self.exits[id] = asyncio.get_running_loop().create_future()
        return self.exits[id]

    async def ended(self, id: str) -> ExitStatus:
        async with asyncio.timeout(60):
            return await self.exit(id)

    def spec(self, *args: str, terminal: bool = False, **options: object) -> ContainerSpec:
        id = secrets.token_hex(32)
        target = self.tmp / "rootfs" / id
        upper, work = self.tmp / "upper" / id, self.tmp / "work" / id
        for path in (target, upper, work):
            path.mkdir(parents=True)
        mount_overlay([self.layer], upper, work, target)
        process = ProcessSpec(
            args=args,
            env=(PATH,),
            terminal=terminal,
            capabilities=capabilities.DEFAULT,
        )
        fields: dict[str, object] = {
            "id": id,
            "rootfs": target,
            "process": process,
            "hostname": id[:12],
            "seccomp": seccomp.default_profile(),
        }
        return ContainerSpec(**(fields | options))  # type: ignore[arg-type]

    async def create(self, *args: str, **options: object) -> str:
        spec = self.spec(*args, **options)  # type: ignore[arg-type]
        await self.runtime.create(spec, log=self.log(spec.id))
        return spec.id

    def log(self, id: str) -> Log:
        """A new log for a container; ``logs`` has the last one."""
        log = self.logs[id] = Log()
        return log

    async def restart(self, ids: Iterable[str]) -> Mapping[str, int | ExitStatus | None]:
        """The daemon ends and another one starts and takes ``ids`` up."""
        await self.runtime.close()
        self.runtime = self.make()
        await self.runtime.open()
        return await self.runtime.recover(ids, log=self.log)

    @property
    def monitor(self) -> int:
        """The monitor's pid."""
        client = self.runtime._monitors.existing
        assert client is not None
        return client.pid

    async def run(self, *args: str, **options: object) -> tuple[int, bytes]:
        """Exit code and output."""
        id = await self.create(*args, **options)
        stream = await self.runtime.attach(id, stdin=False)
        await self.runtime.start(id)
        output = await everything(stream)
        status = await self.ended(id)
        await self.runtime.delete(id)
        return status.exit_code, b"".join(output.values())


async def everything(stream) -> dict[int, bytes]:
    """All output until its end, by stream."""
    parts: dict[int, list[bytes]] = {1: [], 2: []}
    async with asyncio.timeout(60):
        while (piece := await stream.read()) != (0, b""):
            parts[piece[0]].append(piece[1])
    return {number: b"".join(pieces) for number, pieces in parts.items()}


async def soon(check: Callable[[], object]) -> None:
    """Wait for what nothing tells of."""
    async with asyncio.timeout(60):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether a process runs; whoever adopted it may take its time to bury it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
