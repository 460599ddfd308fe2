"""What annotations wish, as a client of a real nginx sees it. No cluster: servers on loopback."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import websocket
from conftest import eventually
from ingress_edge import HOST, MIRRORED, MORE, PIECE, PIECES, Edge, Load, ingress, shown

from wherry.kube.ingress import certificates
from wherry.kube.ingress.nginx import OLD_WORKERS, listeners

pytest_plugins = ("ingress_fixtures",)


def test_paths_are_rewritten(edge: Edge) -> None:
    edge.serve(ingress(path="/app(/|$)(.*)", match="ImplementationSpecific", rewrite_target="/$2"))
    assert edge.ask("/app/deep/er?x=1")[2]["path"] == "/deep/er?x=1"
    assert edge.ask("/app")[2]["path"] == "/"
    assert edge.ask("/apple")[0] == 404


def test_expressions(edge: Edge) -> None:
    edge.serve(ingress(path="/v[0-9]+/", match="ImplementationSpecific", use_regex="true"))
    assert edge.ask("/v12/x")[0] == 200 and edge.ask("/vx/x")[0] == 404


def test_what_servers_are_told(edge: Edge) -> None:
    edge.serve(ingress())
    told = edge.ask(X_Forwarded_For="192.0.2.9")[2]["headers"]
    assert told["host"] == HOST and told["x-real-ip"] == "127.0.0.1"
    assert told["x-forwarded-for"] == "127.0.0.1" and told["x-forwarded-proto"] == "http"
    assert told["x-original-forwarded-for"] == "192.0.2.9" and len(told["x-request-id"]) == 32


def test_bodies_have_a_limit(edge: Edge) -> None:
    edge.serve(ingress(proxy_body_size="2k"))
    assert edge.ask(method="POST", body=b"x" * 2000)[2]["size"] == 2000
    assert edge.ask(method="POST", body=b"x" * 4000)[0] == 413
    edge.serve(ingress(proxy_body_size="0"))
    assert edge.ask(method="POST", body=b"x" * 3_000_000)[2]["size"] == 3_000_000


def test_times_have_a_limit(edge: Edge) -> None:
    edge.serve(ingress(proxy_read_timeout="1", proxy_next_upstream="off"))
    assert edge.ask("/never")[0] == 504
    eventually(lambda: edge.ask("/")[0] == 200)  # (on a busy machine this takes its second, too)


def test_a_cookie_keeps_a_client_with_its_server(edge: Edge) -> None:
    edge.serve(ingress("both", affinity="cookie", session_cookie_name="at-home"))
    _, headers, told = edge.ask()
    cookie = headers["set-cookie"].partition(";")[0]
    assert cookie.startswith("at-home=") and "HttpOnly" in headers["set-cookie"]
    assert "; Path=/;" in headers["set-cookie"] and "Secure" not in headers["set-cookie"]
    where = {edge.ask(Cookie=cookie)[2]["who"] for _ in range(8)}
    assert where == {told["who"]}
    assert "set-cookie" not in edge.ask(Cookie=cookie)[1]
    assert len({edge.ask()[2]["who"] for _ in range(30)}) == 2


def test_a_canary_gets_its_part(edge: Edge) -> None:
    def canary(**wishes: str) -> list[str]:
        return edge.serve(ingress(), ingress("other", name="canary", canary="true", **wishes))

    stable, other = edge.services["stable"], edge.services["other"]
    canary(canary_by_header="X-Try", canary_by_cookie="try")
    assert edge.ask()[2]["who"] == stable
    assert edge.ask(X_Try="always")[2]["who"] == other
    assert edge.ask(X_Try="never", Cookie="try=always")[2]["who"] == stable
    assert edge.ask(Cookie="try=always")[2]["who"] == other
    canary(canary_by_header="X-Try", canary_by_header_value="v2")
    assert edge.ask(X_Try="v2")[2]["who"] == other and edge.ask(X_Try="v1")[2]["who"] == stable
    assert edge.ask(X_Try="V2")[2]["who"] == edge.ask(X_Try="always")[2]["who"] == stable
    canary(canary_by_header="X-Try", canary_by_header_value="~.*")
    assert edge.ask(X_Try="any")[2]["who"] == stable and edge.ask(X_Try="~.*")[2]["who"] == other
    canary(canary_by_header="X-Try", canary_by_header_pattern="^v[2-9]$")
    assert edge.ask(X_Try="v7")[2]["who"] == other and edge.ask(X_Try="v1")[2]["who"] == stable
    canary(canary_weight="50")
    assert {edge.ask()[2]["who"] for _ in range(60)} == {stable, other}
    canary(canary_weight="1", canary_weight_total="100000000")
    assert edge.ask()[0] == 200
    canary(canary_weight="500", canary_weight_total="500")
    assert {edge.ask()[2]["who"] for _ in range(10)} == {other}


def test_somebody_else_gets_the_requests_too(edge: Edge) -> None:
    target = f"http://127.0.0.1:{edge.services['other']}/mirror$request_uri"
    edge.serve(ingress(mirror_target=target))
    code, _, told = edge.ask("/a?b", method="POST", body=b"body")
    assert code == 200 and told["who"] == edge.services["stable"] and told["size"] == 4
    assert MIRRORED.get(timeout=60) == ("/mirror/a?b", b"body")
    edge.serve(ingress(mirror_target=target, mirror_request_body="off"))
    assert edge.ask("/c", method="POST", body=b"body")[2]["size"] == 4
    assert MIRRORED.get(timeout=60) == ("/mirror/c", b"")


def test_what_servers_answer_is_put_right(edge: Edge) -> None:
    edge.serve(
        ingress(
            proxy_redirect_from="http://inside.example.com/",
            proxy_redirect_to="https://$host/out/",
            proxy_cookie_domain="inside.example.com example.com",
            proxy_cookie_path="/in /out",
        )
    )
    headers = edge.ask("/moved")[1]
    assert headers["location"] == f"https://{HOST}/out/new"
    assert headers["set-cookie"] == "a=b; Domain=example.com; Path=/out"
    edge.serve(ingress())
    assert edge.ask("/moved")[1]["location"] == "http://inside.example.com/new"


def test_small_wishes(edge: Edge) -> None:
    """Each is taken by nginx beside all others; some can be seen from the outside."""
    said = edge.serve(
        ingress(
            proxy_buffering="on",
            proxy_buffer_size="8k",
            proxy_buffers_number="6",
            proxy_busy_buffers_size="16k",
            proxy_max_temp_file_size="1m",
            proxy_http_version="1.0",
            connection_proxy_header="keep-alive",
            client_body_buffer_size="16k",
            enable_rewrite_log="true",
            preserve_trailing_slash="true",
            ssl_ciphers="HIGH:!aNULL",
            ssl_prefer_server_ciphers="true",
        )
    )
    assert said == [] and edge.ask()[0] == 200
    alone = ingress("alone", service_upstream="true", connection_proxy_header="keep-alive")
    backend = alone["spec"]["rules"][0]["http"]["paths"][0]["backend"]
    backend["service"]["port"] = {"name": "web"}
    assert edge.serve(alone) == []
    told = edge.ask()[2]
    assert told["who"] == edge.services["other"] and told["headers"]["connection"] == "keep-alive"


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ("ssl_passthrough", "TLS ends here"),
        ("upstream_hash_by_subset", "it needs Lua"),
        ("global_rate_limit", "it needs Lua"),
        ("enable_opentelemetry", "it needs a module for tracing"),
        ("auth_cache_key", "each request is asked about anew"),
    ],
)
def test_what_there_is_not_is_told(edge: Edge, wish: str, why: str) -> None:
    [said] = edge.serve(ingress(**{wish: "true"}))
    assert f"{wish.replace('_', '-')} changes nothing: {why}" in said
    assert edge.ask()[0] == 200


def test_pages_of_other_origins(edge: Edge) -> None:
    edge.serve(ingress(enable_cors="true", cors_allow_origin="https://*.example.org"))
    code, headers, _ = edge.ask(method="OPTIONS", Origin="https://a.example.org")
    assert code == 204 and headers["access-control-allow-origin"] == "https://a.example.org"
    assert "PUT" in headers["access-control-allow-methods"]
    assert headers["access-control-max-age"] == "1728000"
    headers = edge.ask(Origin="https://a.example.org")[1]
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["vary"] == "Origin"
    for origin in ("https://evil.example", "https://a.b.example.org", "https://example.org"):
        assert "access-control-allow-origin" not in edge.ask(Origin=origin)[1]
        code, headers, _ = edge.ask(method="OPTIONS", Origin=origin)
        assert code == 200 and "access-control-allow-origin" not in headers


def test_pages_of_all_origins(edge: Edge) -> None:
    """No page may use the credentials of a user, as it might if its origin were said."""
    edge.serve(ingress(enable_cors="true", cors_expose_headers="X-One, X-Two"))
    for path in ("/", "/open"):  # where the server has such a header itself, there is still one
        said = edge.curl("-H", "Origin: https://any.example", f"http://{HOST}:{edge.http}{path}")
        assert said.count("Access-Control-Allow-Origin:") == 1
        assert "Access-Control-Allow-Origin: *\n" in said.replace("\r", "")
        assert "Access-Control-Expose-Headers: X-One, X-Two" in said
    assert edge.ask(method="OPTIONS")[0] == 204


def test_redirects(edge: Edge) -> None:
    edge.serve(ingress(force_ssl_redirect="true"))
    code, headers, _ = edge.ask("/a?b=c")
    assert (code, headers["location"]) == (308, f"https://{HOST}:{edge.https}/a?b=c")
    edge.serve(ingress(permanent_redirect="https://example.org/", permanent_redirect_code="308"))
    code, headers, _ = edge.ask()
    assert (code, headers["location"]) == (308, "https://example.org/")
    edge.serve(ingress(app_root="/start"))
    code, headers, _ = edge.ask()
    assert code == 302 and headers["location"].endswith("/start")


def test_a_web_socket_goes_through(edge: Edge) -> None:
    edge.serve(ingress())
    client = websocket.create_connection(f"ws://127.0.0.1:{edge.http}/chat", host=HOST, timeout=60)
    client.send("hello")
    assert client.recv() == "hello"
    client.close()
    tls = {"cert_reqs": ssl.CERT_NONE, "check_hostname": False}
    client = websocket.create_connection(
        f"wss://127.0.0.1:{edge.https}/chat", host=HOST, timeout=60, sslopt=tls
    )
    client.send("hello")
    assert client.recv() == "hello"
    client.close()


def test_grpc_goes_through(edge: Edge) -> None:
    edge.serve(ingress("remote", backend_protocol="GRPC"))
    trusted = grpc.ssl_channel_credentials(edge.certificate.partition(b"-----BEGIN PRIV")[0])
    options = [
        ("grpc.ssl_target_name_override", "ingress.local"),
        ("grpc.default_authority", HOST),
    ]
    with grpc.secure_channel(f"127.0.0.1:{edge.https}", trusted, options) as channel:
        reverse: Callable[..., bytes] = channel.unary_unary("/test.Text/Reverse")
        assert reverse(b"hello", timeout=60) == b"olleh"
        each: Callable[..., Any] = channel.stream_stream("/test.Text/Each")
        assert list(each(iter([b"ab", b"cd"]), timeout=60)) == [b"ba", b"dc"]
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/test.Text/Nothing")(b"", timeout=60)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_access_log_has_a_line_a_request(edge: Edge) -> None:
    edge.serve(ingress())
    edge.ask("/logged?yes")
    log = Path(edge.nginx._directory) / "access.log"
    line = eventually(
        lambda: next((li for li in log.read_text().splitlines() if "/logged?yes" in li), "")
    )
    assert line.startswith("127.0.0.1 - - [") and "[default-stable-80]" in line
    assert f"127.0.0.1:{edge.services['stable']}" in line
    edge.serve(ingress(path="/here"))
    assert edge.ask("/nowhere")[0] == 404
    eventually(lambda: "/nowhere" in log.read_text())
    edge.serve(ingress(enable_access_log="false"))
    edge.ask("/secret")
    edge.serve(ingress())
    edge.ask("/after")
    eventually(lambda: "/after" in log.read_text())
    assert "/secret" not in log.read_text()


def test_servers_may_speak_tls(edge: Edge) -> None:
    edge.serve(ingress("secure", backend_protocol="HTTPS"))
    assert edge.ask()[2]["who"] == edge.services["secure"]
    edge.serve(ingress("secure"))
    assert edge.ask()[0] >= 400


@pytest.mark.parametrize("service", ["remote", "remote-tls"])
def test_grpc_to_servers_with_and_without_tls(edge: Edge, service: str) -> None:
    protocol = {"remote": "GRPC", "remote-tls": "GRPCS"}[service]
    edge.serve(ingress(service, backend_protocol=protocol))
    trusted = grpc.ssl_channel_credentials(edge.certificate.partition(b"-----BEGIN PRIV")[0])
    options = [
        ("grpc.ssl_target_name_override", "ingress.local"),
        ("grpc.default_authority", HOST),
    ]
    with grpc.secure_channel(f"127.0.0.1:{edge.https}", trusted, options) as channel:
        assert channel.unary_unary("/test.Text/Reverse")(b"hello", timeout=60) == b"olleh"


def test_redirects_to_tls_can_be_declined(edge: Edge) -> None:
    pem = certificates.default()
    cut = pem.index(b"-----BEGIN PRIVATE")
    edge.secrets["cert"] = {"tls.crt": pem[:cut], "tls.key": pem[cut:]}

    def secured(**wishes: str) -> dict[str, Any]:
        made = ingress(**wishes)
        made["spec"]["tls"] = [{"hosts": [HOST], "secretName": "cert"}]
        return made

    edge.serve(secured())
    assert edge.ask()[0] == 308 and shown(edge) == pem[:cut].decode().strip()
    edge.serve(secured(ssl_redirect="false"))
    assert edge.ask()[0] == 200
    # Without its key the host has the certificate of all others, and somebody is told.
    del edge.secrets["cert"]["tls.key"]
    [said] = edge.serve(secured(ssl_redirect="false"))
    assert said == 'secret "default/cert" has no usable certificate: no tls.key in it'
    assert edge.ask()[0] == 200
    assert shown(edge) == edge.certificate.partition(b"-----BEGIN PRIV")[0].decode().strip()


def test_hosts_without_a_certificate_have_the_default_one(edge: Edge) -> None:
    pem = certificates.default()
    cut = pem.index(b"-----BEGIN PRIVATE")
    edge.secrets["common"] = {"tls.crt": pem[:cut], "tls.key": pem[cut:]}
    edge.serve(ingress(), certificate="default/common")
    assert shown(edge) == shown(edge, "other.example.com") == pem[:cut].decode().strip()


def test_both_families_are_served(edge: Edge) -> None:
    if len(listeners(edge.http)) == 1:
        pytest.skip("this machine has no IPv6")
    edge.serve(ingress())
    connection = http.client.HTTPConnection("::1", edge.http, timeout=30)
    connection.request("GET", "/six", headers={"Host": HOST})
    told = json.loads(connection.getresponse().read())
    assert told["path"] == "/six" and told["headers"]["x-real-ip"] == "::1"
    connection.close()


def test_of_two_that_overlap_the_older_has_the_path(edge: Edge) -> None:
    first, second = ingress(name="first"), ingress("other", name="second")
    first["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    second["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    rule = {**second["spec"]["rules"][0]["http"]["paths"][0], "path": "/more"}
    second["spec"]["rules"][0]["http"]["paths"].append(rule)
    said = edge.serve(second, first)
    assert said == [f'host "{HOST}" and path "/" is already defined in ingress default/first']
    assert edge.ask("/")[2]["who"] == edge.services["stable"]
    assert edge.ask("/more/x")[2]["who"] == edge.services["other"]


def test_paths_of_all_types_go_together(edge: Edge) -> None:
    """The same path as another type, in Ingresses of two owners, and a default backend."""
    made = [
        ingress("other", path="/a", match="Exact", name="n1"),
        ingress("stable", path="/a", name="n2"),
        ingress("other", path="/a/", match="ImplementationSpecific", name="n3"),
        ingress("other", path="/", match="ImplementationSpecific", name="n4"),
        ingress("stable", path="/", name="n5"),
    ]
    backend = {"service": {"name": "stable", "port": {"number": 80}}}
    made[3]["spec"]["defaultBackend"] = backend
    said = edge.serve(*made)
    assert said == [f'host "{HOST}" and path "/" is already defined in ingress default/n4']
    stable, other = edge.services["stable"], edge.services["other"]
    wanted = {"/a": other, "/a/": other, "/a/b": other, "/ab": other, "/": other}
    assert {path: edge.ask(path)[2]["who"] for path in wanted} == wanted
    edge.serve(*made[:2])
    assert edge.ask("/a")[2]["who"] == other and edge.ask("/a/b")[2]["who"] == stable


def test_what_is_under_way_outlives_changes(edge: Edge) -> None:
    """A download and a WebSocket, while paths, wishes and endpoints become others."""
    edge.serve(ingress())
    download = http.client.HTTPConnection("127.0.0.1", edge.http, timeout=60)
    download.request("GET", "/long", headers={"Host": HOST})
    answer = download.getresponse()
    chat = websocket.create_connection(f"ws://127.0.0.1:{edge.http}/chat", host=HOST, timeout=60)
    changes = [
        ingress("other"),
        ingress("both", proxy_read_timeout="77"),
        ingress("other", path="/elsewhere"),
    ]
    for number, change in enumerate(changes):
        assert answer.read(len(PIECE)) == PIECE
        chat.send(f"hello {number}")
        assert chat.recv() == f"hello {number}"
        edge.serve(change)
        MORE.put(None)
    for _ in range(PIECES - len(changes)):
        assert answer.read(len(PIECE)) == PIECE
        MORE.put(None)
    assert answer.read() == b""
    chat.send("bye")
    assert chat.recv() == "bye"
    chat.close()
    download.close()


def test_processes_of_former_configurations_are_not_kept_without_end(edge: Edge) -> None:
    edge.serve(ingress())
    talking = []
    workers = len(edge._workers())
    for number in range(OLD_WORKERS // workers + 3):
        # One for each worker, as far as chance has it: they stay with their connections.
        for _ in range(4):
            chat = websocket.create_connection(
                f"ws://127.0.0.1:{edge.http}/chat", host=HOST, timeout=60
            )
            talking.append(chat)
        edge.serve(ingress(proxy_read_timeout=str(100 + number)))
        edge.nginx.retire()
    eventually(lambda: len(edge.nginx._old_workers()) <= OLD_WORKERS)
    talking[-1].send("still here")
    assert talking[-1].recv() == "still here"
    for chat in talking:
        chat.close()
    eventually(lambda: edge.nginx._old_workers() == [])


def test_no_request_is_lost_while_much_changes(edge: Edge) -> None:
    edge.serve(ingress())
    with Load(edge.http) as load:
        for number in range(8):
            service = ("stable", "both", "other")[number % 3]
            before = load.answered
            edge.serve(ingress(service, proxy_read_timeout=str(60 + number)))
            eventually(lambda before=before: load.answered > before + 20)
    assert load.lost == []


def test_a_cookie_can_name_its_server(edge: Edge) -> None:
    """``persistent``: more endpoints move nobody, and where one is gone another is named."""
    wishes = {"affinity": "cookie", "affinity_mode": "persistent", "session_cookie_name": "home"}
    edge.serve(ingress("other", **wishes))
    cookie = edge.ask()[1]["set-cookie"].partition(";")[0]
    edge.serve(ingress("both", **wishes))
    for _ in range(8):
        _, headers, told = edge.ask(Cookie=cookie)
        assert told["who"] == edge.services["other"] and "set-cookie" not in headers
    assert len({edge.ask()[2]["who"] for _ in range(40)}) == 2
    edge.serve(ingress("stable", **wishes))
    _, headers, told = edge.ask(Cookie=cookie)
    assert told["who"] == edge.services["stable"]
    assert headers["set-cookie"].startswith("home=") and cookie not in headers["set-cookie"]


@pytest.mark.parametrize("mode", ["balanced", "persistent"])
def test_who_was_served_by_a_canary_is_so_again(edge: Edge, mode: str) -> None:
    wishes = {"affinity": "cookie", "affinity_mode": mode}
    canary = {"name": "canary", "canary": "true", "canary_weight": "50"}
    edge.serve(ingress(**wishes), ingress("other", **wishes, **canary))
    seen = set()
    for _ in range(24):
        _, headers, told = edge.ask()
        cookie = headers["set-cookie"].partition(";")[0]
        seen.add(told["who"])
        assert {edge.ask(Cookie=cookie)[2]["who"] for _ in range(2)} == {told["who"]}
    assert seen == {edge.services["stable"], edge.services["other"]}


def test_what_cookies_say(edge: Edge) -> None:
    wishes = {
        "affinity": "cookie",
        "session_cookie_expires": "600",
        "session_cookie_samesite": "None",
        "session_cookie_conditional_samesite_none": "true",
        "session_cookie_domain": "example.com",
    }
    edge.serve(ingress(path="/here", **wishes))
    cookie = edge.ask("/here")[1]["set-cookie"]
    assert cookie.partition(";")[2] == (
        " Max-Age=600; Path=/here; Domain=example.com; HttpOnly; Secure; SameSite=None"
    )
    browser = "Mozilla/5.0 (X11; Linux) AppleWebKit/537.36 Chrome/55.0.2883.87 Safari/537.36"
    assert "SameSite" not in edge.ask("/here", User_Agent=browser)[1]["set-cookie"]
    edge.serve(ingress(affinity="cookie", session_cookie_path="/$x", session_cookie_max_age="5"))
    assert "; Max-Age=5; Path=/$x; HttpOnly" in edge.ask()[1]["set-cookie"]
    assert "; Secure" in edge.curl(f"https://{HOST}:{edge.https}/").partition("\r\n\r\n")[0]
    edge.serve(ingress(affinity="cookie", session_cookie_secure="false"))
    assert "; Secure" not in edge.curl(f"https://{HOST}:{edge.https}/")


@pytest.mark.parametrize("wishes", [{}, {"rewrite_target": "/x"}, {"backend_protocol": "GRPC"}])
def test_without_endpoints_the_answer_is_503(edge: Edge, wishes: dict[str, str]) -> None:
    edge.serve(ingress("empty", **wishes))
    assert edge.ask()[0] == 503


def test_a_canary_serves_alone_where_it_may(edge: Edge) -> None:
    canary = {"name": "canary", "canary": "true", "canary_by_header": "X-Try"}
    edge.serve(ingress("empty"), ingress("other", **canary))
    assert edge.ask()[0] == 503 and edge.ask(X_Try="always")[0] == 200
    edge.serve(ingress(), ingress("empty", **canary))
    assert edge.ask(X_Try="always")[2]["who"] == edge.services["stable"]


def test_a_killed_master_is_followed_by_another(edge: Edge) -> None:
    """Its processes serve on, and their place is taken without a moment in which nobody serves."""
    edge.serve(ingress())
    for service in ("other", "stable"):
        workers, pid = edge._workers(), edge.nginx.pid
        assert pid is not None
        with Load(edge.http) as load:
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: edge.nginx.pid is None)
            assert edge.nginx.serves
            before = load.answered
            edge.serve(ingress(service))
            eventually(lambda before=before: load.answered > before + 20)
        assert load.lost == []
        # They answer as before until the signal that ends them has reached them.
        eventually(lambda workers=workers: not any(map(runs, workers)))
        assert edge.ask()[2]["who"] == edge.services[service]


def runs(pid: int) -> bool:
    """Whether there is more of a process than its exit code."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def test_the_version_of_nginx_is_known(edge: Edge) -> None:
    assert asyncio.run(edge.nginx.version()) >= (1, 18)
