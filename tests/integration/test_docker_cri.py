"""Pods by the Container Runtime Interface, on a real engine in this process."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import time
from pathlib import Path

import pytest
from docker_harness import SLOT, busybox_archive

from ports import free_port
from wherry.engine.cri.service import EngineRuntime
from wherry.engine.cri.types import (
    IMAGE_ADDED,
    ContainerConfig,
    ContainerMetadata,
    ContainerState,
    CRIError,
    CRINotFound,
    LinuxSecurity,
    Mount,
    NamespaceMode,
    PodSandboxConfig,
    PodSandboxMetadata,
    PodSandboxState,
    PortMapping,
)
from wherry.engine.engine import Engine, purge_all, slot_config, stop_all

POD_RANGE = f"10.{244 - SLOT}.5.0/24"


class Node:
    """An engine, its CRI, and what a kubelet would say to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = slot_config(root / "data", root / "run", SLOT, "node")
        self.number = 0

    async def open(self) -> Node:
        self.engine = Engine(self.config)
        await self.engine.open()
        self.cri = EngineRuntime(self.engine)
        await self.cri.update_runtime_config(POD_RANGE)
        return self

    async def add_busybox(self) -> None:
        async def archive():
            yield busybox_archive()

        await self.engine.images.import_(
            archive(), reference="busybox", message="", changes=[], platform=None
        )

    def pod(self, **fields) -> PodSandboxConfig:
        self.number += 1
        name = f"pod-{self.number}"
        metadata = PodSandboxMetadata(name, "default", f"uid-{self.number}")
        fields.setdefault("cgroup_parent", f"kubepods/besteffort/{metadata.uid}")
        return PodSandboxConfig(metadata, name, self.root / "logs" / name, **fields)

    async def run(self, pod, *args, sandbox=None, name="main", **fields):
        sandbox = sandbox or await self.cri.run_pod_sandbox(pod)
        config = ContainerConfig(
            ContainerMetadata(name), "busybox", args=args, log_path=f"{name}/0.log", **fields
        )
        container = await self.cri.create_container(sandbox, config, pod)
        await self.cri.start_container(container)
        return sandbox, container

    async def shell(self, container, script) -> str:
        result = await self.cri.exec_sync(container, ("sh", "-c", script), 60)
        assert result.exit_code == 0, result
        return result.stdout.decode()

    async def ended(self, container):
        async with asyncio.timeout(60):
            while True:
                status = await self.cri.container_status(container)
                if status.state is ContainerState.EXITED:
                    return status
                await asyncio.sleep(0.02)

    async def clear(self) -> None:
        for sandbox in await self.cri.list_pod_sandboxes():
            await self.cri.remove_pod_sandbox(sandbox.id)


@pytest.fixture
async def node():
    root = Path(tempfile.mkdtemp(prefix="wherry-cri-"))
    node = Node(root)
    try:
        await node.open()
        await node.add_busybox()
        yield node
        await node.clear()
        await node.engine.close()
    finally:
        await stop_all(node.config, 0.5)
        await purge_all(node.config)
        shutil.rmtree(root, ignore_errors=True)


async def test_containers_of_a_pod_share_what_pods_share(node):
    pod = node.pod()
    sandbox, one = await node.run(pod, "httpd", "-f", "-p", "8080", "-h", "/etc")
    _, two = await node.run(pod, "sleep", "100", sandbox=sandbox, name="other")
    status = await node.cri.pod_sandbox_status(sandbox)
    assert status.state is PodSandboxState.READY
    assert status.ips[0].startswith(f"10.{244 - SLOT}.5.")
    ask = "hostname; until wget -qO- 127.0.0.1:8080/hostname 2>/dev/null; do sleep 0.1; done"
    assert await node.shell(two, ask) == (f"{pod.hostname}\n{pod.hostname}\n")
    await node.shell(one, "echo shared > /dev/shm/x")
    assert await node.shell(two, "cat /dev/shm/x") == "shared\n"
    # Not what they do not share: files and processes.
    assert "httpd" not in await node.shell(two, "ps")


