"""The API over HTTPS.

One aiohttp session: connections are kept and reused, watches take one each. JSON is read by orjson.
A watch is a stream of JSON objects, one a line, of any length
(https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
"""

from __future__ import annotations

import base64
import binascii
import os
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from wherry.kube.api.errors import StatusError
from wherry.kube.client.transport import Object, Query

_REQUEST_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_WATCH_MARGIN_SECONDS = 30.0


class HTTPSTransport:
    """Requests to ``server`` (``https://127.0.0.1:6443``; ``http`` works too).

    ``ca``, ``cert`` and ``key`` are PEM files; without ``ca`` the system's authorities hold.
    ``token`` is a bearer token, ``token_file`` a file with one that is exchanged now and then;
    ``headers`` are sent with every request. The
    session is made at the first request, in the running loop.
    """

    def __init__(
        self,
        server: str,
        *,
        ca: Path | str | None = None,
        cert: Path | str | None = None,
        key: Path | str | None = None,
        token: str = "",
        token_file: Path | None = None,
        insecure: bool = False,
        server_name: str = "",
        context: ssl.SSLContext | None = None,
        user_agent: str = "wherry",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.server = server.rstrip("/")
        self._headers: list[tuple[str, str]] = [*headers]
        self._headers += {
            "User-Agent": user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # mostly spoken on one machine: bytes are cheap there
        }.items()
        if token:
            self._headers.append(("Authorization", f"Bearer {token}"))
        self._token_file = token_file
        self._server_name = server_name or None
        if context is None and self.server.startswith("https:"):
            context = ssl.create_default_context(cafile=ca)
            if insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if cert is not None:
                context.load_cert_chain(cert, key)
        self._ssl = context
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: object = None,
        content_type: str = "application/json",
    ) -> Object:
        """See ``Transport.request``. An answer that is not JSON is refused as StatusError."""
        headers = self._who()
        if body is not None:
            headers["Content-Type"] = content_type
        data = orjson.dumps(body) if body is not None else None
        try:
            async with self._open().request(
                method,
                self.server + path,
                params=query or None,
                data=data,
                headers=headers,
                server_hostname=self._server_name,
            ) as response:
                content = await response.read()
        except aiohttp.ClientError as error:
            raise ConnectionError(f"{method} {self.server}{path}: {error}") from error
        except TimeoutError as error:
            raise ConnectionError(f"{method} {self.server}{path}: timed out") from error
        return _answer(response.status, content, response.headers)

    async def watch(self, path: str, query: Query = ()) -> AsyncIterator[tuple[str, Object]]:
        """See ``Transport.watch``."""
        seconds = next((float(value) for name, value in query if name == "timeoutSeconds"), None)
        total = seconds + _WATCH_MARGIN_SECONDS if seconds is not None else None
        try:
            async with self._open().get(
                self.server + path,
                params=[*query, ("watch", "true")],
                headers=self._who(),
                timeout=aiohttp.ClientTimeout(total=total, connect=_CONNECT_SECONDS),
                server_hostname=self._server_name,
            ) as response:
                if response.status != 200:
                    _answer(response.status, await response.read(), response.headers)
                _keep_alive(response)
                async for line in _lines(response.content):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise StatusError.from_status(event["object"])
                    yield event["type"], event["object"]
        except aiohttp.ClientError as error:
            raise ConnectionError(f"watch {self.server}{path}: {error}") from error
        except TimeoutError as error:
            raise ConnectionError(f"watch {self.server}{path}: timed out") from error

    async def close(self) -> None:
        """Close all connections, watches too."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _who(self) -> dict[str, str]:
        """The header that says who we are, where that changes with time."""
        if self._token_file is None:
            return {}
        try:
            return {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
        except OSError as error:
            raise ConnectionError(f"{self._token_file}: {error.strerror}") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._ssl if self._ssl is not None else True,
                    limit=0,
                    keepalive_timeout=60,
                ),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS, connect=_CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _answer(status: int, content: bytes, headers: Any) -> Object:
    """The decoded answer, or its failure raised."""
    try:
        answer = orjson.loads(content) if content else {}
    except orjson.JSONDecodeError:
        answer = None
    if status < 300 and isinstance(answer, dict):
        return answer
    kept = {"Retry-After": headers["Retry-After"]} if "Retry-After" in headers else {}
    if isinstance(answer, dict) and answer.get("kind") == "Status":
        error = StatusError.from_status(answer, status)
        error.headers = kept
        raise error
    text = content.decode(errors="replace").strip()[:512]
    raise StatusError(status, "", text or f"the server answered {status}", headers=kept)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a stream, however long (``readline`` refuses long ones)."""
    parts: list[bytes] = []
    async for chunk in content.iter_any():
        first, *rest = chunk.split(b"\n")
        parts.append(first)
        for piece in rest:
            line = b"".join(parts)
            parts = [piece]
            if line:
                yield line
    if parts and (line := b"".join(parts).strip()):
        yield line


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    """Notice within half a minute when the server's machine is gone without a word."""
    connection = response.connection
    transport = connection.transport if connection is not None else None
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


