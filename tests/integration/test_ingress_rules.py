"""Hosts, paths and certificates, as clients of a real nginx see them. No cluster."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ingress_edge import HOST, Edge, ingress, shown

pytest_plugins = ("ingress_fixtures",)


def served(edge: Edge, paths: Iterable[str], host: str = HOST) -> dict[str, str]:
    """Which Service answers for each path; else the code."""
    names = {port: name for name, port in edge.services.items()}
    found = {}
    for path in paths:
        code, _, told = edge.ask(path, host=host)
        found[path] = names[told["who"]] if code == 200 else str(code)
    return found


def check(edge: Edge, wanted: dict[str, str]) -> None:
    assert served(edge, wanted) == wanted


def both(path: str, match: str) -> list[dict[str, Any]]:
    """``/`` leads to ``stable``, and the path to ``other``."""
    return [ingress(), ingress("other", path, match, name="more")]


def test_a_prefix_goes_by_elements(edge: Edge) -> None:
    for path in ("/foo", "/foo/"):
        edge.serve(*both(path, "Prefix"))
        wanted = {"/foo": "other", "/foo/": "other", "/foo/x?y=/": "other"}
        check(edge, wanted | {"/foobar": "stable", "/FOO": "stable", "/a/foo": "stable"})
    edge.serve(*both("/foo/bar", "Prefix"), ingress("secure", "/foo", name="third"))
    assert edge.ask("/foo/bar/x")[2]["who"] == edge.services["other"]
    assert edge.ask("/foo/barx")[0] >= 400  # (that one wants TLS)


@pytest.mark.parametrize("path", ["/foo", "/foo/", "/fo%o", "/a.b", "/a b;{}$x'\""])
def test_an_exact_path_is_nothing_else(edge: Edge, path: str) -> None:
    asked = path.replace("%", "%25").replace(" ", "%20").replace("{", "%7b").replace('"', "%22")
    edge.serve(*both(path, "Exact"))
    turned = asked[:-1] if asked.endswith("/") else asked + "/"
    wanted = {asked: "other", f"{asked}?q": "other", turned: "stable", f"{asked}x": "stable"}
    check(edge, wanted | {"/foo/x": "stable", "/axb": "stable"})


def test_exact_before_prefix_and_long_before_short(edge: Edge) -> None:
    edge.serve(
        ingress(),
        ingress("other", "/a", "Exact", name="exact"),
        ingress("stable", "/a", name="prefix"),
        ingress("other", "/a/b/c/", name="long"),
        ingress("other", "/a/b/", "Exact", name="slash"),
        ingress("stable", "/a/b", name="middle"),
    )
    wanted = {"/a": "other", "/a/": "stable", "/a/x": "stable", "/a/b": "stable"}
    check(edge, wanted | {"/a/b/": "other", "/a/b/c": "other", "/a/b/cc": "stable"})


def test_prefixes_stay_such_beside_expressions(edge: Edge) -> None:
    """Those of other Ingresses of a host, where one has expressions."""
    edge.serve(
        ingress("other", "/v[0-9]+/", "ImplementationSpecific", name="regex", use_regex="true"),
        ingress("stable", "/c++", name="prefix"),
        ingress("stable", "/exact/", "Exact", name="exact"),
    )
    wanted = {"/v1/x": "other", "/vx/": "404", "/c++": "stable", "/c++/x": "stable"}
    check(edge, wanted | {"/ccc": "404", "/c++x": "404", "/exact/": "stable", "/exact": "404"})


def test_rewrites_with_groups(edge: Edge) -> None:
    edge.serve(
        ingress(
            path="/([a-z]+)/of/(.*)", match="ImplementationSpecific", rewrite_target="/$2?was=$1"
        )
    )
    assert edge.ask("/part/of/all/of?it")[2]["path"] == "/all/of?was=part&it"
    edge.serve(ingress(path="/app/", rewrite_target="/"))
    assert edge.ask("/app/x")[2]["path"] == "/"
    assert edge.ask("/apple")[0] == 404
    edge.serve(ingress(path="/one", match="Exact", rewrite_target="/two"))
    assert edge.ask("/one")[2]["path"] == "/two" and edge.ask("/one/x")[0] == 404


def test_hosts(edge: Edge) -> None:
    edge.serve(
        ingress("other", host="*.wild.example.com", name="wild"),
        ingress("stable", host="one.wild.example.com", name="one"),
        ingress("stable", host=HOST, name="plain"),
    )
    asked = {
        "two.wild.example.com": "other",
        "TWO.Wild.Example.COM": "other",
        "two.wild.example.com:8080": "other",
        "two.wild.example.com.": "other",
        "one.wild.example.com": "stable",
        "a.two.wild.example.com": "404",
        "wild.example.com": "404",
        HOST.upper(): "stable",
        f"{HOST}:81": "stable",
        "127.0.0.1": "404",
        f"x{HOST}": "404",
    }
    assert {host: served(edge, ["/"], host)["/"] for host in asked} == asked


def test_a_client_of_old_says_no_host(edge: Edge) -> None:
    edge.serve(ingress(host=""))
    with socket.create_connection(("127.0.0.1", edge.http), timeout=30) as client:
        client.sendall(b"GET /old HTTP/1.0\r\n\r\n")
        said = b"".join(iter(lambda: client.recv(65536), b""))
    assert b"200 OK" in said and b'"path": "/old"' in said


def test_what_no_rule_has_goes_to_the_default_backend(edge: Edge) -> None:
    backend = {"service": {"name": "other", "port": {"number": 80}}}
    everything = {"metadata": {"name": "all", "namespace": "default"}, "spec": {}}
    everything["spec"]["defaultBackend"] = backend
    only = ingress(path="/only", name="only")
    edge.serve(everything, only)
    check(edge, {"/only": "stable", "/else": "404"})
    assert served(edge, ["/"], "who.example.com") == {"/": "other"}
    only["spec"]["defaultBackend"] = backend
    edge.serve(only)
    check(edge, {"/only": "stable", "/else": "other"})
    assert served(edge, ["/"], "who.example.com") == {"/": "404"}


def test_a_backend_that_is_no_service_is_told(edge: Edge) -> None:
    asked = ingress()
    resource = {"apiGroup": "k8s.example.com", "kind": "Bucket", "name": "b"}
    asked["spec"]["rules"][0]["http"]["paths"][0]["backend"] = {"resource": resource}
    assert edge.serve(asked, ingress("other", "/x", name="next")) == [
        "only Services can be backends"
    ]
    check(edge, {"/": "503", "/x": "other"})


def made(edge: Edge, secret: str, *names: str) -> str:
    """A certificate for these hosts, in a Secret; as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, secret)])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    built = built.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    pem = built.add_extension(alternatives, critical=False).sign(key, hashes.SHA256())
    certificate = pem.public_bytes(serialization.Encoding.PEM)
    edge.secrets[secret] = {
        "tls.crt": certificate,
        "tls.key": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
    }
    return certificate.decode().strip()


