"""exec, attach, cp and port-forward by kubectl of every age and the Python client."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import select
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CLIENTS, Instance, eventually
from pods_on_node import container, make, ready

pytestmark = pytest.mark.parametrize("kubectl", ["kubectl-1.20", "kubectl", "kubectl-1.37"])
SERVE = "mkdir /w; cd /w; echo hi > index.html; exec httpd -f -p 8000"
LISTENS = {"readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1}}


@pytest.fixture(scope="module")
def place(cluster: Instance) -> Iterator[str]:
    """A namespace with the pods of this module."""
    name = "streaming"
    cluster.kubectl("create", "namespace", name)
    make(cluster, name, "a")
    make(cluster, name, "web", container(command=SERVE, **LISTENS))
    make(cluster, name, "shell", container(command="cat", stdin=True))
    make(cluster, name, "term", container(command="sh", stdin=True, tty=True))
    for kind in ("Deployment", "StatefulSet"):
        labels = {"serves": kind.lower()}
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [container("c", SERVE, **LISTENS)]},
        }
        spec = {"selector": {"matchLabels": labels}, "template": template, "serviceName": "none"}
        if kind == "Deployment":
            del spec["serviceName"]
        made = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "serve"}, "spec": spec}
        cluster.kubectl("-n", name, "create", "-f", "-", stdin=json.dumps(made))
    cluster.kubectl("-n", name, "expose", "pod", "web", "--port=80", "--target-port=8000")
    ready(cluster, name, "a", "web", "shell", "term")
    for kind in ("deployment", "statefulset"):
        cluster.kubectl("-n", name, "rollout", "status", f"{kind}/serve", "--timeout=100s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", ok=False)


def call(
    cluster: Instance, kubectl: str, place: str, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    argv = [str(CLIENTS / kubectl), "-n", place, *arguments]
    return subprocess.run(
        argv, env=cluster.environment, input=stdin, capture_output=True, timeout=300, check=False
    )


def processes(cluster: Instance, place: str, pod: str) -> str:
    return cluster.kubectl("-n", place, "exec", pod, "--", "ps").out


def test_exec_carries_streams_apart_and_the_exit_code(
    cluster: Instance, place: str, kubectl: str
) -> None:
    script = "cat; echo out; echo err >&2; exit 7"
    done = call(cluster, kubectl, place, "exec", "-i", "a", "--", "sh", "-c", script, stdin=b"in\n")
    assert done.returncode == 7
    assert done.stdout == b"in\nout\n"
    # (Some clients may read the first message before they have made the stream that it is
    # for, and say so: "Unknown stream id 1, discarding message". It is empty.)
    assert b"err\ncommand terminated with exit code 7" in done.stderr, done.stderr


def test_exec_of_what_is_not_there_says_so(cluster: Instance, place: str, kubectl: str) -> None:
    done = call(cluster, kubectl, place, "exec", "a", "--", "nonsense")
    assert done.returncode != 0
    assert b"nonsense" in done.stderr and b"not found" in done.stderr
    done = call(cluster, kubectl, place, "exec", "a", "-c", "other", "--", "true")
    assert b"container other is not valid for pod a" in done.stderr


def test_large_input_goes_through_whole_and_memory_stays(
    cluster: Instance, place: str, kubectl: str
) -> None:
    block = os.urandom(1 << 20)
    size = int(os.environ.get("WHERRY_TEST_STDIN_MB", "100"))
    argv = [str(CLIENTS / kubectl), "-n", place, "exec", "-i", "a", "--", "md5sum"]
    before = [_peak(cluster, daemon) for daemon in ("node", "server")]
    with subprocess.Popen(
        argv, env=cluster.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        digest = hashlib.md5(usedforsecurity=False)
        assert client.stdin is not None and client.stdout is not None
        for _ in range(size):
            client.stdin.write(block)
            digest.update(block)
        client.stdin.close()
        assert client.stdout.read().split()[0].decode() == digest.hexdigest()
    after = [_peak(cluster, daemon) for daemon in ("node", "server")]
    assert all(late - early < 40_000 for early, late in zip(before, after, strict=True))


def _peak(cluster: Instance, daemon: str) -> int:
    text = Path(f"/proc/{cluster.pid(daemon)}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", text)[0])


def test_a_terminal_has_its_size_and_its_keys(cluster: Instance, place: str, kubectl: str) -> None:
    argv = [str(CLIENTS / kubectl), "-n", place, "exec", "-it", "a", "--", "sh"]
    master, slave = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    client = subprocess.Popen(
        argv, env=cluster.environment, stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    seen = b""

    def until(wanted: bytes) -> None:
        nonlocal seen
        while wanted not in seen:
            assert select.select([master], [], [], 60)[0], f"no {wanted!r} came, only {seen!r}"
            seen += os.read(master, 4096)

    until(b"# ")
    deadline = time.monotonic() + 60
    while b"33 101" not in seen and time.monotonic() < deadline:
        os.write(master, b"stty size; echo again\n")
        until(b"again\r\n")
        seen = seen if b"33 101" in seen else b""
    os.write(master, b"echo $((1+2))go; sleep 1000\n")
    until(b"3go\r\n")  # (the shell itself hears no key any more)
    seen = b""
    for _ in range(20):  # (a terminal drops what was typed before the signal was dealt with)
        os.write(master, b"\x03")
        os.write(master, b"echo $((50+5))\n")
        while b"55\r\n" not in seen and select.select([master], [], [], 3)[0]:
            seen += os.read(master, 4096)
        if b"55\r\n" in seen:
            break
    else:
        pytest.fail(f"only {seen!r} came")
    os.write(master, b"exit 5\n")
    with contextlib.suppress(OSError):
        while os.read(master, 4096):
            continue
    os.close(master)
    assert client.wait(60) == 5


def test_a_client_that_breaks_off_leaves_no_process(
    cluster: Instance, place: str, kubectl: str
) -> None:
    mark = f"{abs(hash(kubectl)) % 10**6 + 1000}"
    argv = [str(CLIENTS / kubectl), "-n", place, "exec", "-i", "a", "--", "sleep", mark]
    client = subprocess.Popen(argv, env=cluster.environment, stdin=subprocess.PIPE)
    eventually(lambda: f"sleep {mark}" in processes(cluster, place, "a"))
    client.kill()
    client.wait()
    eventually(lambda: f"sleep {mark}" not in processes(cluster, place, "a"))


def test_attach_reaches_the_containers_own_process(
    cluster: Instance, place: str, kubectl: str
) -> None:
    argv = [str(CLIENTS / kubectl), "-n", place, "attach", "-i", "shell"]
    with subprocess.Popen(
        argv, env=cluster.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(b"echoed\n")
        client.stdin.flush()
        assert client.stdout.readline().strip() == b"echoed"
        client.kill()
    assert cluster.get("pod", "shell", "-n", place)["status"]["phase"] == "Running"


def test_attach_to_a_terminal_carries_keys_and_what_they_lead_to(
    cluster: Instance, place: str, kubectl: str
) -> None:
    argv = [str(CLIENTS / kubectl), "-n", place, "attach", "-it", "term"]
    master, slave = pty.openpty()
    client = subprocess.Popen(
        argv, env=cluster.environment, stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    seen = b""

    def comes(wanted: bytes, seconds: float) -> bool:
        nonlocal seen
        while wanted not in seen:
            if not select.select([master], [], [], seconds)[0]:
                return False
            seen += os.read(master, 4096)
        seen = b""
        return True

    def until(wanted: bytes) -> None:
        assert comes(wanted, 60), f"no {wanted!r} came, only {seen!r}"

    until(b"pressing enter")
    os.write(master, b"echo $((40+2)); tty\n")
    until(b"42\r\n")
    os.write(master, b"echo $((1+2))go; sleep 1000\n")
    until(b"3go\r\n")  # (the shell itself hears no key any more)
    for _ in range(20):  # (a terminal drops what was typed before the signal was dealt with)
        os.write(master, b"\x03")
        os.write(master, b"echo $((50+5))\n")
        if comes(b"55\r\n", 3):
            break
    else:
        pytest.fail(f"only {seen!r} came")
    client.kill()
    client.wait()
    os.close(master)
    assert cluster.get("pod", "term", "-n", place)["status"]["phase"] == "Running"


def test_cp_carries_files_and_directories_both_ways(
    cluster: Instance, place: str, kubectl: str, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_text("text")
    megabytes = int(os.environ.get("WHERRY_TEST_COPY_MB", "40"))
    (tree / "large").write_bytes(os.urandom(1 << 20) * megabytes)
    into = f"/tmp/{kubectl}"
    assert call(cluster, kubectl, place, "cp", str(tree), f"a:{into}").returncode == 0
    back = tmp_path / "back"
    done = call(cluster, kubectl, place, "cp", f"a:{into}", str(back))
    assert done.returncode == 0, done.stderr
    assert (back / "deep" / "file").read_text() == "text"
    assert (back / "large").read_bytes() == (tree / "large").read_bytes()


@contextlib.contextmanager
def forwarded(
    cluster: Instance, kubectl: str, place: str, *arguments: str
) -> Iterator[tuple[list[int], subprocess.Popen[str]]]:
    argv = [str(CLIENTS / kubectl), "-n", place, "port-forward", *arguments]
    client = subprocess.Popen(
        argv, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        ports = []
        assert client.stdout is not None
        wanted = sum(argument.startswith(":") for argument in arguments)
        while len(ports) < wanted:
            line = client.stdout.readline()
            assert line, client.communicate()[1]
            ports += [int(p) for p in re.findall(r"127\.0\.0\.1:(\d+) ->", line)]
        yield ports, client
    finally:
        client.kill()
        client.communicate()


@pytest.mark.parametrize("target", ["web", "service/web", "deployment/serve", "statefulset/serve"])
def test_ports_are_forwarded_many_at_once(
    cluster: Instance, place: str, kubectl: str, target: str
) -> None:
    port = ":80" if target.startswith("service") else ":8000"
    with forwarded(cluster, kubectl, place, target, port, port) as (ports, _):
        assert len(ports) == 2
        idle = [socket.create_connection(("127.0.0.1", number)) for number in ports * 5]
        for number in ports * 5:
            with urllib.request.urlopen(f"http://127.0.0.1:{number}/", timeout=60) as answer:
                assert answer.read() == b"hi\n"
        for connection in idle:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            got = b""
            while piece := connection.recv(4096):
                got += piece
            assert got.endswith(b"hi\n")
            connection.close()


def test_a_closed_port_is_told(cluster: Instance, place: str, kubectl: str) -> None:
    with forwarded(cluster, kubectl, place, "web", ":9999") as ((port,), client):
        connection = socket.create_connection(("127.0.0.1", port))
        with contextlib.suppress(ConnectionError):
            assert connection.recv(10) == b""
        connection.close()
        assert client.stderr is not None
        assert "connection refused" in client.stderr.readline()


def test_the_python_client_streams(cluster: Instance, place: str, kubectl: str) -> None:
    if kubectl != "kubectl-1.37":
        pytest.skip("once is enough")
    import kubernetes
    from kubernetes.stream import portforward, stream

    configuration = kubernetes.client.Configuration()
    loader = kubernetes.config.load_kube_config
    loader(cluster.environment["KUBECONFIG"], client_configuration=configuration)
    api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))
    command = ["sh", "-c", "echo out; echo err >&2; read x; echo got $x; exit 3"]
    session = stream(
        kubernetes.client.CoreV1Api(
            kubernetes.client.ApiClient(configuration)
        ).connect_get_namespaced_pod_exec,
        "a", place, command=command, stdin=True, stdout=True, stderr=True,
        _preload_content=False,
    )  # fmt: skip
    session.write_stdin("word\n")
    session.run_forever(timeout=60)
    assert session.read_stdout() == "out\ngot word\n"
    assert session.read_stderr() == "err\n"
    assert session.returncode == 3
    forward = portforward(api.connect_get_namespaced_pod_portforward, "web", place, ports="8000")
    connection = forward.socket(8000)
    connection.setblocking(True)
    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
    got = b""
    while piece := connection.recv(4096):
        got += piece
    assert got.endswith(b"hi\n")