async def test_a_pod_may_share_its_processes(node):
    pod = node.pod()
    security = LinuxSecurity(pid=NamespaceMode.POD)
    sandbox, _ = await node.run(pod, "sleep", "77", security=security)
    _, two = await node.run(pod, "sleep", "100", sandbox=sandbox, name="other", security=security)
    assert "sleep 77" in await node.shell(two, "ps")


async def test_a_pod_on_the_host_s_network_has_no_address_of_its_own(node):
    sandbox, container = await node.run(node.pod(network=NamespaceMode.NODE), "sleep", "100")
    assert (await node.cri.pod_sandbox_status(sandbox)).ips == ()
    assert f"wherry{SLOT}" in await node.shell(container, "ls /sys/class/net")


async def test_output_lies_where_the_kubelet_wants_it_and_stays(node):
    pod = node.pod()
    _, container = await node.run(pod, "sh", "-c", "echo hello; exit 3")
    status = await node.ended(container)
    assert (status.exit_code, status.reason) == (3, "Error")
    assert status.log_path == pod.log_directory / "main" / "0.log"
    await node.cri.remove_container(container)
    assert status.log_path.read_text().endswith(" stdout F hello\n")


async def test_a_command_that_cannot_run_says_so(node):
    pod = node.pod()
    sandbox = await node.cri.run_pod_sandbox(pod)
    config = ContainerConfig(ContainerMetadata("main"), "busybox", command=("nope",))
    container = await node.cri.create_container(sandbox, config, pod)
    with pytest.raises(CRIError, match='exec: "nope": executable file not found') as caught:
        await node.cri.start_container(container)
    assert caught.value.reason == "RunContainerError"
    status = await node.cri.container_status(container)
    assert (status.state, status.reason) == (ContainerState.EXITED, "ContainerCannotRun")
    assert status.exit_code == 127


async def test_a_missing_image_and_missing_things(node):
    pod = node.pod()
    sandbox = await node.cri.run_pod_sandbox(pod)
    with pytest.raises(CRIError, match="No such image: nope:latest"):
        await node.cri.create_container(
            sandbox, ContainerConfig(ContainerMetadata("main"), "nope"), pod
        )
    with pytest.raises(CRINotFound):
        await node.cri.container_status("f" * 64)
    assert await node.cri.image_status("nope") is None
    await node.cri.stop_pod_sandbox("f" * 64)
    await node.cri.remove_container("f" * 64)


async def test_files_of_the_host_and_the_user(node, tmp_path):
    (tmp_path / "file").write_text("data")
    _, container = await node.run(
        node.pod(),
        *("sleep", "100"),
        mounts=(Mount("/mnt/file", tmp_path / "file", readonly=True),),
        security=LinuxSecurity(run_as_user=33, supplemental_groups=(77,)),
        envs={"A": "1"},
        working_dir="/tmp",
    )
    text = await node.shell(container, "cat /mnt/file; echo; id -u; id -G; echo $A; pwd")
    assert text == "data\n33\n33 50 77\n1\n/tmp\n"


async def test_stop_waits_for_the_end_and_kills_in_time(node):
    sandbox, container = await node.run(
        node.pod(), "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"
    )
    began = time.monotonic()
    await node.cri.stop_container(container, 0.5)
    assert time.monotonic() - began > 0.4
    assert (await node.cri.container_status(container)).exit_code == 137
    await node.cri.stop_container(container, 0.5)
    await node.cri.stop_pod_sandbox(sandbox)
    status = await node.cri.pod_sandbox_status(sandbox)
    assert (status.state, status.ips) == (PodSandboxState.NOTREADY, ())


