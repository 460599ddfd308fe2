"""``docker logs`` and the log drivers, with the real client."""

import contextlib
import datetime
import gzip
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
from docker_harness import until

pytest_plugins = ("docker_fixtures",)

LINES = "i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done"


def run(engine, *options, script="echo out; echo err >&2", name="web"):
    engine.docker("run", "--name", name, *options, "busybox", "sh", "-c", script)
    return engine.inspect(name)


def lines(first, last):
    return "".join(f"line {n}\n" for n in range(first, last))


# ---- json-file


def test_the_file_is_dockers(engine):
    shown = run(engine, "--label", "a=1", "--log-opt", "labels=a", "--log-opt", "tag={{.Name}}")
    path = Path(shown["LogPath"])
    assert path == Path(engine.data, "containers", shown["Id"], f"{shown['Id']}-json.log")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((e["stream"], e["log"]) for e in entries) == [
        ("stderr", "err\n"),
        ("stdout", "out\n"),
    ]
    assert all(list(e) == ["log", "stream", "attrs", "time"] for e in entries)
    assert entries[0]["attrs"] == {"a": "1", "tag": "web"}
    done = engine.docker("logs", "web")
    assert (done.out, done.err) == ("out\n", "err\n")
    details = engine.docker("logs", "--details", "web")
    assert details.out == "a=1,tag=web out\n"


def test_a_created_container_has_no_log_yet(engine):
    engine.docker("create", "--name", "web", "busybox", "true")
    assert engine.inspect("web")["LogPath"] == ""
    assert engine.docker("logs", "-f", "web").out == ""


def test_tail_timestamps_since_and_until(engine):
    run(engine, script="echo one; sleep 1.1; echo two; sleep 1.1; echo three")
    assert engine.docker("logs", "--tail", "2", "web").out == "two\nthree\n"
    assert engine.docker("logs", "--tail", "0", "web").out == ""
    stamped = engine.docker("logs", "-t", "web").out.splitlines()
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (one|two|three)"
    assert all(re.fullmatch(pattern, line) for line in stamped)
    second = stamped[1].split()[0]
    assert engine.docker("logs", "--since", second, "web").out == "two\nthree\n"
    assert engine.docker("logs", "--until", second, "web").out == "one\ntwo\n"
    assert engine.docker("logs", "--since", "1h", "--until", second, "--tail", "2", "web").out == (
        "two\n"
    )


def test_a_terminal_is_logged_raw(engine):
    engine.docker("run", "-t", "--name", "web", "busybox", "sh", "-c", "echo a; echo b >&2")
    assert engine.docker("logs", "web").raw == b"a\r\nb\r\n"


def test_long_lines_and_bytes_that_are_no_text(engine):
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'a\\377b\\n'; printf end"
    shown = run(engine, script=script)
    raw = engine.docker("logs", "web").raw
    assert raw == b"x" * 40000 + b"\na\xef\xbf\xbdb\nend"
    texts = [json.loads(line)["log"] for line in Path(shown["LogPath"]).read_text().splitlines()]
    assert [len(text) for text in texts] == [16384, 16384, 7233, 4, 3]
    assert b'"a\\ufffdb\\n"' in Path(shown["LogPath"]).read_bytes()


@pytest.mark.parametrize("compress", ["true", "false"])
def test_rotation_keeps_as_many_files_as_were_asked_for(engine, compress):
    options = ["max-size=10k", "max-file=3", f"compress={compress}"]
    shown = run(engine, *(f"--log-opt={o}" for o in options), script=LINES % 2000)
    path = Path(shown["LogPath"])
    suffix = ".gz" if compress == "true" else ""
    old = [path.with_name(f"{path.name}.{n}{suffix}") for n in (1, 2)]
    until(lambda: all(file.exists() for file in old))
    until(
        lambda: (
            sorted(p.name for p in path.parent.glob("*-json.log*"))
            == sorted([path.name, *(p.name for p in old)])
        )
    )
    kept = engine.docker("logs", "web").out.splitlines()
    assert kept[-1] == "line 1999" and kept == [f"line {n}" for n in range(2000 - len(kept), 2000)]
    assert engine.docker("logs", "--tail", "150", "web").out == lines(1850, 2000)
    if compress == "true":
        assert gzip.decompress(old[0].read_bytes()).startswith(b'{"log":"line ')


