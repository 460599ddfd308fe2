"""Our registry as a process of its own, for tests that push to one and pull from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from ports import free_port

ROOT = Path(__file__).parents[2]


class Server:
    """A registry in a process of its own, on a loopback port."""

    def __init__(self, directory: Path, *options: str, host: str = "127.0.0.1") -> None:
        self.port = free_port()
        self.directory = directory
        self.options = options
        self.host = f"{host}:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        argv = [sys.executable, "-m", "wherry", "registry", "serve", "--root"]
        argv += [str(self.directory), "--listen", f"127.0.0.1:{self.port}", *self.options]
        environment = dict(os.environ, PYTHONPATH=str(ROOT / "src"))
        self.process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith(b"http")
        return self

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None