async def test_exec_ends_in_time_and_leaves_nothing(node):
    _, container = await node.run(node.pod(), "sleep", "100")
    with pytest.raises(CRIError, match="timed out"):
        await node.cri.exec_sync(container, ("sleep", "50"), 0.3)
    await node.shell(container, "while ps | grep '[s]leep 50'; do sleep 0.1; done")
    result = await node.cri.exec_sync(container, ("sh", "-c", "echo out; echo err >&2; exit 4"), 60)
    assert (result.exit_code, result.stdout, result.stderr) == (4, b"out\n", b"err\n")


async def test_an_exec_with_a_terminal(node):
    _, container = await node.run(node.pod(), "sleep", "100")
    stream = await node.cri.exec(container, ("sh",), tty=True, stdin=True)
    await stream.resize(99, 33)
    await stream.write(b"stty size; exit 5\n")
    text = b""
    while (piece := await stream.read())[0]:
        text += piece[1]
    assert b"33 99" in text
    assert await stream.wait() == 5
    await stream.close()


async def test_a_port_of_a_pod_is_forwarded(node):
    sandbox, _ = await node.run(node.pod(), "httpd", "-f", "-p", "8080", "-h", "/etc")
    async with asyncio.timeout(60):
        while True:
            try:
                descriptor = await node.cri.port_forward(sandbox, 8080)
                break
            except CRIError:
                await asyncio.sleep(0.05)
    with socket.socket(fileno=descriptor) as connection:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, b"GET /hostname HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await loop.sock_recv(connection, 4096)
    with pytest.raises(CRIError, match="connection refused"):
        await node.cri.port_forward(sandbox, 81)


async def test_a_host_port_leads_to_the_pod(node):
    port = free_port()
    pod = node.pod(port_mappings=(PortMapping(8080, port),))
    await node.run(pod, "httpd", "-f", "-p", "8080", "-h", "/etc")
    async with asyncio.timeout(60):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /hostname HTTP/1.0\r\n\r\n")
                if answer := await reader.read():
                    break
            except ConnectionError:
                await asyncio.sleep(0.05)
    assert b"200 OK" in answer
    writer.close()


async def test_everything_that_happens_to_a_pod_is_told(node):
    events = node.cri.events()
    sandbox, container = await node.run(node.pod(), "true")
    await node.ended(container)
    await node.cri.remove_pod_sandbox(sandbox)
    seen = []
    async with asyncio.timeout(60):
        async for event in events:
            if event.kind == IMAGE_ADDED:  # that of the pause container, the first time
                continue
            assert event.pod_sandbox_id == sandbox
            seen.append((event.kind, "sandbox" if event.container_id == sandbox else "main"))
            if seen[-1] == ("deleted", "sandbox"):
                break
    await events.aclose()
    assert [kind for kind, of in seen if of == "main"] == [
        "created", "started", "stopped", "deleted",
    ]  # fmt: skip
    assert [kind for kind, of in seen if of == "sandbox"] == [
        "created", "started", "stopped", "deleted",
    ]  # fmt: skip


async def test_stats_of_what_runs(node):
    _, container = await node.run(node.pod(), "sleep", "100")
    (stats,) = await node.cri.container_stats()
    assert stats.id == container
    assert stats.labels["io.kubernetes.container.name"] == "main"
    assert stats.memory_working_set > 0


async def test_pods_outlive_the_daemon(node):
    sandbox, container = await node.run(node.pod(), "sleep", "100")
    before = await node.cri.pod_sandbox_status(sandbox)
    await node.engine.close()
    await node.open()
    assert await node.cri.pod_sandbox_status(sandbox) == before
    assert (await node.cri.container_status(container)).state is ContainerState.RUNNING
    other = await node.cri.run_pod_sandbox(node.pod())
    assert (await node.cri.pod_sandbox_status(other)).ips != before.ips


async def test_twenty_pods_at_once_have_an_address_each(node):
    await node.cri.run_pod_sandbox(node.pod())  # the image of the pause container is made once
    await asyncio.gather(*(node.run(node.pod(), "sleep", "100") for _ in range(20)))
    addresses = {s.ips for s in await node.cri.list_pod_sandboxes()}
    assert len(addresses) == 21
