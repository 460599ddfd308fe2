"""Start, watch and stop the two daemons of an instance, from the command line's side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.host.notify import NotifyListener
from wherry.host.pidfile import running_pid
from wherry.launcher.instance import Instance

START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0


class StartFailed(Exception):
    """A daemon ended, or did not become ready; the text ends with what its log says."""


@dataclass(frozen=True, slots=True)
class DaemonState:
    """One daemon as ``wherry status`` shows it; ``pid`` is None where it does not run."""

    name: str
    pid: int | None
    resident_bytes: int = 0


def states(instance: Instance) -> Sequence[DaemonState]:
    """What runs of the instance."""
    return [_state(instance, daemon) for daemon in instance.daemons]


def _state(instance: Instance, daemon: str) -> DaemonState:
    pid = running_pid(instance.pid_file(daemon))
    resident = 0
    if pid is not None:
        with contextlib.suppress(OSError, ValueError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            resident = pages * os.sysconf("SC_PAGE_SIZE")
    return DaemonState(daemon, pid, resident)


@dataclass(frozen=True, slots=True)
class Begun:
    """How long it took, in seconds, and why the node is not Ready if that is up to others now."""

    seconds: float
    why_not: str = ""

    def __str__(self) -> str:
        if self.why_not:
            return f"is not Ready yet: {self.why_not}"
        return f"is Ready after {self.seconds:.2f} s"


async def start(instance: Instance) -> Begun:
    """Start what does not run yet, and return when the node is Ready, or waits for others to bring
    the plugins of its network.

    Raises:
        StartFailed: nothing that this call started is left running.
    """
    begun = time.monotonic()
    wanted = [state.name for state in states(instance) if state.pid is None]
    listeners: dict[str, NotifyListener] = {}
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for daemon in wanted:
            listeners[daemon] = NotifyListener(instance.run_dir / f"{daemon}.notify")
            children[daemon] = _spawn(instance, daemon, listeners[daemon].path)
        async with asyncio.timeout(START_TIMEOUT):
            said = await _all_or_first_failure(
                [_ready(instance, d, listeners[d], children[d]) for d in wanted]
            )
    except BaseException as error:
        # Before they tell of their end.
        how = f"did not become ready in {START_TIMEOUT:.0f} s"
        last_words = "\n".join(_last_words(instance, daemon, how) for daemon in wanted)
        for child in children.values():
            if child.poll() is None:
                child.terminate()
        for child in children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(STOP_TIMEOUT)
            if child.poll() is None:
                child.kill()
        if isinstance(error, TimeoutError):
            raise StartFailed(last_words) from None
        raise
    finally:
        for listener in listeners.values():
            listener.close()
    return Begun(time.monotonic() - begun, "".join(said))


async def _all_or_first_failure(waits: Sequence[Coroutine[None, None, str]]) -> list[str]:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _spawn(instance: Instance, daemon: str, notify_socket: Path) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    environment["NOTIFY_SOCKET"] = str(notify_socket)
    # glibc keeps an arena a thread by default, which costs a daemon tens of MB for nothing.
    environment.setdefault("MALLOC_ARENA_MAX", "2")
    log = instance.logs / f"{daemon}.log"
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "wherry", daemon, "--data-dir", str(instance.data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=environment,
            start_new_session=True,
        )


async def _ready(
    instance: Instance, daemon: str, listener: NotifyListener, child: subprocess.Popen[bytes]
) -> str:
    """Return what is still amiss when the daemon says READY=1; raise when it ends before."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(child.pid)
    loop.add_reader(descriptor, ended.set)
    end = asyncio.ensure_future(ended.wait())
    try:
        while True:
            message = asyncio.ensure_future(listener.receive())
            await asyncio.wait((message, end), return_when=asyncio.FIRST_COMPLETED)
            if message.done() and message.result().get("READY") == "1":
                return message.result().get("STATUS", "")
            if end.done():
                message.cancel()
                raise StartFailed(_last_words(instance, daemon, f"ended with code {child.wait()}"))
    finally:
        end.cancel()
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _last_words(instance: Instance, daemon: str, how: str) -> str:
    log = instance.logs / f"{daemon}.log"
    lines = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
    said = "\n".join(f"    {line}" for line in lines)
    return f"wherry {daemon} {how}; {log} says:\n{said}"


async def stop(instance: Instance) -> Sequence[str]:
    """End the daemons (containers go on); the names of those that ran."""
    stopped = []
    for state in states(instance):
        if state.pid is None:
            continue
        stopped.append(state.name)
        await _end(state.pid)
    return stopped


async def power_off(instance: Instance, seconds: float) -> None:
    """Tell the node that the machine goes down, and wait until it has ended its pods and itself.

    ``seconds`` is what its configuration gives to pods.
    """
    pid = _state(instance, "node").pid
    if pid is not None:
        await _end(pid, signal.SIGPWR, seconds + STOP_TIMEOUT)


async def _end(
    pid: int, polite: signal.Signals = signal.SIGTERM, seconds: float = STOP_TIMEOUT
) -> None:
    """``polite``, then SIGKILL when it does not heed it in ``seconds``."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        signal.pidfd_send_signal(descriptor, polite)
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            await ended.wait()
    except ProcessLookupError:
        return
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
