"""Members of a real etcd on the loopback, to be killed and started again at will."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ports import free_port

BINARY = Path(__file__).parents[1] / ".venv/clients/etcd"
QUICK = ("--heartbeat-interval=50", "--election-timeout=500")


class Etcd:
    """``members`` of a cluster, their data in ``directory``; ``tls`` are further options."""

    def __init__(self, directory: Path, members: int = 1, tls: Sequence[str] = ()) -> None:
        self._directory = directory
        self._tls = tls
        ports = _free_ports(3 * members)
        self._clients, self._peers, self._metrics = (ports[i::3] for i in range(3))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._logs: list[IO[bytes]] = []
        self.endpoints = [f"127.0.0.1:{port}" for port in self._clients]
        for member in range(members):
            self.start(member)
        self.leader()

    @property
    def word(self) -> str:
        """For ``--store``."""
        return "etcd://" + ",".join(self.endpoints)

    def start(self, member: int) -> None:
        client = f"{'https' if self._tls else 'http'}://127.0.0.1:{self._clients[member]}"
        peer = f"http://127.0.0.1:{self._peers[member]}"
        cluster = ",".join(f"m{i}=http://127.0.0.1:{p}" for i, p in enumerate(self._peers))
        log = (self._directory / f"m{member}.log").open("ab")
        self._logs.append(log)
        self._processes[member] = subprocess.Popen(
            [
                str(BINARY),
                f"--name=m{member}",
                f"--data-dir={self._directory / f'm{member}'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster={cluster}",
                f"--listen-metrics-urls=http://127.0.0.1:{self._metrics[member]}",
                *QUICK,
                *self._tls,
            ],
            stdout=log,
            stderr=log,
        )

    def leader(self) -> int:
        """The member that leads, once one does, asked of the members' own metrics."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for member in list(self._processes):
                if self._says(member, "etcd_server_is_leader 1"):
                    return member
            time.sleep(0.05)
        raise AssertionError("no member leads")

    def answers(self, member: int) -> None:
        """Wait until a member that was started is one of them."""
        deadline = time.monotonic() + 60
        while not self._says(member, "etcd_server_has_leader 1"):
            assert time.monotonic() < deadline, f"member {member} does not come back"
            time.sleep(0.05)

    def _says(self, member: int, line: str) -> bool:
        url = f"http://127.0.0.1:{self._metrics[member]}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return f"\n{line}\n".encode() in answer.read()
        except OSError:
            return False

    def kill(self, member: int) -> None:
        process = self._processes.pop(member)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for member in list(self._processes):
            self.kill(member)
        for log in self._logs:
            log.close()


def _free_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)
