"""Requests through an Ingress: beside the same nginx written by hand, and while Ingresses change.

Both lead to the same pods, which are nginx, too, and answer at once. ``wrk`` asks each in turn.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import packages
from benchmarks.harness import CLIENTS, Figure, Wherry, command, wherry

HOST = "bench.example.com"
CONNECTIONS, SECONDS, PAIRS = 32, 3, 9
RATE, CLIENTS_AT_ONCE, CHANGING = 500, 50, 20  # requests a second, connections, seconds
BETWEEN_CHANGES = 0.5

POD = """
user nobody nogroup; worker_processes 1; daemon off; pid /pid; error_log stderr;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000;
  client_body_temp_path /b; proxy_temp_path /p; fastcgi_temp_path /f; uwsgi_temp_path /u;
  scgi_temp_path /s;
  server { listen 8080; location / { default_type text/plain; return 200 "hello\\n"; } } }
"""

BY_HAND = """
user nobody nogroup; worker_processes auto; pid PLACE/pid; error_log PLACE/error.log;
events { worker_connections 4096; multi_accept on; }
http {
  access_log PLACE/access.log;
  sendfile on; tcp_nopush on; keepalive_requests 1000;
  client_body_temp_path PLACE/b; proxy_temp_path PLACE/p; fastcgi_temp_path PLACE/f;
  uwsgi_temp_path PLACE/u; scgi_temp_path PLACE/s;
  upstream pods { SERVERS keepalive 320; keepalive_requests 10000; }
  server {
    listen PORT; server_name HOST;
    location / {
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_set_header X-Request-ID $request_id;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_pass http://pods;
    }
  }
}
"""


def rate() -> list[Figure]:
    """Requests a second through the Ingress, as a part of what nginx by hand does."""
    wrk = packages.program("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed and cannot be downloaded")
    with serving() as (instance, port), _by_hand(pods(instance)) as other:
        for each in (port, other):
            _requests(wrk, each, 1)
        ours: list[float] = []
        theirs: list[float] = []
        for pair in range(PAIRS):
            for each in ((port, other), (other, port))[pair % 2]:
                (ours if each == port else theirs).append(_requests(wrk, each, SECONDS))
    shares = [mine / yours for mine, yours in zip(ours, theirs, strict=True)]
    return [
        Figure("requests a second through an Ingress", ours, "", peer=theirs),
        Figure("as a part of nginx by hand", shares, "", 0.97),
    ]


def changes() -> list[Figure]:
    """Requests lost at 500 a second while Ingresses and endpoints change."""
    with serving() as (instance, port):
        load = Load(port, HOST)
        with load:
            end = time.monotonic() + CHANGING
            number = 0
            while time.monotonic() < end:
                _change(instance, number)
                number += 1
                time.sleep(BETWEEN_CHANGES)
    print(f"# {load.answered} answered, {number} changes, {load.lost[:3]}")
    return [
        Figure(f"requests lost of {RATE} a second, Ingress changing", [len(load.lost)], "", 0),
        Figure("of them asked again on another connection", [load.again], ""),
        Figure("slowest answer meanwhile", [max(load.seconds)], "s"),
    ]


@dataclass
class Load:
    """Requests at a steady rate on connections that are kept, until it is left.

    As RFC 9112, section 9.3.1, has it, a request on a connection that was used before and that is
    closed before a byte of the answer came is asked again, once, on a new one.
    """

    port: int
    host: str
    answered: int = 0
    again: int = 0
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(n) for n in range(CLIENTS_AT_ONCE)))

    async def _client(self, number: int) -> None:
        """One connection after the other, each with many requests."""
        request = f"GET / HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()
        between = CLIENTS_AT_ONCE / RATE
        await asyncio.sleep(between * number / CLIENTS_AT_ONCE)
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        due = time.monotonic()
        while not self._stop.is_set():
            begun = time.monotonic()
            for _ in range(2):
                if streams is not None and streams[0].at_eof():
                    streams[1].close()
                    streams = None
                used = streams is not None
                try:
                    if streams is None:
                        streams = await asyncio.open_connection("127.0.0.1", self.port)
                    status, keep = await asyncio.wait_for(_exchange(*streams, request), 10)
                except (OSError, EOFError, TimeoutError) as error:
                    if streams is not None:
                        streams[1].close()
                        streams = None
                    if used and _nothing_came(error):
                        self.again += 1
                        continue
                    self.lost.append(repr(error))
                    break
                if not keep:
                    streams[1].close()
                    streams = None
                if status == 200:
                    self.answered += 1
                    self.seconds.append(time.monotonic() - begun)
                else:
                    self.lost.append(str(status))
                break
            due += between
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        if streams is not None:
            streams[1].close()


def _nothing_came(error: BaseException) -> bool:
    if isinstance(error, asyncio.IncompleteReadError):
        return not error.partial
    return isinstance(error, ConnectionError)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bool]:
    """The status of the answer, and whether the connection may be used again."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].split(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split()[1]), b"connection: close" not in head