def secured(host: str, secret: str, *hosts: str, **wishes: str) -> dict[str, Any]:
    found = ingress(host=host, name=host.replace("*", "any"), **wishes)
    found["spec"]["tls"] = [{"hosts": list(hosts or (host,)), "secretName": secret}]
    return found


def test_names_choose_certificates(edge: Edge) -> None:
    one = made(edge, "one", "one.example.com")
    wild = made(edge, "wild", "*.example.com")
    said = edge.serve(
        secured("one.example.com", "one"),
        secured("*.example.com", "wild"),
        secured("two.example.com", "wild", "*.example.com"),
        secured("other.example.org", "one"),
    )
    assert said == ['secret "default/one" has a certificate that is not for other.example.org']
    assert shown(edge, "one.example.com") == one == shown(edge, "other.example.org")
    assert shown(edge, "two.example.com") == shown(edge, "three.example.com") == wild
    common = edge.certificate.partition(b"-----BEGIN PRIV")[0].decode().strip()
    assert shown(edge, "a.b.example.com") == shown(edge, "nobody.example.net") == common


def test_what_is_asked_by_tls(edge: Edge) -> None:
    made(edge, "cert", HOST)
    edge.serve(secured(HOST, "cert"))
    for version in ("--http1.1", "--http2"):
        said = edge.curl(version, f"https://{HOST}:{edge.https}/x?y")
        assert '"x-forwarded-proto": "https"' in said and '"path": "/x?y"' in said
        assert f'"host": "{HOST}:{edge.https}"' in said
    code, headers, _ = edge.ask("/x?y", method="POST", body=b"z")
    assert (code, headers["location"]) == (308, f"https://{HOST}:{edge.https}/x?y")
    assert headers["server"] == "nginx"
    # Who wants to get a certificate by it is not sent away.
    challenge = "/.well-known/acme-challenge/token"
    edge.serve(secured(HOST, "cert"), ingress("other", challenge, "Exact", name="solver"))
    check(edge, {challenge: "other", "/": "308"})