def test_following_across_rotation_loses_and_repeats_nothing(engine):
    options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=2"]
    script = (
        "i=0; while [ $i -lt 20 ]; do seq $((i*500)) $((i*500+499)); usleep 20000; i=$((i+1)); done"
    )
    waits = "echo begin; until [ -e /go ]; do sleep 0.1; done;"
    engine.docker("run", "-d", "--name", "web", *options, "busybox", "sh", "-c", waits + script)
    with engine.spawn("logs", "-f", "web") as follower:
        assert follower.stdout.readline() == b"begin\n"
        engine.docker("exec", "web", "touch", "/go")
        followed = follower.stdout.read().decode()
    assert followed == "".join(f"{n}\n" for n in range(10_000))


def test_following_ends_with_the_container_and_has_all(engine):
    engine.docker("run", "-d", "--name", "web", "busybox", "sh", "-c", "echo a; sleep 1; echo b")
    assert engine.docker("logs", "-f", "web").out == "a\nb\n"
    assert engine.docker("logs", "-f", "web").out == "a\nb\n"
    engine.docker("start", "web")
    assert engine.docker("logs", "-f", "--tail", "1", "web").out.endswith("b\n")
    assert engine.docker("logs", "web").out == "a\nb\n" * 2


def test_following_until_a_time_ends_then(engine):
    engine.docker("run", "-d", "--name", "web", "busybox", "sh", "-c", "echo a; sleep 60")
    until(lambda: engine.docker("logs", "web").out)
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
    text = engine.docker("logs", "-f", "--until", moment.isoformat(), "web").out
    assert text == "a\n"


def test_a_follower_that_leaves_is_forgotten(engine):
    engine.docker("run", "-d", "--name", "web", "busybox", "sleep", "60")
    before = len(os.listdir(f"/proc/{engine._process.pid}/fd"))
    followers = [engine.spawn("logs", "-f", "web") for _ in range(5)]
    until(lambda: len(os.listdir(f"/proc/{engine._process.pid}/fd")) > before + 5)
    for follower in followers:
        follower.kill()
        follower.wait()
    until(lambda: len(os.listdir(f"/proc/{engine._process.pid}/fd")) <= before)


def test_a_killed_daemon_loses_no_line_and_repeats_none(engine):
    script = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); usleep 500; done; sleep 60"
    options = ["--log-opt", "max-size=8k", "--log-opt", "max-file=100"]
    engine.docker("run", "-d", "--name", "web", *options, "busybox", "sh", "-c", script)
    for _ in range(3):
        time.sleep(0.3)
        engine.kill()
        engine.start()
    until(lambda: engine.docker("logs", "--tail", "1", "web").out == "2999\n")
    numbers = list(map(int, engine.docker("logs", "web").out.split()))
    assert numbers == sorted(set(numbers))
    # What a daemon had read and not yet written when it was killed is gone with it. That is little
    # beside what is written while there is none.
    assert len(numbers) > 2900


def test_an_unfinished_line_survives_a_restart_of_the_daemon(engine):
    script = "printf 'begin '; sleep 2; echo end; sleep 60"
    engine.docker("run", "-d", "--name", "web", "busybox", "sh", "-c", script)
    time.sleep(0.3)
    engine.stop()
    engine.start()
    until(lambda: engine.docker("logs", "web").out == "begin end\n")


def test_an_emptied_file_goes_on(engine):
    script = "echo a; until [ -e /go ]; do sleep 0.1; done; echo b"
    engine.docker("run", "-d", "--name", "web", "busybox", "sh", "-c", script)
    path = until(lambda: engine.inspect("web")["LogPath"])
    until(lambda: Path(path).stat().st_size)
    os.truncate(path, 0)
    engine.docker("exec", "web", "touch", "/go", ok=False)  # (it may be ended by that)
    engine.docker("wait", "web")
    assert engine.docker("logs", "web").out == "b\n"


