"""One engine of its own for a test, the real ``docker`` client, and what they leave behind."""

from __future__ import annotations

import atexit
import fcntl
import http.client
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wherry.launcher import instance as instances

ROOT = Path(__file__).parents[2]


def claim_slot() -> int:
    """One of this process's own until it ends, as that of an instance which is never started."""
    if os.geteuid() != 0:
        return 0  # the tests are skipped
    directory = tempfile.TemporaryDirectory(prefix="wherry-slot-")
    atexit.register(directory.cleanup)
    instance = instances.open_or_create(Path(directory.name) / "instance")
    atexit.register(instances.forget, instance)  # (what is registered last is done first)
    return instance.slot


SLOT = claim_slot()
BRIDGE = f"wherry{SLOT}"


class Daemon:
    """``python -m wherry.engine`` in directories below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data, self.run_dir = root / "data", root / "run"
        self.socket = self.run_dir / "docker.sock"
        self._log = root / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.extra: list[str] = []  # options of the daemon
        self.client_extra: dict[str, str] = {}  # environment of its clients

    def _command(self, *extra: str) -> list[str]:
        argv = [sys.executable, "-m", "wherry.engine", "--slot", str(SLOT)]
        return [
            *argv,
            "--data-dir",
            str(self.data),
            "--run-dir",
            str(self.run_dir),
            *self.extra,
            *extra,
        ]

    @property
    def _environment(self) -> dict[str, str]:
        return dict(os.environ, PYTHONPATH=str(ROOT / "src"), PYTHONFAULTHANDLER="1")

    def start(self) -> Daemon:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), env=self._environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)
        return self

    def _died(self) -> tuple[object, ...]:
        """What is known of a daemon that ended by itself."""
        code = None if self._process is None else self._process.poll()
        return () if code is None else (f"the daemon ended: {code}", self._log.read_text()[-5000:])

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def kill(self) -> None:
        """SIGKILL; the containers go on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; the containers go on."""
        self._end(signal.SIGTERM)

    def hang_up(self) -> None:
        """SIGHUP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def _end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(60)
        self.socket.unlink(missing_ok=True)

    def purge(self) -> None:
        """Without a daemon, which is killed if it is there: leave nothing in the kernel."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        subprocess.run(self._command("--purge"), env=self._environment, check=True, timeout=300)

    def docker(
        self, *arguments: str, input: bytes | None = None, ok: bool = True, timeout: float = 300
    ) -> Any:
        """Run the client; ``out`` and ``err`` are text, ``raw`` is its output as bytes.

        ``timeout`` is for what hangs, not for what is slow.
        """
        done = subprocess.run(
            ["docker", *arguments],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            env=self.client_environment,
            timeout=timeout,
            check=False,
        )
        result = SimpleNamespace(
            code=done.returncode,
            raw=done.stdout,
            out=done.stdout.decode("utf-8", "replace"),
            err=done.stderr.decode("utf-8", "replace"),
        )
        told = (arguments, result.code, result.out, result.err)
        assert not ok or result.code == 0, told + self._died()
        return result

    @property
    def client_environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.root / "config"),
            **self.client_extra,
        }

    def spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """A client that stays."""
        return subprocess.Popen(
            ["docker", *arguments],
            env=self.client_environment,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.STDOUT),
            **options,
        )

    def inspect(self, name: str, template: str = "") -> Any:
        """A container's document, or what ``template`` makes of it."""
        if template:
            return self.docker("inspect", "-f", template, name).out.strip()
        return json.loads(self.docker("inspect", name).out)[0]

    def inspect_info(self, template: str) -> str:
        """What ``docker info -f`` prints."""
        return str(self.docker("info", "-f", template).out.strip())

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Any:
        """A plain request to the API: ``status``, ``headers``, ``body``."""
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(str(self.socket))
        try:
            data = None if body is None else json.dumps(body).encode()
            kind = {"Content-Type": "application/json"} if data else {}
            connection.request(method, path, data, {**kind, **(headers or {})})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        try:
            document = json.loads(content) if content else None
        except ValueError:
            document = content
        return SimpleNamespace(status=answer.status, headers=answer.headers, body=document)

    def import_busybox(self) -> None:
        """The image ``busybox``, made from the host's static program."""
        self.docker("import", "-c", 'CMD ["sh"]', "-", "busybox:latest", input=busybox_archive())

    def remove_all(self) -> None:
        """Remove every container, and the networks that users made."""
        deadline = time.monotonic() + 60
        while ids := self.docker("ps", "-aq").out.split():
            done = self.docker("rm", "-f", *ids, ok=False)
            if done.code == 0:
                break
            # Those that remove themselves do so by now.
            assert "is already in progress" in done.err, done.err
            assert time.monotonic() < deadline, done.err
        networks = self.docker("network", "ls", "-q", "-f", "type=custom").out.split()
        if networks:
            self.docker("network", "rm", *networks)

    def holdings(self) -> dict[str, list[str]]:
        """What the kernel and the disk hold for containers of this engine."""
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        table = subprocess.run(
            ["nft", "-j", "list", "map", "ip", BRIDGE, "published"],
            capture_output=True,
            check=False,
        )
        elements = json.loads(table.stdout)["nftables"][1]["map"].get("elem", [])
        return {
            "mounts": [path for path in mounts if path.startswith(str(self.root))],
            "namespaces": _names(self.run_dir / "netns"),
            "containers": _names(self.data / "containers"),
            "bundles": [n for n in _names(self.run_dir / "runtime") if len(n) == 64],
            "exits": _names(self.data / "runtime" / "exits"),
            "links": _names(Path(f"/sys/class/net/{BRIDGE}/brif")),
            "ports": [str(element) for element in elements],
            "cgroups": [
                str(path)
                for path in Path("/sys/fs/cgroup").glob(f"*/wherry{SLOT}/*")
                if path.is_dir() and len(path.name) == 64
            ],
        }


