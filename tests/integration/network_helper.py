"""What the tests of networks have in common: containers that serve, and what they reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docker_harness import SLOT, until

SERVE = ("busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
# Ranges of this process's own, apart from those that engines choose and from other processes'.
V4, V6 = f"10.247.{SLOT}", f"fd5e:aaaa:{SLOT:x}"
OUTER4, OUTER6 = f"10.247.{100 + SLOT}", f"fd5e:aaaa:{100 + SLOT:x}"


def serve(engine: Any, name: str, *options: str) -> None:
    """A container that tells its name on port 80, and does so by now."""
    engine.docker("run", "-d", "--name", name, "--hostname", name, *options, *SERVE)
    listens(engine, name)


def listens(engine: Any, name: str, port: int = 80) -> None:
    """Wait until something in the container listens on ``port``, as the kernel lists it."""
    own = Path("/proc") / engine.inspect(name, "{{.State.Pid}}") / "net"

    def listed() -> bool:
        lines = [
            line.split() for f in ("tcp", "tcp6") for line in (own / f).read_text().split("\n")
        ]
        return any(w[1].endswith(f":{port:04X}") and w[3] == "0A" for w in lines if len(w) > 3)

    until(listed)


def network(engine: Any, name: str) -> Any:
    """A network's document."""
    return json.loads(engine.docker("network", "inspect", name).out)[0]


def place(engine: Any, container: str, name: str) -> Any:
    """A container's settings on a network."""
    return engine.inspect(container)["NetworkSettings"]["Networks"][name]


def ask(engine: Any, container: str, address: str, port: int = 80) -> str | None:
    """What httpd answers; None where it cannot be reached."""
    where = f"[{address}]" if ":" in address else address
    url = f"http://{where}:{port}/hostname"
    done = engine.docker("exec", container, "timeout", "1", "wget", "-qO-", url, ok=False)
    return done.out.strip() if done.code == 0 else None


def hears(engine: Any, container: str, address: str, port: int = 80) -> str:
    """What httpd answers, sooner or later."""
    return str(until(lambda: ask(engine, container, address, port)))


def refuses(engine: Any, *arguments: str) -> str:
    """What the daemon says to a command that it refuses."""
    done = engine.docker(*arguments, ok=False)
    assert done.code != 0, arguments
    return done.err.removeprefix("docker: ").removeprefix("Error response from daemon: ").strip()


def routes(engine: Any, container: str, *options: str) -> str:
    """What ``ip route`` shows in a container."""
    return engine.docker("exec", container, "ip", *options, "route").out