def test_a_full_disk_does_not_stop_the_container(engine, tmp_path):
    engine.docker("create", "--name", "web", "busybox", "sh", "-c", LINES % 5000)
    home = Path(engine.data, "containers", engine.inspect("web")["Id"])
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", small], check=True)
    try:
        (home / f"{home.name}-json.log").touch()
        (small / "log").touch()
        subprocess.run(
            ["mount", "--bind", small / "log", home / f"{home.name}-json.log"], check=True
        )
        engine.docker("start", "web")
        assert engine.docker("wait", "web").out == "0\n"
        kept = engine.docker("logs", "web").out.splitlines()
        numbers = [int(line.removeprefix("line ")) for line in kept]
        # Once one does not fit, one that is shorter by a digit of its time may still do.
        assert numbers == sorted(set(numbers)) and numbers[:100] == list(range(100))
    finally:
        subprocess.run(["umount", home / f"{home.name}-json.log"], check=False)
        subprocess.run(["umount", small], check=True)


# ---- other drivers


def test_local_is_read_back_and_has_no_path(engine):
    shown = run(engine, "--log-driver", "local", "--log-opt", "max-size=10k", script=LINES % 3000)
    assert shown["LogPath"] == ""
    home = Path(engine.data, "containers", shown["Id"], "local-logs")
    assert (home / "container.log").stat().st_size <= 10_240
    until(lambda: (home / "container.log.4.gz").exists())
    kept = engine.docker("logs", "web").out
    assert lines(0, 3000).endswith(kept) and len(kept) > 5000
    assert engine.docker("logs", "--tail", "3", "web").out == lines(2997, 3000)
    stamped = engine.docker("logs", "-t", "--tail", "1", "web").out
    assert re.fullmatch(r"[-\d]+T[:\d]+\.\d{9}Z line 2999\n", stamped)


def test_local_is_followed_with_both_streams(engine):
    script = "sleep .5; echo a; echo b >&2; printf c"
    engine.docker(
        "run", "-d", "--name", "web", "--log-driver", "local", "busybox", "sh", "-c", script
    )
    done = engine.docker("logs", "-f", "web")
    assert (done.out, done.err) == ("a\nc", "b\n")


def test_none_keeps_nothing_and_says_so(engine):
    shown = run(engine, "--log-driver", "none")
    assert shown["LogPath"] == ""
    done = engine.docker("logs", "web", ok=False)
    assert done.err == (
        "Error response from daemon: configured logging driver does not support reading\n"
    )
    answer = engine.request("GET", "/containers/web/logs?stdout=1")
    assert answer.status == 501


def test_non_blocking_mode_is_read_back(engine):
    options = ["--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=4m"]
    run(engine, *options, script=LINES % 1000)
    assert engine.docker("logs", "web").out == lines(0, 1000)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--log-opt", "x=y"], "unknown log opt 'x' for json-file log driver"),
        (["--log-driver", "x"], "logger: no log driver named 'x' is registered"),
        (["--log-opt", "mode=x"], "logger: logging mode not supported: x"),
    ],
)
def test_bad_options_are_refused_at_creation(engine, options, error):
    done = engine.docker("create", *options, "busybox", ok=False)
    assert f"Error response from daemon: {error}\n" in done.err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--log-opt", "max-size=x"], "failed to initialize logging driver: invalid size: 'x'"),
        (
            ["--log-driver", "syslog", "--log-opt", "syslog-address=tcp://127.0.0.1:1"],
            "failed to initialize logging driver: "
            "dial tcp 127.0.0.1:1: connect: connection refused",
        ),
    ],
)
def test_bad_options_are_refused_at_the_start(engine, options, error):
    done = engine.docker("run", "--name", "web", *options, "busybox", "true", ok=False)
    assert f"Error response from daemon: {error}" in done.err
    assert done.code == 125 or done.code == 128
    assert engine.inspect("web", "{{.State.Status}}") == "created"


def test_numbers_are_no_options(engine):
    body = {"Image": "busybox", "HostConfig": {"LogConfig": {"Config": {"max-size": 5}}}}
    answer = engine.request("POST", "/containers/create", body)
    assert answer.status == 400
    assert "cannot unmarshal" in answer.body["message"]


def test_info_lists_the_drivers(engine):
    done = engine.docker("info", "-f", "{{.LoggingDriver}} {{.Plugins.Log}}")
    assert done.out == "json-file [journald json-file local syslog]\n"


# ---- syslog


class Server:
    """Takes messages on a socket until the test ends."""

    def __init__(self, listener, *, stream, wrap=None):
        self.listener = listener
        self.data = b""
        self._stream = stream
        self._wrap = wrap
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                if not self._stream:
                    self.data += self.listener.recv(1 << 16)
                    continue
                connection, _ = self.listener.accept()
                with contextlib.suppress(OSError):
                    connection = self._wrap(connection) if self._wrap else connection
                    while piece := connection.recv(1 << 16):
                        self.data += piece

    def close(self):
        self.listener.close()


