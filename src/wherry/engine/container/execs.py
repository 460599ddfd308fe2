"""Processes added to running containers: ``docker exec``.

An exec is made first and started later, possibly by another client; it lives in memory only, as its
process is a child of the daemon and ends with it.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wherry.engine.container import detach, links, users
from wherry.engine.container.container import Container
from wherry.engine.container.failure import exec_error
from wherry.engine.container.lifecycle import Lifecycle
from wherry.engine.container.spec import process
from wherry.engine.container.streams import Outcome, connect
from wherry.engine.cri.types import ProcessStream
from wherry.engine.errors import BadParameter, Conflict, EngineError, NotFound
from wherry.host.hijack import HijackedStream
from wherry.runtime.streams import ExecProcess
from wherry.runtime.types import RuntimeFailure
from wherry.wire.docker_stream import STDOUT, frame

# A finished exec can be asked for its exit code for this many seconds, as with Docker.
KEPT = 300.0


@dataclass(slots=True, eq=False)
class Exec:
    """One added process."""

    container: Container
    command: list[str]
    tty: bool = False
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    user: str = ""
    working_dir: str = ""
    env: Sequence[str] = ()
    privileged: bool = False
    detach_keys: bytes = b""  # empty: the usual ones
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    running: bool = False
    started: bool = False
    exit_code: int | None = None
    pid: int = 0
    finished_at: float = 0.0
    size: tuple[int, int] | None = None  # width and height, told before the start
    process: ExecProcess | None = None


class Execs:
    """All execs of one engine."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._execs: dict[str, Exec] = {}
        lifecycle.on_settled = self.forget

    def add(self, exec_: Exec, reference: str = "") -> Exec:
        """Remember it, to be started later; ``reference`` is what its container was called.

        Raises:
            Conflict: its container does not run, or is paused.
            BadParameter: there is no command.
        """
        self.check_container(exec_.container, reference)
        if not exec_.command:
            raise BadParameter("No exec command specified")
        self._expire()
        self._execs[exec_.id] = exec_
        self._tell(exec_, f"exec_create: {_words(exec_.command)}")
        return exec_

    @staticmethod
    def check_container(container: Container, reference: str = "") -> None:
        """Whether something can be executed in it; ``reference`` is how a client has called it.

        Raises:
            Conflict: it does not run, or not now.
        """
        state = container.state
        if not state.running:
            raise Conflict(f"container {container.id} is not running")
        if state.paused:
            shown = reference or container.id
            raise Conflict(f"Container {shown} is paused, unpause the container before exec")
        if state.restarting:
            raise Conflict(
                f"Container {container.id} is restarting, wait until the container is running"
            )

    def get(self, id: str) -> Exec:
        """The exec with this id.

        Raises:
            NotFound: there is none (any more).
        """
        found = self._execs.get(id)
        if found is None:
            matches = [exec_ for key, exec_ in self._execs.items() if id and key.startswith(id)]
            if len(matches) != 1:
                raise NotFound(f"No such exec instance: {id}")
            found = matches[0]
        if self._is_gone(found):
            del self._execs[found.id]
            raise NotFound(f"No such exec instance: {id}")
        return found

    def _is_gone(self, exec_: Exec) -> bool:
        """Whether its container has been removed."""
        return self._lifecycle.store.find(exec_.container.id) is not exec_.container

    def of(self, container: Container) -> list[str] | None:
        """The ids of those of ``container`` that have not ended; None where there are none."""
        return [
            id for id, e in self._execs.items() if e.container is container and e.exit_code is None
        ] or None

    def forget(self, container: Container) -> None:
        """Drop those that were never started in a container that has ended."""
        for id in self.of(container) or ():
            if not self._execs[id].started:
                del self._execs[id]

    def _expire(self) -> None:
        oldest = time.monotonic() - KEPT
        for id, exec_ in tuple(self._execs.items()):
            if self._is_gone(exec_) or (exec_.finished_at and exec_.finished_at < oldest):
                del self._execs[id]

    def _tell(self, exec_: Exec, action: str, attributes: dict[str, str] | None = None) -> None:
        self._lifecycle.publish(exec_.container, action, {"execID": exec_.id, **(attributes or {})})

    async def launch(self, exec_: Exec) -> ExecProcess:
        """Execute it.

        Raises:
            BadParameter, EngineError: it cannot be executed; its exit code is 126, 127 or 128.
        """
        container = exec_.container
        exec_.started = True
        try:
            account = users.account_of(container, exec_.user)
            specification = process(
                container,
                account,
                args=exec_.command,
                env=exec_.env,
                linked=links.environment(
                    container, links.linked(container, self._lifecycle.store, strict=False)
                ),
                cwd=exec_.working_dir,
                terminal=exec_.tty,
                privileged=exec_.privileged,
            )
            self._tell(exec_, f"exec_start: {_words(exec_.command)}")
            size = exec_.size
            started = await self._lifecycle.runtime.exec(
                container.id, replace(specification, console_size=size), stdin=exec_.stdin
            )
        except (RuntimeFailure, EngineError) as error:
            exec_.exit_code = error.exit_code if isinstance(error, RuntimeFailure) else 126
            exec_.finished_at = time.monotonic()
            if isinstance(error, RuntimeFailure):
                raise exec_error(error) from error
            raise
        exec_.process, exec_.pid, exec_.running = started, started.pid, True
        if exec_.size and exec_.size != size:
            await started.resize(*exec_.size)
        return started

    async def finish(self, exec_: Exec, process_: ProcessStream) -> None:
        """Wait for its end, keep its exit code and tell of it."""
        exec_.exit_code = await process_.wait()
        exec_.running, exec_.process = False, None  # (its pid stays to be seen)
        exec_.finished_at = time.monotonic()
        await process_.close()
        self._tell(exec_, "exec_die", {"exitCode": str(exec_.exit_code)})

    def check_startable(self, exec_: Exec) -> None:
        """Whether it has not been started before, and can be now.

        Raises:
            Conflict: it has been, or its container has changed.
        """
        if exec_.running:
            raise Conflict(f"Error: Exec command {exec_.id} is already running")
        if exec_.started:
            raise Conflict(f"Error: Exec command {exec_.id} has already run")
        self.check_container(exec_.container)

    async def run_detached(self, exec_: Exec) -> None:
        """Start it and leave it to itself; what it writes is thrown away."""
        started = await self.launch(exec_)
        self._lifecycle.attend(self._drain(exec_, started))

    async def run_attached(self, exec_: Exec, client: HijackedStream, *, framed: bool) -> None:
        """Start it with the client's connection as its streams; returns when either is done.

        ``framed`` is how the client reads the output, which is for it to say.
        """
        outputs = frozenset(n for n, on in ((1, exec_.stdout), (2, exec_.stderr)) if on)
        try:
            started = await self.launch(exec_)
        except EngineError as error:
            # The connection is no longer HTTP: the message goes where the output would have gone.
            message = f"{error.message}\r\n".encode()
            await client.write(frame(STDOUT, message) if framed else message)
            return
        outcome = await connect(
            client,
            started,
            framed=framed,
            terminal=exec_.tty,
            stdin=exec_.stdin,
            outputs=outputs,
            detach_keys=exec_.detach_keys or detach.DEFAULT,
        )
        if outcome is Outcome.ENDED:
            await self.finish(exec_, started)
            return
        if outcome is Outcome.DETACHED:
            self._tell(exec_, "exec_detach")
        self._lifecycle.attend(self._drain(exec_, started))

    async def _drain(self, exec_: Exec, started: ExecProcess) -> None:
        """Nobody listens (any more), but the process shall not be held up by that."""
        await started.close_stdin()
        while (await started.read())[0]:
            continue
        await self.finish(exec_, started)

    async def resize(self, exec_: Exec, width: int, height: int) -> None:
        """Give its terminal a size, now or at its start.

        Raises:
            Conflict: it has ended, or its container does not run.
        """
        self.check_container(exec_.container)
        exec_.size = (width, height)
        if exec_.process is not None:
            await exec_.process.resize(width, height)
        elif exec_.exit_code is not None:
            raise Conflict(f"exec {exec_.id} is not running")

    def inspect(self, exec_: Exec) -> dict[str, Any]:
        """ExecInspectResponse of the API."""
        user = exec_.user or exec_.container.config["User"]
        return {
            "ID": exec_.id,
            "Running": exec_.running,
            "ExitCode": exec_.exit_code,
            "ProcessConfig": {
                "tty": exec_.tty,
                "entrypoint": exec_.command[0],
                "arguments": exec_.command[1:],
                "privileged": exec_.privileged,
                **({"user": user} if user else {}),
            },
            "OpenStdin": exec_.stdin,
            "OpenStderr": exec_.stderr,
            "OpenStdout": exec_.stdout,
            "CanRemove": False,
            "ContainerID": exec_.container.id,
            "DetachKeys": base64.b64encode(exec_.detach_keys).decode(),
            "Pid": exec_.pid,
        }


def _words(command: Sequence[str]) -> str:
    """A command in an event: the program, a blank, and its arguments, if any."""
    return f"{command[0]} {' '.join(command[1:])}"
