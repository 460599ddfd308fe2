"""The Engine API itself: versions, headers, errors, shapes."""

import json
import socket
import stat

import pytest

pytest_plugins = ("docker_fixtures",)


def test_ping_tells_what_is_spoken(engine):
    for method, path in (("GET", "/_ping"), ("HEAD", "/_ping"), ("GET", "/v1.30/_ping")):
        answer = engine.request(method, path)
        assert answer.status == 200
        assert answer.headers["Api-Version"] == "1.50"
        assert answer.headers["Ostype"] == "linux"
        assert answer.headers["Docker-Experimental"] == "false"
    assert engine.request("GET", "/_ping").body == b"OK"


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (
            "1.23",
            "client version 1.23 is too old. Minimum supported API version is 1.24, please "
            "upgrade your client to a newer version",
        ),
        ("1.51", "client version 1.51 is too new. Maximum supported API version is 1.50"),
    ],
)
def test_versions_beyond_ours_are_refused(engine, version, text):
    answer = engine.request("GET", f"/v{version}/containers/json")
    assert (answer.status, answer.body) == (400, {"message": text})


def test_old_and_unnamed_versions_are_served(engine):
    for prefix in ("", "/v1.24", "/v1.43", "/v1.50"):
        assert engine.request("GET", f"{prefix}/containers/json").body == []


def test_unknown_places(engine):
    for method, path in (("GET", "/nope"), ("PUT", "/version"), ("GET", "/v1.40/nope")):
        answer = engine.request(method, path)
        assert (answer.status, answer.body) == (404, {"message": "page not found"})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/containers/nope/json", None, 404, "No such container: nope"),
        ("POST", "/containers/nope/start", None, 404, "No such container: nope"),
        ("DELETE", "/containers/nope", None, 404, "No such container: nope"),
        ("POST", "/containers/create", {"Image": "nope"}, 404, "No such image: nope:latest"),
        (
            "POST",
            "/containers/create",
            {"Image": "busybox", "HostConfig": {"Memory": "1g"}},
            400,
            "invalid JSON: json: cannot unmarshal string into Go struct field "
            "CreateRequest.HostConfig.Memory of type int64",
        ),
        ("POST", "/containers/create?name=-x", {"Image": "busybox"}, 400, "Invalid container name"),
        ("GET", '/containers/json?filters={"x":["y"]}', None, 400, "invalid filter 'x'"),
        ("GET", "/networks/nope", None, 404, "network nope not found"),
        ("GET", "/volumes/nope", None, 404, "get nope: no such volume"),
        ("GET", "/swarm", None, 503, "This node is not a swarm manager."),
        ("GET", "/exec/nope/json", None, 404, "No such exec instance: nope"),
    ],
)
def test_errors_have_their_status_and_text(engine, method, path, body, status, text):
    answer = engine.request(method, path, body)
    assert answer.status == status
    assert text in answer.body["message"]


def test_a_body_that_is_no_json(engine):
    answer = engine.request(
        "POST", "/containers/create", headers={"Content-Type": "application/json"}
    )
    assert answer.status == 400


def test_logs_need_a_stream(engine):
    engine.docker("create", "--name", "web", "busybox")
    answer = engine.request("GET", "/containers/web/logs")
    assert answer.body == {"message": "Bad parameters: you must choose at least one stream"}


def test_state_changes_that_change_nothing(engine):
    engine.docker("run", "-d", "--name", "web", "busybox", "sleep", "100")
    assert engine.request("POST", "/containers/web/start").status == 304
    assert engine.request("POST", "/containers/web/stop?t=0").status == 204
    assert engine.request("POST", "/containers/web/stop").status == 304


def test_a_created_container_is_whole(engine):
    made = engine.request("POST", "/containers/create?name=web", {"Image": "busybox"})
    assert made.status == 201
    assert made.body["Warnings"] == []
    shown = engine.request("GET", "/containers/web/json").body
    assert shown["Id"] == made.body["Id"]
    assert shown["Config"]["Cmd"] == ["sh"]
    assert shown["HostConfig"]["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert shown["State"]["Status"] == "created"
    assert shown["Image"].startswith("sha256:")


def _connect(engine):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(engine.socket))
    return connection


def _read_all(connection):
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


@pytest.mark.parametrize(
    ("upgrade", "version", "head", "kind"),
    [
        (True, "1.50", b"HTTP/1.1 101 UPGRADED", b"application/vnd.docker.multiplexed-stream"),
        (True, "1.41", b"HTTP/1.1 101 UPGRADED", b"application/vnd.docker.raw-stream"),
        (False, "1.50", b"HTTP/1.1 200 OK", b"application/vnd.docker.multiplexed-stream"),
    ],
)
def test_an_attached_connection_becomes_a_stream(engine, upgrade, version, head, kind):
    engine.docker("create", "-i", "--name", "cat", "busybox", "cat")
    with _connect(engine) as connection:
        extra = b"Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else b""
        connection.sendall(
            b"POST /v%s/containers/cat/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\n"
            b"Host: docker\r\nContent-Length: 0\r\n%s\r\n" % (version.encode(), extra)
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = connection.recv(65536)
            assert piece, answer
            answer += piece
        assert answer.startswith(head)
        assert kind in answer
        engine.docker("start", "cat")
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        assert _read_all(connection) == b"\x01\0\0\0\0\0\0\x05hello"


def _wait(connection, condition):
    """Begin to wait for container ``job``, and read the answer's head."""
    head = f"POST /containers/job/wait?condition={condition} HTTP/1.1\r\nHost: docker\r\n"
    connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"StatusCode" not in answer


def test_wait_answers_its_headers_at_once(engine):
    engine.docker("run", "-d", "--name", "job", "busybox", "sleep", "100")
    with _connect(engine) as connection:
        _wait(connection, "not-running")
        engine.docker("kill", "job")
        assert b'{"StatusCode":137}' in _read_all(connection)


def test_wait_for_a_removal(engine):
    engine.docker("run", "-d", "--rm", "--name", "job", "busybox", "sleep", "100")
    with _connect(engine) as connection:
        _wait(connection, "removed")
        engine.docker("kill", "job")
        assert b'{"StatusCode":137}' in _read_all(connection)
    assert engine.request("GET", "/containers/job/json").status == 404


def test_the_socket_is_for_root_and_its_group(engine):
    assert stat.S_IMODE(engine.socket.stat().st_mode) == 0o660


def test_version_and_info_are_shown_by_the_client(engine):
    shown = json.loads(engine.docker("version", "--format", "{{json .Server}}").out)
    assert shown["ApiVersion"] == "1.50"
    assert shown["Os"] == "linux"
    info = json.loads(engine.docker("info", "--format", "{{json .}}").out)
    assert info["Driver"] == "overlay2"
    assert info["Images"] == 1