def _names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else []


def busybox_archive() -> bytes:
    """A tiny root file system as a tar archive."""
    program = Path(shutil.which("busybox") or "/bin/busybox")
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(name: str, data: bytes = b"", *, mode: int = 0o644, link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, len(data)
            if link:
                info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info, io.BytesIO(data))

        for name in ("bin", "etc", "root", "tmp"):
            directory = tarfile.TarInfo(name)
            directory.type = tarfile.DIRTYPE
            directory.mode = 0o1777 if name == "tmp" else 0o755
            archive.addfile(directory)
        add("bin/busybox", program.read_bytes(), mode=0o755)
        for applet in applets.stdout.split():
            if applet != "busybox":
                add(f"bin/{applet}", link="busybox")
        add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/tmp:/bin/sh\n")
        add("etc/group", b"root:x:0:\nweb:x:33:\nlog:x:50:web\n")
    return buffer.getvalue()


def until(condition: Callable[[], Any], timeout: float = 60.0, told: object = "") -> Any:
    """The first true value of ``condition``, for what nothing tells of; fails after ``timeout``
    seconds, which only a test that fails waits for, with what has been ``told``."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, told
        time.sleep(0.02)
    return found


class Terminal:
    """A client on a pseudo terminal of its own."""

    def __init__(self, daemon: Daemon, *arguments: str, size: tuple[int, int] = (24, 80)) -> None:
        self.master, slave = pty.openpty()
        self.resize(*size)
        self.client = daemon.spawn(
            *arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.text = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, pattern: str, timeout: float = 60.0) -> None:
        """Read until ``pattern`` has been shown."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.text):
            left = deadline - time.monotonic()
            assert left > 0, (pattern, self.text)
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.text += os.read(self.master, 65536).decode("utf-8", "replace")
                except OSError:  # the client has closed it
                    break
        assert re.search(pattern, self.text), (pattern, self.text)

    def type(self, data: bytes) -> None:
        os.write(self.master, data)