class KubeconfigError(Exception):
    """The kubeconfig cannot be used; the text says why."""


ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds what its ServiceAccount needs."""


def in_cluster(*, user_agent: str = "wherry", account: Path = ACCOUNT) -> HTTPSTransport:
    """The transport of a pod, as its ServiceAccount.

    (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/)

    Raises:
        KubeconfigError: this is no pod, or one without a token.
    """
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise KubeconfigError(
            "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and "
            "KUBERNETES_SERVICE_PORT must be defined"
        )
    for name in ("token", "ca.crt"):
        if not (account / name).exists():
            raise KubeconfigError(f"{account / name}: the pod's ServiceAccount has none")
    return HTTPSTransport(
        f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca=account / "ca.crt",
        token_file=account / "token",
        user_agent=user_agent,
    )


def from_kubeconfig(
    path: Path | str, context: str = "", *, user_agent: str = "wherry"
) -> HTTPSTransport:
    """The transport that a kubeconfig file describes, for its current or the named context.

    Client certificates, tokens and token files are understood; exec plugins are not.

    Raises:
        KubeconfigError: the file is absent, malformed, or names what it does not define.
    """
    path = Path(path)
    import yaml  # not by every process that asks over HTTPS

    try:
        config = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise KubeconfigError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise KubeconfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(config, dict):
        raise KubeconfigError(f"{path}: not a kubeconfig")

    def entry(section: str, kind: str, name: str) -> dict[str, Any]:
        for item in config.get(section) or ():
            if item.get("name") == name:
                return item.get(kind) or {}
        raise KubeconfigError(f'{path}: {kind} "{name}" does not exist')

    def data(of: dict[str, Any], key: str) -> bytes | None:
        try:
            if of.get(f"{key}-data"):
                return base64.b64decode(str(of[f"{key}-data"]), validate=True)
            if of.get(key):
                return (path.parent / str(of[key])).read_bytes()
        except binascii.Error as error:
            raise KubeconfigError(f"{path}: {key}-data is not base64") from error
        except OSError as error:
            raise KubeconfigError(f"{path}: {key}: {error}") from error
        return None

    chosen = entry("contexts", "context", context or config.get("current-context") or "")
    cluster = entry("clusters", "cluster", chosen.get("cluster") or "")
    user = entry("users", "user", chosen["user"]) if chosen.get("user") else {}
    if not cluster.get("server"):
        raise KubeconfigError(f'{path}: cluster "{chosen.get("cluster")}" has no server')
    token = user.get("token") or (data(user, "tokenFile") or b"").decode().strip()
    return HTTPSTransport(
        cluster["server"],
        context=_context(
            data(cluster, "certificate-authority"),
            data(user, "client-certificate"),
            data(user, "client-key"),
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
        ),
        token=token,
        server_name=cluster.get("tls-server-name") or "",
        user_agent=user_agent,
    )


def _context(
    ca: bytes | None, cert: bytes | None, key: bytes | None, *, insecure: bool
) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert is not None and key is not None:
        # OpenSSL takes a certificate and its key from a file only.
        descriptor, name = tempfile.mkstemp()
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(cert + b"\n" + key)
            context.load_cert_chain(name)
        finally:
            Path(name).unlink()
    return context