def _requests(wrk: Path, port: int, seconds: int) -> float:
    argv = [str(wrk), "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "-H", f"Host: {HOST}"]
    said = command(*argv, f"http://127.0.0.1:{port}/", env=packages.libraries())
    if "Non-2xx" in said:
        raise SystemExit(said)
    return float(said.partition("Requests/sec:")[2].split()[0])


@contextmanager
def serving() -> Iterator[tuple[Wherry, int]]:
    """An instance that serves an Ingress with two pods, and the port of it."""
    with wherry(up=False) as instance:
        http, https = _free_port(), _free_port()
        instance.call("up", "--ingress", f"{http}:{https}")
        instance.read_env()
        _apply(instance, *_world())
        command("kubectl", "rollout", "status", "deploy/bench", "--timeout=60s", env=instance.env)
        _until_served(http)
        yield instance, http


def _until_served(port: int) -> None:
    deadline = time.monotonic() + 30
    argv = ["curl", "-sf", "-H", f"Host: {HOST}", f"http://127.0.0.1:{port}/"]
    while subprocess.run(argv, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise SystemExit("the Ingress is not served")
        time.sleep(0.1)


def _world() -> Iterator[dict[str, object]]:
    yield {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "bench"},
        "data": {"nginx.conf": POD},
    }
    container = {
        "name": "nginx",
        "image": "wherry.io/ingress-nginx:1",
        "command": ["nginx", "-c", "/etc/bench/nginx.conf"],
        "volumeMounts": [{"name": "c", "mountPath": "/etc/bench"}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "2"]}}},
    }
    volume = {"name": "c", "configMap": {"name": "bench"}}
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "bench"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "bench"}},
            "template": {
                "metadata": {"labels": {"app": "bench"}},
                "spec": {"containers": [container], "volumes": [volume]},
            },
        },
    }
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "bench"},
        "spec": {"selector": {"app": "bench"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    yield _ingress("bench", HOST)


def _ingress(name: str, host: str) -> dict[str, object]:
    backend = {"service": {"name": "bench", "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name},
        "spec": {"rules": [{"host": host, "http": {"paths": [path]}}]},
    }


def _change(instance: Wherry, number: int) -> None:
    """Another Ingress comes, that of the load changes, or its pods do."""
    match number % 4:
        case 0:
            _apply(instance, _ingress("another", f"n{number}.example.com"))
        case 1:
            wish = f"nginx.ingress.kubernetes.io/proxy-read-timeout={60 + number}"
            words = ["annotate", "--overwrite", "ingress", "bench", wish]
            command("kubectl", *words, env=instance.env)
        case 2:
            replicas = 3 if number % 8 == 2 else 2
            words = ["scale", "deploy", "bench", f"--replicas={replicas}"]
            command("kubectl", *words, env=instance.env)
        case _:
            command("kubectl", "delete", "ingress", "another", env=instance.env)


def _apply(instance: Wherry, *objects: dict[str, object]) -> None:
    for body in objects:
        data = json.dumps(body).encode()
        command("kubectl", "apply", "-f", "-", env=instance.env, stdin=data)


def pods(instance: Wherry) -> list[str]:
    get = ("kubectl", "get", "pods", "-o", "jsonpath={.items[*].status.podIP}")
    return command(*get, env=instance.env).split()


@contextmanager
def _by_hand(pods: list[str]) -> Iterator[int]:
    """An nginx that somebody wrote down for these pods; its port."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        servers = " ".join(f"server {pod}:8080 max_fails=0;" for pod in pods)
        text = BY_HAND.replace("SERVERS", servers).replace("PORT", str(port))
        text = text.replace("PLACE", place).replace("HOST", HOST)
        (Path(place) / "nginx.conf").write_text(text)
        program = CLIENTS / "nginx" if (CLIENTS / "nginx").exists() else "nginx"
        argv = [str(program), "-c", f"{place}/nginx.conf", "-g", "daemon off;"]
        # A session of its own, as ours has: they are what the kernel shares CPUs among.
        daemon = subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            _until_served(port)
            yield port
        finally:
            daemon.terminate()
            daemon.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
