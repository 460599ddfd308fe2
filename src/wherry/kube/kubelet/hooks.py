"""Ask a container something from outside: run a command in it, send an HTTP request, connect, wait.

Lifecycle hooks and probes are made of the same handlers
(https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/,
https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/). No thread and
no process of ours is spent on an HTTP or TCP one.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from wherry.engine.cri.types import ContainerRuntime, CRIError

Object = dict[str, Any]

MAX_BODY = 10 * 1024  # bytes of an answer or output that are looked at
MAX_REDIRECTS = 10
USER_AGENT = "kube-probe/1.37"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it; ``output`` explains, for the event.

    ``ok`` is None where it could not even be asked: that counts for nothing.
    """

    ok: bool | None
    output: str = ""


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

    async def ask(self, handler: Object, target: Target, timeout: float) -> Answer:
        """Carry out ``exec``, ``httpGet``, ``tcpSocket``, ``grpc`` or ``sleep``.

        ``timeout`` is in seconds; 0 for none.
        """
        if handler.get("exec"):
            return await self._exec(handler["exec"].get("command") or (), target, timeout)
        if handler.get("sleep"):
            await asyncio.sleep(float(handler["sleep"].get("seconds") or 0))
            return Answer(True)
        try:
            if handler.get("httpGet"):
                return await _http(handler["httpGet"], target, timeout)
            if handler.get("tcpSocket"):
                return await _tcp(handler["tcpSocket"], target, timeout)
        except _BadPort as error:
            return Answer(None, str(error))
        if handler.get("grpc"):
            return Answer(None, "gRPC probes are not supported by this kubelet")
        return Answer(None, "missing probe handler")

    async def _exec(self, command: Sequence[str], target: Target, timeout: float) -> Answer:
        try:
            result = await self._runtime.exec_sync(target.container_id, command, timeout)
        except CRIError as error:
            if "timed out" in error.message or "timeout" in error.message:
                shown = " ".join(command)
                return Answer(False, f'command timed out: "{shown}" timed out after {timeout:g}s')
            return Answer(None, error.message)
        output = (result.stdout + result.stderr)[:MAX_BODY].decode("utf-8", "replace")
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


async def _tcp(action: Object, target: Target, timeout: float) -> Answer:
    host = action.get("host") or target.pod_ip
    port = resolve_port(action["port"], target.ports)
    try:
        async with asyncio.timeout(timeout or None):
            _reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Answer(False, f"dial tcp {host}:{port}: i/o timeout")
    except OSError as error:
        return Answer(False, f"dial tcp {host}:{port}: connect: {_reason(error)}")
    writer.close()
    return Answer(True)


async def _http(action: Object, target: Target, timeout: float) -> Answer:
    host = action.get("host") or target.pod_ip
    port = resolve_port(action["port"], target.ports)
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    if not path.startswith("/"):
        path = f"/{path}"
    headers = [(h["name"], h.get("value") or "") for h in action.get("httpHeaders") or ()]
    url = f"{scheme}://{_bracketed(host)}:{port}{path}"
    try:
        async with asyncio.timeout(timeout or None):
            return await _follow(url, headers, host)
    except TimeoutError:
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Answer(False, f'Get "{url}": {why}')
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        if isinstance(error, OSError):
            why = f"dial tcp {host}:{port}: connect: {_reason(error)}"
        else:
            why = "EOF" if isinstance(error, asyncio.IncompleteReadError) else str(error)
        return Answer(False, f'Get "{url}": {why}')


async def _follow(url: str, headers: Sequence[tuple[str, str]], host: str) -> Answer:
    """GET, following redirects that stay on the host; one that leaves it is an answer, too."""
    for _ in range(MAX_REDIRECTS):
        status, location, body = await _get(url, headers)
        if 300 <= status < 400 and location:
            parts = urlsplit(location)
            if parts.hostname and parts.hostname != host:
                return Answer(True, "Probe terminated redirects")
            base = urlsplit(url)
            if not parts.netloc:
                location = f"{base.scheme}://{base.netloc}{location}"
            url = location
            continue
        if 200 <= status < 400:
            return Answer(True, body)
        return Answer(False, f"HTTP probe failed with statuscode: {status}")
    return Answer(False, f'Get "{url}": stopped after {MAX_REDIRECTS} redirects')


async def _get(url: str, headers: Sequence[tuple[str, str]]) -> tuple[int, str, str]:
    """Status, Location and the beginning of the body. One connection, one request."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        parts.hostname,
        parts.port or (443 if secure else 80),
        ssl=_unverified() if secure else None,
        limit=MAX_BODY * 4,
    )
    try:
        writer.write(_request(parts.netloc, parts.path, parts.query, headers))
        await writer.drain()
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ", 2)[1])
            if status >= 200:
                break
        location = next(
            (line[9:].strip() for line in lines if line.lower().startswith("location:")), ""
        )
        length = next(
            (int(line[15:]) for line in lines if line.lower().startswith("content-length:")), None
        )
        wanted = MAX_BODY if length is None else min(length, MAX_BODY)
        body = await reader.read(wanted) if wanted else b""
        return status, location, body.decode("utf-8", "replace")
    except asyncio.LimitOverrunError as error:
        raise ValueError(
            "net/http: HTTP/1.x transport connection broken: header too long"
        ) from error
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("malformed HTTP response") from error
    finally:
        writer.close()


def _request(netloc: str, path: str, query: str, headers: Sequence[tuple[str, str]]) -> bytes:
    named = {name.lower() for name, _ in headers}
    lines = [f"GET {path or '/'}{'?' + query if query else ''} HTTP/1.1"]
    if "host" not in named:
        lines.append(f"Host: {netloc}")
    if "user-agent" not in named:
        lines.append(f"User-Agent: {USER_AGENT}")
    if "accept" not in named:
        lines.append("Accept: */*")
    lines += [f"{name}: {value}" for name, value in headers if value or name.lower() == "host"]
    lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@cache
def _unverified() -> ssl.SSLContext:
    """Probes do not check certificates: a container's is rarely made out to its address."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reason(error: OSError) -> str:
    """The kernel's words as Go prints them."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
