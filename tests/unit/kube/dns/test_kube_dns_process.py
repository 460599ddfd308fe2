"""The process that answers, kept by a node: killed, left alone, found again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dnslib import DNSRecord
from fake_api import FakeAPI

from wherry.host.pidfile import running_pid
from wherry.kube.api.resources import NAMESPACES, NODES, SERVICES
from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.dns import keeping
from wherry.kube.dns.following import Follower
from wherry.kube.dns.keeping import Keeper, stop

NAME = "web.default.svc.cluster.local"


class Kept:
    """Nodes, one at a time, over one cluster; questions to what they keep."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.client = Client(FakeAPI())
        self.port = 0
        self.informers: SharedInformers | None = None
        self.running: asyncio.Task[None] | None = None

    async def node(self) -> None:
        """A node comes."""
        self.informers = SharedInformers(self.client)
        follower = Follower(
            self.client,
            self.informers,
            domain="cluster.local",
            node_name="n",
            service_addresses=["10.96.0.10"],
            resolv_conf="",
        )
        service = Keeper(follower, self.directory, port=0)
        self.informers.start()
        self.running = asyncio.create_task(service.run())
        async with asyncio.timeout(60):
            while not service._sockets:  # noqa: ASYNC110 - as tests see it
                await asyncio.sleep(0.01)
        self.port = service._sockets[0][0].getsockname()[1]

    async def no_node(self) -> None:
        """It goes; what it kept stays."""
        if self.running is not None and self.informers is not None:
            self.running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.running
            await self.informers.stop()

    async def addresses(self, name: str = NAME, seconds: float = 60) -> list[str]:
        question = bytes(DNSRecord.question(name).pack())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)
            asking.connect(("127.0.0.1", self.port))
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(asking, question)
            data = await asyncio.wait_for(loop.sock_recv(asking, 4096), seconds)
        return [str(record.rdata) for record in DNSRecord.parse(data).rr]

    @property
    def pid(self) -> int | None:
        return running_pid(self.directory / "dns.pid")

    async def other_pid(self, old: int | None) -> int:
        async with asyncio.timeout(60):
            while (pid := self.pid) in (None, old):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        assert pid is not None
        return pid


def service(name: str, address: str) -> dict:
    spec = {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    kept = Kept(tmp_path)
    await kept.client.create(NAMESPACES, {"metadata": {"name": "default"}})
    await kept.client.create(
        NODES, {"metadata": {"name": "n"}, "spec": {"podCIDR": "127.0.0.0/24"}}
    )
    await kept.client.create(SERVICES, service("web", "10.96.0.7"))
    yield kept
    await kept.no_node()
    await stop(tmp_path)
    assert kept.pid is None


async def test_questions_wait_for_the_next_process_when_one_is_killed(kept: Kept):
    await kept.node()
    pid = await kept.other_pid(None)
    assert await kept.addresses() == ["10.96.0.7"]
    for _ in range(2):
        os.kill(pid, signal.SIGKILL)
        # Asked while there is nobody, or nobody who knows.
        answers = await asyncio.gather(*(kept.addresses() for _ in range(20)))
        assert answers == [["10.96.0.7"]] * 20
        pid = await kept.other_pid(pid)


async def test_it_answers_on_without_a_node_and_the_next_one_brings_it_up_to_date(kept: Kept):
    await kept.node()
    pid = await kept.other_pid(None)
    assert await kept.addresses() == ["10.96.0.7"]
    await kept.no_node()
    await kept.client.delete(SERVICES, "web", "default")
    await kept.client.create(SERVICES, service("late", "10.96.0.8"))
    assert await kept.addresses() == ["10.96.0.7"]
    await kept.node()
    async with asyncio.timeout(60):
        while await kept.addresses("late.default.svc.cluster.local") != ["10.96.0.8"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await kept.addresses() == []
    assert kept.pid == pid
    # The sockets are this node's, too: another process takes them over.
    os.kill(pid, signal.SIGKILL)
    assert await kept.addresses("late.default.svc.cluster.local") == ["10.96.0.8"]


async def test_one_of_another_version_is_replaced(kept: Kept, monkeypatch: pytest.MonkeyPatch):
    await kept.node()
    pid = await kept.other_pid(None)
    assert await kept.addresses() == ["10.96.0.7"]
    await kept.no_node()
    monkeypatch.setattr(keeping.wherry, "__version__", "0")
    await kept.node()
    assert await kept.other_pid(pid) != pid
    assert await kept.addresses() == ["10.96.0.7"]


async def test_ended_twice_is_ended(kept: Kept):
    await kept.node()
    await kept.other_pid(None)
    await kept.addresses()
    await kept.no_node()
    await stop(kept.directory)
    assert kept.pid is None
    await stop(kept.directory)