def test_a_new_certificate_is_shown(edge: Edge) -> None:
    first = made(edge, "cert", HOST)
    edge.serve(secured(HOST, "cert"))
    assert shown(edge) == first
    second = made(edge, "cert", HOST)
    edge.serve(secured(HOST, "cert"))
    assert shown(edge) == second


def test_the_redirect_to_a_directory_says_nothing_of_ports(edge: Edge) -> None:
    edge.serve(ingress(path="/old/", match="ImplementationSpecific"))
    code, headers, _ = edge.ask("/old")
    assert (code, headers["location"]) == (301, "/old/")


def test_a_name_beyond_the_cluster(edge: Edge) -> None:
    """Without a resolver nginx says that it does not know it, and others are served."""
    edge.serve(ingress("outside", path="/out"), ingress(name="plain"))
    check(edge, {"/out": "502", "/": "stable"})


def test_a_default_backend_answers_what_no_rule_has(edge: Edge) -> None:
    edge.serve(ingress(path="/only"), backend="default/other")
    check(edge, {"/only": "stable", "/else": "other"})
    assert served(edge, ["/x"], "who.example.com") == {"/x": "other"}
    assert edge.ask("/healthz", host="who.example.com")[2] == {}
    edge.serve(ingress(path="/only"), backend="default/nobody")
    check(edge, {"/only": "stable", "/else": "404"})


def test_a_default_backend_of_an_ingress_answers_where_nobody_else_does(edge: Edge) -> None:
    edge.serve(ingress("empty", default_backend="other"))
    code, _, told = edge.ask("/deep?er")
    assert code == 200 and told["who"] == edge.services["other"] and told["path"] == "/deep?er"
    heard = told["headers"]
    assert heard["x-code"] == "503" and heard["x-namespace"] == "default"
    assert heard["x-ingress-name"] == "shop" and heard["x-service-name"] == "empty"
    assert heard["x-service-port"] == "80"
    said = edge.serve(ingress("empty", default_backend="nobody"))
    assert edge.ask()[0] == 503 and 'default-backend: service "default/nobody" not found' in said


def test_errors_have_the_pages_of_the_default_backend(edge: Edge) -> None:
    edge.serve(ingress(custom_http_errors="404,503"), backend="default/other")
    _, _, told = edge.ask("/code/404?x", Accept="text/html")
    assert told["who"] == edge.services["other"] and told["path"].startswith("/?")
    assert told["headers"]["x-code"] == "404" and told["headers"]["x-format"] == "text/html"
    assert told["headers"]["x-original-uri"] == "/code/404?x"
    assert edge.ask("/code/500")[2]["who"] == edge.services["stable"]
    # Its own before that of all; the same for all Ingresses, by the ConfigMap.
    edge.serve(ingress("other", default_backend="stable"), settings={"custom-http-errors": "404"})
    assert edge.ask("/code/404")[2]["who"] == edge.services["stable"]
    [said] = edge.serve(ingress(custom_http_errors="404"))
    assert said == "custom-http-errors: there is no default backend with their pages"
    assert edge.ask("/code/404")[2]["who"] == edge.services["stable"]


def test_hosts_with_a_certificate_are_for_tls_alone(edge: Edge) -> None:
    """HSTS (RFC 6797), as ingress-nginx has it by default."""
    made(edge, "cert", HOST)
    edge.serve(
        secured(HOST, "cert", ssl_redirect="false", enable_cors="true"),
        ingress(host="plain.example.com", name="plain"),
    )
    wanted = "Strict-Transport-Security: max-age=31536000; includeSubDomains\n"
    header = wanted.partition(":")[0]
    url = f"https://{HOST}:{edge.https}/"
    said = edge.curl("--http1.1", url)
    assert said.count(header) == 1 and wanted in said
    assert wanted in edge.curl("--http1.1", "-XOPTIONS", url)
    assert header.lower() not in edge.ask()[1]
    assert header not in edge.curl("--http1.1", f"https://plain.example.com:{edge.https}/")
    edge.serve(secured(HOST, "cert", path="/x"), settings={"hsts-max-age": "5"})
    assert "max-age=5; includeSubDomains\n" in edge.curl("--http1.1", url)
    edge.serve(secured(HOST, "cert"), settings={"hsts": "false"})
    assert header not in edge.curl("--http1.1", url)


