"""Who may come in: by address, password, certificate, and as somebody else says. No cluster."""

from __future__ import annotations

import base64
import datetime
import http.client
from pathlib import Path
from typing import Any

from conftest import eventually
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ingress_edge import HOST, MORE, PIECE, PIECES, Edge, ingress

pytest_plugins = ("ingress_fixtures",)


def test_only_some_may_come(edge: Edge) -> None:
    edge.serve(ingress(whitelist_source_range="192.0.2.0/24,198.51.100.1"))
    assert edge.ask()[0] == 403
    edge.serve(ingress(whitelist_source_range="127.0.0.0/8"))
    assert edge.ask()[0] == 200
    edge.serve(ingress(denylist_source_range="127.0.0.1"))
    assert edge.ask()[0] == 403
    # What a client says of itself is no proof.
    edge.serve(ingress(allowlist_source_range="192.0.2.0/24"))
    assert edge.ask(X_Forwarded_For="192.0.2.1", X_Real_IP="192.0.2.1")[0] == 403


def test_only_who_has_a_password_may_come(edge: Edge) -> None:
    edge.secrets["users"] = {"auth": b"jo:{PLAIN}secret\n"}
    wish = {"auth_type": "basic", "auth_secret": "users", "auth_realm": "Shop $1"}
    edge.serve(ingress(**wish))
    code, headers, _ = edge.ask()
    assert code == 401 and headers["www-authenticate"] == 'Basic realm="Shop $1"'
    for password, wanted in (("secret", 200), ("wrong", 401)):
        token = base64.b64encode(f"jo:{password}".encode()).decode()
        code, _, told = edge.ask(Authorization=f"Basic {token}")
        assert code == wanted and (code == 401 or "authorization" not in told["headers"])
    del edge.secrets["users"]
    problems = edge.serve(ingress(**wish))
    assert edge.ask()[0] == 503 and 'secret "default/users" not found' in problems


def test_too_many_requests_are_refused(edge: Edge) -> None:
    edge.serve(ingress(limit_rpm="2", limit_burst_multiplier="1"))
    codes = [edge.ask()[0] for _ in range(6)]
    assert codes[:3] == [200] * 3 and codes[3:] == [503] * 3
    wishes = {"limit_rpm": "2", "limit_whitelist": "127.0.0.0/8", "limit_burst_multiplier": "1"}
    edge.serve(ingress(**wishes))
    assert [edge.ask()[0] for _ in range(6)] == [200] * 6


def test_one_connection_at_a_time(edge: Edge) -> None:
    edge.serve(ingress(limit_connections="1"))
    held = http.client.HTTPConnection("127.0.0.1", edge.http, timeout=60)
    held.request("GET", "/long", headers={"Host": HOST})
    answer = held.getresponse()
    assert answer.read(len(PIECE)) == PIECE
    assert edge.ask()[0] == 503
    for _ in range(PIECES):
        MORE.put(None)
    answer.read()
    held.close()
    eventually(lambda: edge.ask()[0] == 200)
    # (As many as the server takes: the next who asks for pieces finds none waiting.)
    eventually(MORE.empty)


def test_new_passwords_hold_and_refuse_nobody_meanwhile(edge: Edge) -> None:
    """The processes of before need their file until they have answered."""
    edge.secrets["users"] = {"auth": b"jo:{PLAIN}one\n"}
    wish = ingress(auth_type="basic", auth_secret="users")
    edge.serve(wish)
    before = set(edge.files())
    edge.secrets["users"] = {"auth": b"jo:{PLAIN}two\n"}
    edge.serve(wish)
    assert before < set(edge.files())
    edge.serve(ingress())
    edge.serve(ingress(proxy_read_timeout="77"))
    assert [name for name in edge.files() if name.endswith("passwords")] == []


def asked(edge: Edge, **wishes: str) -> dict[str, Any]:
    """An Ingress about whose requests another server is asked."""
    return ingress(auth_url=f"http://127.0.0.1:{edge.services['other']}/auth", **wishes)


