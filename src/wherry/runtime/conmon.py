"""conmon: the small process that stays with a container when the daemon goes.

It starts the OCI runtime's ``create``, holds the container's streams, writes the log, serves those
who attach, and leaves the exit code in a file. https://github.com/containers/conmon (2.1)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wherry.host.files import write_atomic
from wherry.runtime.oci import OCIRuntime

# Its buffer for what an attached client sends; the rest of a longer packet would be lost.
STDIN_PACKET = 32768
# Its buffer for what it reads from the container, one byte that names the stream before it.
OUTPUT_PACKET = 65536 + 1


@dataclass(frozen=True, slots=True)
class Monitor:
    """What a later daemon must know to take a container up again; kept in its bundle."""

    pid: int  # conmon's
    cgroup: str
    terminal: bool
    stdin_open: bool
    stdin_once: bool
    shares_pids: bool  # its first process' end does not end the others
    command: list[str]
    rootfs: str

    def save(self, bundle: Path) -> None:
        """Keep it; the files of a bundle need not outlive the machine's uptime."""
        write_atomic(bundle / "monitor.json", json.dumps(asdict(self)).encode(), durable=False)

    @classmethod
    def load(cls, bundle: Path) -> Monitor | None:
        """What was kept in ``bundle``; None where it was not made to the end."""
        try:
            return cls(**json.loads((bundle / "monitor.json").read_bytes()))
        except FileNotFoundError:
            return None


def arguments(
    program: Path,
    runtime: OCIRuntime,
    *,
    id: str,
    bundle: Path,
    exits: Path,
    log_path: Path | None,
    terminal: bool,
    stdin_open: bool,
    stdin_once: bool,
) -> list[str]:
    """The command line that creates the container of ``bundle`` and stays with it.

    ``--sync`` keeps conmon our child (it still leaves our session and outlives us); a child tells
    of its end without being asked. The attach socket is named by the bundle's descriptor, so that
    no path is too long for it.
    """
    out = [str(program), "--api-version=1", "--sync", "--full-attach", "--no-sync-log"]
    out += ["--log-level=error", "--cid", id, "--cuuid", id]
    out += ["--runtime", str(runtime.program)]
    out += [f"--runtime-arg={argument}" for argument in runtime.global_arguments]
    out += ["--bundle", str(bundle), "--container-pidfile", str(bundle / "pid")]
    out += ["--exit-dir", str(exits), "--persist-dir", str(bundle)]
    out += ["--log-path", f"k8s-file:{log_path}" if log_path else "off:"]
    if terminal:
        out.append("--terminal")
    if stdin_open:
        out.append("--stdin")
    # On a terminal an end of input is a key, not a closed stream; a later client types on.
    if stdin_open and (terminal or not stdin_once):
        out.append("--leave-stdin-open")
    return out


def environment(sync: int, start: int, path: str) -> Mapping[str, str]:
    """The variables that name the descriptors conmon talks to us through."""
    return {"_OCI_SYNCPIPE": str(sync), "_OCI_STARTPIPE": str(start), "PATH": path}


def parse_sync(data: bytes) -> tuple[int, str]:
    """What came down the sync pipe: the container's pid, or -1 and the runtime's complaint."""
    line = data.split(b"\n", 1)[0]
    if not line:
        return -1, ""
    try:
        message: dict[str, Any] = json.loads(line, strict=False)
    except ValueError:
        return -1, line.decode(errors="replace")
    pid = int(message.get("data", message.get("pid", -1)))
    return pid, str(message.get("message", ""))


REOPEN_LOG = b"2 0 0\n"
"""What the ``ctl`` FIFO takes to begin the log anew under its name, after the old was moved."""


def resize_command(width: int, height: int) -> bytes:
    """What the ``ctl`` FIFO takes to give the terminal a new size, in characters."""
    return f"1 {height} {width}\n".encode()