@pytest.fixture
def serve():
    servers = []

    def make(family, kind, address, wrap=None):
        listener = socket.socket(family, kind)
        listener.bind(address)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        servers.append(Server(listener, stream=kind == socket.SOCK_STREAM, wrap=wrap))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def syslog(engine, address, *options):
    options = [f"syslog-address={address}", "tag={{.ImageName}}/{{.Name}}", *options]
    arguments = [argument for o in options for argument in ("--log-opt", o)]
    return run(engine, "--log-driver", "syslog", *arguments)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_syslog_over_the_network(engine, serve, protocol):
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    server = serve(socket.AF_INET, kind, ("127.0.0.1", 0))
    port = server.listener.getsockname()[1]
    syslog(engine, f"{protocol}://127.0.0.1:{port}", "syslog-format=rfc5424micro")
    until(lambda: server.data.count(b"\n") == 2)
    messages = sorted(server.data.decode().splitlines())
    shape = r"<%d>1 [-\d]+T[:\d]+\.\d{6}\S+ \S+ busybox/web \d+ busybox/web - %s"
    assert re.fullmatch(shape % (27, "err"), messages[0])
    assert re.fullmatch(shape % (30, "out"), messages[1])
    # What is sent away can be read here all the same.
    assert engine.docker("logs", "web").out == "out\n"


@pytest.mark.parametrize("protocol", ["unix", "unixgram"])
def test_syslog_over_a_unix_socket(engine, serve, tmp_path, protocol):
    kind = socket.SOCK_STREAM if protocol == "unix" else socket.SOCK_DGRAM
    server = serve(socket.AF_UNIX, kind, str(tmp_path / "log"))
    facility = "syslog-facility=local3"
    syslog(engine, f"{protocol}://{tmp_path}/log", facility, "cache-disabled=true")
    until(lambda: server.data.count(b"\n") == 2)
    assert re.search(rb"<158>\w{3} .\d [:\d]+ busybox/web\[\d+\]: out\n", server.data)
    done = engine.docker("logs", "web", ok=False)
    assert "configured logging driver does not support reading" in done.err


def test_syslog_over_tls(engine, serve, tmp_path):
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def wrap(connection):
        return context.wrap_socket(connection, server_side=True)

    server = serve(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), wrap)
    address = f"tcp+tls://127.0.0.1:{server.listener.getsockname()[1]}"
    syslog(engine, address, f"syslog-tls-ca-cert={certificate}", "syslog-format=rfc5424")
    until(lambda: b"err\n" in server.data and b"out\n" in server.data)
    length, message = re.match(rb"(\d+) (<\d+>1 [^\n]+\n)", server.data).groups()
    assert int(length) == len(message)
    engine.docker("rm", "web")
    options = ["--log-driver", "syslog", "--log-opt", f"syslog-address={address}"]
    done = engine.docker("run", "--name", "web", *options, "busybox", "true", ok=False)
    assert "x509: certificate signed by unknown authority" in done.err
    engine.docker("run", "--rm", *options, "--log-opt=syslog-tls-skip-verify=1", "busybox", "true")


def test_a_syslog_server_that_comes_back_is_found(engine, serve):
    server = serve(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
    port = server.listener.getsockname()[1]
    options = ["--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://127.0.0.1:{port}"]
    script = "while read x; do echo $x; done"
    engine.docker("run", "-di", "--name", "web", *options, "busybox", "sh", "-c", script)
    for text in (b"one\n", b"two\n"):
        client = engine.spawn("attach", "web", stdin=subprocess.PIPE)
        client.stdin.write(text)
        client.stdin.flush()
        until(lambda text=text: b": " + text in server.data)
        engine.kill()  # the connections break off
        client.communicate(timeout=60)
        engine.start()


def test_journald_needs_a_journal(engine):
    if Path("/run/systemd/journal/socket").exists():
        pytest.skip("there is one")
    done = engine.docker("run", "--log-driver", "journald", "busybox", "true", ok=False)
    assert "failed to initialize logging driver: journald is not enabled on this host" in done.err