def test_a_service_says_who_may_come(edge: Edge) -> None:
    headers = "X-Auth-User, X-Told-Original-URL, X-Told-Original-Method, X-Told-Method"
    assert edge.serve(asked(edge, auth_response_headers=headers)) == []
    assert edge.ask("/in?a=b")[0] == 401
    code, given, told = edge.ask(
        "/in?a=b", method="POST", body=b"xyz", Cookie="key=right", X_Auth_User="root"
    )
    assert code == 200 and told["who"] == edge.services["stable"] and told["size"] == 3
    assert told["path"] == "/in?a=b" and given["set-cookie"] == "seen=yes"
    heard = told["headers"]
    assert heard["x-auth-user"] == "jo" and heard["x-told-method"] == "GET"
    assert heard["x-told-original-url"] == f"http://{HOST}/in?a=b"
    assert heard["x-told-original-method"] == "POST"
    edge.serve(
        asked(
            edge,
            auth_method="POST",
            auth_request_redirect="https://$host/back",
            auth_response_headers="X-Told-Method,X-Told-Auth-Request-Redirect",
        )
    )
    heard = edge.ask(Cookie="key=right")[2]["headers"]
    assert heard["x-told-method"] == "POST"
    assert heard["x-told-auth-request-redirect"] == f"https://{HOST}/back"
    log = Path(edge.nginx._directory) / "access.log"
    edge.ask("/logged-auth", Cookie="key=right")
    line = eventually(
        lambda: next((li for li in log.read_text().splitlines() if "/logged-auth" in li), "")
    )
    assert "[default-stable-80]" in line


def test_a_service_that_is_away_lets_nobody_in(edge: Edge) -> None:
    edge.serve(ingress(auth_url="http://127.0.0.1:9/auth"))
    assert edge.ask(Cookie="key=right")[0] == 500
    # Who wants to get a certificate is not asked.
    challenge = "/.well-known/acme-challenge/token"
    wishes = {"auth_url": "http://127.0.0.1:9/auth", "auth_response_headers": "x-real-ip, x-user"}
    edge.serve(ingress(path=challenge, match="Exact", **wishes))
    code, _, told = edge.ask(challenge, X_User="root")
    assert code == 200 and not {"x-user", "x-real-ip"} & told["headers"].keys()


def test_who_may_not_come_is_led_to_where_he_logs_in(edge: Edge) -> None:
    paths = {
        "/": "/",
        "/a?b=c&d=e+f%20g": "/a?b=c%26d=e%2Bf%2520g",
        "/%26?" + "&" * 24: "/%2526?" + "%26" * 24,
        "/?" + "&" * 25: "/",
        "/a#b": "/",
    }
    edge.serve(asked(edge, auth_signin="https://$host/login"))
    for path, back in paths.items():
        code, headers, _ = edge.ask(path)
        assert (code, headers["location"]) == (302, f"https://{HOST}/login?rd=http://{HOST}{back}")
    edge.serve(asked(edge, auth_signin="https://$host/login?rd=$escaped_request_uri&x=y"))
    for path, back in paths.items():
        assert edge.ask(path)[1]["location"] == f"https://{HOST}/login?rd={back}&x=y"


def test_one_of_two_fences_is_enough_where_that_is_wished(edge: Edge) -> None:
    edge.serve(asked(edge, whitelist_source_range="127.0.0.0/8"))
    assert edge.ask()[0] == 401
    edge.serve(asked(edge, whitelist_source_range="127.0.0.0/8", satisfy="any"))
    assert edge.ask()[0] == 200
    edge.serve(asked(edge, whitelist_source_range="192.0.2.1", satisfy="any"))
    assert edge.ask()[0] == 401 and edge.ask(Cookie="key=right")[0] == 200