def test_with_and_without_www(edge: Edge) -> None:
    edge.serve(
        ingress(host="a.example.com", name="a", from_to_www_redirect="true"),
        ingress(host="www.b.example.com", name="b", from_to_www_redirect="true"),
    )
    for asked, found in (("www.a", "a"), ("b", "www.b")):
        code, headers, _ = edge.ask("/x?y", host=f"{asked}.example.com:81")
        assert (code, headers["location"]) == (308, f"http://{found}.example.com:81/x?y")
        assert edge.ask(host=f"{found}.example.com")[0] == 200
    [said] = edge.serve(
        ingress(host="a.example.com", name="a", from_to_www_redirect="true"),
        ingress("other", host="www.a.example.com", name="b"),
    )
    assert said == 'from-to-www-redirect: "www.a.example.com" is another host'
    assert edge.ask(host="www.a.example.com")[2]["who"] == edge.services["other"]


def test_settings_are_those_of_all(edge: Edge) -> None:
    """The ConfigMap of ingress-nginx: defaults of annotations, and settings of nginx."""
    said = edge.serve(
        ingress(),
        ingress(path="/more", name="more", proxy_body_size="8k"),
        settings={
            "proxy-body-size": "2k",
            "server-tokens": "true",
            "ssl-protocols": "TLSv1.2",
            "ssl-ciphers": "HIGH:!aNULL",
            "use-gzip": "true",
            "gzip-min-length": "1",
            "hide-headers": "Content-Type",
            "log-format-escape-json": "true",
            "log-format-upstream": '{"asked": "$request_uri", "of": "$namespace/$ingress_name to '
            '${service_name}:$service_port$location_path$proxy_alternative_upstream_name"}',
            "skip-access-log-urls": "/quiet",
            "keep-alive": "10",
            "limit-req-status-code": "429",
            "whitelist-source-range": "127.0.0.0/8",
            "use-http2": "false",
            "worker-processes": "many",
            "colour": "red",
        },
    )
    assert said == ["colour is not known", "worker-processes: 'many' must be auto or a number"]
    assert edge.ask(method="POST", body=b"x" * 4000)[0] == 413
    code, headers, _ = edge.ask("/more", method="POST", body=b"x" * 4000)
    assert code == 200 and headers["server"].startswith("nginx/")
    said = edge.curl("--http2", "--tls-max", "1.2", f"https://{HOST}:{edge.https}/")
    assert said.startswith("HTTP/1.1 200")
    edge.ask("/quiet/1")
    edge.ask('/loud?"')
    log = Path(edge.nginx._directory) / "access.log"
    wanted = '{"asked": "/loud?\\"", "of": "default/shop to stable:80/"}\n'
    eventually(lambda: wanted in log.read_text())
    assert "/quiet/1" not in log.read_text()


def test_a_proxy_in_front_may_say_what_was_asked(edge: Edge) -> None:
    """``use-forwarded-headers``; without it nobody is believed."""
    made(edge, "cert", HOST)
    claim = {
        "X_Forwarded_For": "192.0.2.7, 192.0.2.8",
        "X_Forwarded_Proto": "https",
        "X_Forwarded_Host": "front.example.com",
        "X_Forwarded_Port": "443",
    }
    trust = {"use-forwarded-headers": "true", "proxy-real-ip-cidr": "127.0.0.1,192.0.2.8"}
    edge.serve(secured(HOST, "cert"), settings=trust)
    code, _, told = edge.ask(**claim)
    heard = told["headers"]
    assert code == 200, "TLS ends at the proxy"
    assert heard["x-real-ip"] == heard["x-forwarded-for"] == "192.0.2.7"
    assert heard["x-forwarded-proto"] == "https" and heard["x-forwarded-port"] == "443"
    assert heard["x-forwarded-host"] == heard["host"] == "front.example.com"
    assert edge.ask()[1]["location"] == f"https://{HOST}/"
    edge.serve(secured(HOST, "cert"), settings=trust | {"compute-full-forwarded-for": "true"})
    heard = edge.ask(**claim)[2]["headers"]
    assert heard["x-forwarded-for"] == "192.0.2.7, 192.0.2.8, 127.0.0.1"
    edge.serve(secured(HOST, "cert"))
    assert edge.ask(**claim)[0] == 308
