"""Ask a container something from outside: run a command in it, send an HTTP request, connect, wait.

Lifecycle hooks and probes are made of the same handlers
(https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/,
https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/). No thread and
no process of ours is spent on an HTTP, TCP or gRPC one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wherry.engine.cri.types import ContainerRuntime, CRIError
from wherry.kube.kubelet import grpc_health, http_get
from wherry.kube.kubelet.http_get import bracketed, spoken

Object = dict[str, Any]

MAX_OUTPUT = 10 * 1024  # bytes of a command's output that are looked at
PROBE_AGENT, HOOK_AGENT = "kube-probe/1.37", "kube-lifecycle/1.37"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it; ``output`` explains, for the event.

    ``ok`` is None where it could not even be asked: that counts for nothing. ``warning``: it
    passed, but its author should know what ``output`` says.
    """

    ok: bool | None
    output: str = ""
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where a container is to be found."""

    container_id: str
    pod_ip: str
    ports: Sequence[Object] = ()  # of the container's spec, to look names up


class Asker:
    """Carries handlers out."""

    def __init__(self, runtime: ContainerRuntime) -> None:
        self._runtime = runtime

    async def ask(
        self, handler: Object, target: Target, timeout: float, agent: str = HOOK_AGENT
    ) -> Answer:
        """Carry out ``exec``, ``httpGet``, ``tcpSocket``, ``grpc`` or ``sleep``.

        ``timeout`` is in seconds; 0 for none. ``agent`` is what HTTP servers are told of us.
        """
        if handler.get("exec"):
            return await self._exec(handler["exec"].get("command") or (), target, timeout)
        if handler.get("sleep"):
            await asyncio.sleep(float(handler["sleep"].get("seconds") or 0))
            return Answer(True)
        try:
            if handler.get("httpGet"):
                return await _http(handler["httpGet"], target, timeout, agent)
            if handler.get("tcpSocket"):
                return await _tcp(handler["tcpSocket"], target, timeout)
            if handler.get("grpc"):
                return await _grpc(handler["grpc"], target, timeout, agent)
        except _BadPort as error:
            return Answer(None, str(error))
        return Answer(None, "missing probe handler")

    async def _exec(self, command: Sequence[str], target: Target, timeout: float) -> Answer:
        try:
            result = await self._runtime.exec_sync(target.container_id, command, timeout)
        except CRIError as error:
            if error.reason == "DeadlineExceeded":
                shown = " ".join(command)
                return Answer(False, f'command timed out: "{shown}" timed out after {timeout:g}s')
            return Answer(None, error.message)
        output = (result.stdout + result.stderr)[:MAX_OUTPUT].decode("utf-8", "replace")
        return Answer(result.exit_code == 0, output)


class _BadPort(Exception):
    pass


def resolve_port(port: int | str, ports: Sequence[Object]) -> int:
    """The number of a port that may be given by name."""
    if isinstance(port, int):
        number = port
    else:
        found = next((p["containerPort"] for p in ports if p.get("name") == port), None)
        if found is None:
            if not port.isdigit():
                raise _BadPort(f"couldn't find port: {port}")
            found = int(port)
        number = found
    if not 0 < number < 65536:
        raise _BadPort(f"invalid port number: {number}")
    return number


class _Connected(asyncio.Protocol):
    """Asks nothing more of a connection than to be one."""


async def _tcp(action: Object, target: Target, timeout: float) -> Answer:
    host = action.get("host") or target.pod_ip
    port = resolve_port(action["port"], target.ports)
    place = f"{bracketed(host)}:{port}"
    try:
        async with asyncio.timeout(timeout or None):
            transport, _ = await asyncio.get_running_loop().create_connection(
                _Connected, host, port
            )
    except TimeoutError as error:
        why = "i/o timeout" if not error.errno else "connect: connection timed out"
        return Answer(False, f"dial tcp {place}: {why}")
    except OSError as error:
        return Answer(False, f"dial tcp {place}: {spoken(error)}")
    transport.close()
    return Answer(True)


async def _http(action: Object, target: Target, timeout: float, agent: str) -> Answer:
    host = action.get("host") or target.pod_ip
    port = resolve_port(action["port"], target.ports)
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    if not path.startswith("/"):
        path = f"/{path}"
    headers = [(h["name"], h.get("value") or "") for h in action.get("httpHeaders") or ()]
    if all(name.lower() != "user-agent" for name, _ in headers):
        headers.append(("User-Agent", agent))
    url = f"{scheme}://{bracketed(host)}:{port}{path}"
    try:
        async with asyncio.timeout(timeout or None):
            status, body, left = await http_get.get(url, headers)
    except TimeoutError:
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Answer(False, f'Get "{url}": {why}')
    except http_get.Broken as error:
        return Answer(None, str(error))
    except http_get.ProbeError as error:
        return Answer(False, str(error))
    if not 200 <= status < 400:
        # Not the body: it might tell a reader of events what only the pod's owner may know.
        return Answer(False, f"HTTP probe failed with statuscode: {status}")
    if left:
        return Answer(True, f"Probe terminated redirects, Response body: {body}", warning=True)
    return Answer(True, body)


async def _grpc(action: Object, target: Target, timeout: float, agent: str) -> Answer:
    port = resolve_port(action["port"], ())
    place = f"{bracketed(target.pod_ip)}:{port}"
    try:
        async with asyncio.timeout(timeout or None):
            status = await grpc_health.check(
                target.pod_ip, port, action.get("service") or "", agent
            )
    except TimeoutError:
        return Answer(False, f"timeout: health rpc did not complete within {timeout:g}s")
    except OSError:
        why = f"within {timeout:g}s: context deadline exceeded"
        return Answer(False, f'timeout: failed to connect service "{place}" {why}')
    except grpc_health.RPCError as error:
        if error.code == grpc_health.UNIMPLEMENTED:
            why = "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
            return Answer(False, f"error: {why}: {error.message}")
        if error.code == grpc_health.DEADLINE_EXCEEDED:
            return Answer(False, f"timeout: health rpc did not complete within {timeout:g}s")
        return Answer(False, f"error: health rpc probe failed: {error}")
    if status != grpc_health.SERVING:
        known = grpc_health.STATUSES
        name = known[status] if status < len(known) else str(status)
        return Answer(False, f'service unhealthy (responded with "{name}")')
    return Answer(True, "service healthy")