def signed(name: str, by: Any = None) -> tuple[Any, bytes, bytes]:
    """Certificate and key, which ``by`` has signed, else itself; and who may sign others."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    issuer, signer = by or (subject, key)
    certificate = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return (subject, key), certificate.public_bytes(serialization.Encoding.PEM), private


def test_only_who_shows_a_certificate_may_come(edge: Edge, tmp_path: Path) -> None:
    authority, root, _ = signed("root")
    for name, by in (("jo", authority), ("eve", None)):
        _, certificate, key = signed(name, by)
        (tmp_path / name).write_bytes(certificate + key)
    edge.secrets["clients"] = {"ca.crt": root}
    url = f"https://{HOST}:{edge.https}/"

    def get(name: str = "", to: str = url) -> str:
        said = edge.curl(*(("--cert", str(tmp_path / name)) if name else ()), to)
        return f"{said.split()[1]} {said}"

    wishes = {"auth_tls_secret": "default/clients"}
    assert edge.serve(ingress(**wishes), ingress(host="other.example.com", name="o")) == []
    assert get().startswith("400") and get("eve").startswith("400")
    told = get("jo")
    assert told.startswith("200") and '"ssl-client-subject-dn": "CN=jo"' in told
    assert '"ssl-client-verify": "SUCCESS"' in told and "ssl-client-cert" not in told
    assert edge.ask()[0] == 403, "without TLS nobody can show one"
    assert get("", f"https://other.example.com:{edge.https}/").startswith("200")
    edge.serve(ingress(**wishes, auth_tls_pass_certificate_to_upstream="true"))
    assert '"ssl-client-cert": "-----BEGIN%20CERTIFICATE' in get("jo")
    edge.serve(ingress(**wishes, auth_tls_match_cn="CN=(ann|bob)"))
    assert get("jo").startswith("403")
    edge.serve(ingress(**wishes, auth_tls_verify_client="optional"))
    assert '"ssl-client-verify": "NONE"' in get() and edge.ask()[0] == 200
    edge.serve(ingress(**wishes, auth_tls_error_page="https://example.com/why"))
    assert "location: https://example.com/why" in get()
    # One that cannot be built, and one that another Ingress of the host has not.
    del edge.secrets["clients"]["ca.crt"]
    [said] = edge.serve(ingress(**wishes))
    assert said == 'secret "default/clients" has no usable authorities: no ca.crt in it'
    assert edge.ask()[0] == 503
    edge.secrets["clients"]["ca.crt"] = root
    second = ingress(path="/two", name="two", **wishes, auth_tls_verify_client="optional")
    [said] = edge.serve(ingress(**wishes), second)
    assert said == f'auth-tls: host "{HOST}" asks for other certificates already'


def test_endpoints_may_want_to_see_who_asks(edge: Edge) -> None:
    """``proxy-ssl-*``: what we show to them, and what we want to see of theirs."""
    _, certificate, key = signed("us")
    trusted = edge.backend_certificate
    edge.secrets["ours"] = {"tls.crt": certificate, "tls.key": key, "ca.crt": trusted}
    wishes = {
        "backend_protocol": "HTTPS",
        "proxy_ssl_secret": "default/ours",
        "proxy_ssl_verify": "on",
        "proxy_ssl_name": "ingress.local",
        "proxy_ssl_server_name": "on",
        "proxy_ssl_protocols": "TLSv1.2 TLSv1.3",
        "proxy_ssl_ciphers": "HIGH:!aNULL",
    }
    assert edge.serve(ingress("secure", **wishes)) == []
    assert edge.ask()[0] == 200
    edge.serve(ingress("secure", **{**wishes, "proxy_ssl_name": "other.example.com"}))
    assert edge.ask()[0] == 502
    del edge.secrets["ours"]["ca.crt"]
    assert edge.serve(ingress("secure", **wishes)) == [
        "secret default/ours has no ca.crt to verify by"
    ]
    assert edge.ask()[0] == 503
