"""What the tests of networks have in common: containers that serve, and what they reach."""

from __future__ import annotations

import json
from typing import Any

SERVE = ("busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
# Ranges of the tests' own, apart from those that engines choose.
V4, V6 = "10.247.3", "fd5e:aaaa:3"


def serve(engine: Any, name: str, *options: str) -> None:
    """A container that tells its name on port 80."""
    engine.docker("run", "-d", "--name", name, "--hostname", name, *options, *SERVE)


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


def refuses(engine: Any, *arguments: str) -> str:
    """What the daemon says to a command that it refuses."""
    done = engine.docker(*arguments, ok=False)
    assert done.code != 0, arguments
    return done.err.removeprefix("docker: ").removeprefix("Error response from daemon: ").strip()


def routes(engine: Any, container: str, *options: str) -> str:
    """What ``ip route`` shows in a container."""
    return engine.docker("exec", container, "ip", *options, "route").out
