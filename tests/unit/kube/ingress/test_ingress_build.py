from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.ingress import certificates
from wherry.kube.ingress.annotations import PREFIX, read
from wherry.kube.ingress.build import CONTROLLER, World, build, is_ours, without
from wherry.kube.ingress.model import Configuration, Location, Match
from wherry.kube.ingress.render import Settings, literal, quoted, render

SETTINGS = Settings("/run/ingress", resolver="10.96.0.10")

SERVICES = {
    ("shop", "web"): {"spec": {"ports": [{"name": "http", "port": 80}]}},
    ("shop", "api"): {"spec": {"ports": [{"port": 8080}]}},
    ("shop", "out"): {"spec": {"type": "ExternalName", "externalName": "example.com"}},
}


def slice_(port: int, *addresses: str, name: str = "", **conditions: bool) -> dict:
    endpoints = [{"addresses": [address], "conditions": conditions} for address in addresses]
    return {"ports": [{"name": name, "port": port}], "endpoints": endpoints}


SLICES = {
    ("shop", "web"): [slice_(8000, "10.0.0.2", "10.0.0.1", name="http")],
    ("shop", "api"): [slice_(9000, "10.0.0.3", ready=False, serving=True)],
}


def annotations(**wishes: str) -> dict[str, str]:
    return {PREFIX + name.replace("_", "-"): value for name, value in wishes.items()}


def path(path: str, service: str, port: int | str = 80, type: str = "Prefix") -> dict:
    wanted = {"number": port} if isinstance(port, int) else {"name": port}
    backend = {"service": {"name": service, "port": wanted}}
    return {"path": path, "pathType": type, "backend": backend}


def ingress(name: str, host: str, *paths: dict, spec: dict | None = None, **wishes: str) -> dict:
    rules = [{"host": host, "http": {"paths": list(paths)}}] if paths else []
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "annotations": annotations(**wishes),
            "creationTimestamp": name,
        },
        "spec": {"rules": rules, **(spec or {})},
    }


def world(*ingresses: dict, secrets: dict[str, dict] | None = None) -> World:
    held = {("shop", name): secret for name, secret in (secrets or {}).items()}
    return World(
        ingresses,
        lambda namespace, name: SERVICES.get((namespace, name)),
        lambda namespace, name: SLICES.get((namespace, name), []),
        lambda namespace, name: held.get((namespace, name)),
    )


def only(configuration: Configuration, host: str, at: str = "/") -> Location:
    (found,) = (
        location
        for location in configuration.servers[host].locations.values()
        if location.path == at
    )
    return found


def text(*ingresses: dict, secrets: dict[str, dict] | None = None) -> str:
    return render(build(world(*ingresses, secrets=secrets)), SETTINGS)


def test_classes_annotations_and_the_default_say_whose_an_ingress_is():
    ours = {"metadata": {"name": "web"}, "spec": {"controller": CONTROLLER}}
    other = {"metadata": {"name": "other"}, "spec": {"controller": "example.com/x"}}
    classes = [ours, other]
    named = {"metadata": {}, "spec": {"ingressClassName": "web"}}
    assert is_ours(named, classes)
    assert not is_ours({"metadata": {}, "spec": {"ingressClassName": "other"}}, classes)
    old = {"metadata": {"annotations": {"kubernetes.io/ingress.class": "nginx"}}}
    assert is_ours(old, classes)
    nobody = {"metadata": {}, "spec": {}}
    assert not is_ours(nobody, classes)
    ours["metadata"]["annotations"] = {"ingressclass.kubernetes.io/is-default-class": "true"}
    assert is_ours(nobody, classes)


def test_endpoints_are_found_by_number_and_by_name():
    made = build(world(ingress("1", "a", path("/", "web"), path("/n", "web", "http"))))
    assert only(made, "a").upstream.endpoints == (("10.0.0.1", 8000), ("10.0.0.2", 8000))
    assert only(made, "a", "/n").upstream.endpoints == only(made, "a").upstream.endpoints
    ending = build(world(ingress("1", "a", path("/", "api", 8080))))
    assert only(ending, "a").upstream.endpoints == (("10.0.0.3", 9000),)


def test_what_is_missing_is_told_and_harms_nobody():
    made = build(world(ingress("1", "a", path("/", "none"), path("/p", "web", 81))))
    assert made.problems["shop/1"] == [
        'service "shop/none" not found',
        'service "shop/web" has no port 81',
    ]
    assert only(made, "a").upstream is None
    assert "return 503;" in render(made, SETTINGS)


def test_of_two_that_want_one_path_the_older_has_it():
    made = build(
        world(ingress("2", "a", path("/", "api", 8080)), ingress("1", "a", path("/", "web")))
    )
    assert only(made, "a").service == "web"
    assert "already defined in ingress shop/1" in made.problems["shop/2"][0]


def test_prefixes_go_by_elements():
    found = text(ingress("1", "a", path("/foo/", "web"), path("/x", "web", type="Exact")))
    assert 'location "/foo/" {' in found and 'location = "/foo" {' in found
    assert 'location = "/x" {' in found
    plain = text(ingress("1", "a", path("/foo", "web", type="ImplementationSpecific")))
    assert 'location "/foo" {' in plain


PATHS = st.tuples(
    st.sampled_from(["/", "/a", "/a/", "/a/b", "/healthz", "/b"]),
    st.sampled_from(["Exact", "Prefix", "ImplementationSpecific"]),
)


@given(st.lists(PATHS, max_size=8), st.sampled_from(["", "shop.example.com"]), st.booleans())
def test_no_place_is_written_twice(paths: list[tuple[str, str]], host: str, default: bool):
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    found = [
        ingress(f"i{number}", host, path(where, "web", type=type))
        for number, (where, type) in enumerate(paths)
    ]
    if default:
        found.append(
            ingress("last", "", spec={"defaultBackend": backend, "rules": [{"host": host}]})
        )
    for server in text(*found).split("server {")[1:]:
        heads = [line.strip() for line in server.splitlines() if "location " in line]
        heads = [head.replace('"', "") for head in heads]
        assert len(heads) == len(set(heads)), heads


def test_an_exact_path_is_before_a_prefix_with_the_same_one():
    found = ingress("a", "x", path("/a", "web"), path("/a", "api", 8080, type="Exact"))
    lines = text(found).splitlines()
    at = next(number for number, line in enumerate(lines) if 'location = "/a"' in line)
    assert any("shop-api-8080" in line for line in lines[at : at + 4])
    at = next(number for number, line in enumerate(lines) if 'location "/a/"' in line)
    assert any("shop-web-80" in line for line in lines[at : at + 4])


def test_one_expression_makes_all_of_a_host_expressions():
    made = build(
        world(
            ingress("1", "a", path("/old(/|$)(.*)", "web"), rewrite_target="/$2"),
            ingress("2", "a", path("/", "api", 8080)),
        )
    )
    assert {location.match for location in made.servers["a"].locations.values()} == {Match.REGEX}
    assert 'rewrite "(?i)/old(/|$)(.*)" "/$2" break;' in render(made, SETTINGS)


def test_a_wildcard_is_one_label():
    assert r'server_name "~^[^.]+\\.b\\.com$";' in text(ingress("1", "*.b.com", path("/", "web")))


def test_backends_by_default():
    spec = {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}
    made = build(world(ingress("1", "", spec=spec)))
    assert only(made, "").service == "web"
    both = build(world(ingress("1", "a", path("/x", "api", 8080), spec=spec)))
    assert only(both, "a").service == "web"


def certificate() -> dict:
    pem = certificates.default()
    cut = pem.index(b"-----BEGIN PRIVATE")
    encode = base64.b64encode
    data = {"tls.crt": encode(pem[:cut]).decode(), "tls.key": encode(pem[cut:]).decode()}
    return {"data": data}


def test_certificates_are_checked_before_nginx_sees_them():
    tls = {"tls": [{"hosts": ["a"], "secretName": "cert"}]}
    secured = ingress("1", "a", path("/", "web"), spec=tls)
    good = build(world(secured, secrets={"cert": certificate()}))
    assert good.servers["a"].ssl and good.servers["a"].certificate in good.files
    assert 'if ($scheme = "http")' in render(good, SETTINGS)
    missing = build(world(secured))
    assert missing.problems["shop/1"] == ['secret "shop/cert" not found']
    assert missing.servers["a"].certificate == ""
    mixed = certificate()
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    mixed["data"]["tls.key"] = base64.b64encode(other).decode()
    wrong = build(world(secured, secrets={"cert": mixed}))
    assert "the key is not that of the certificate" in wrong.problems["shop/1"][0]


@pytest.mark.parametrize(
    ("wish", "value"),
    [
        ("whitelist_source_range", "10.0.0.0/8,nonsense"),
        ("proxy_body_size", "8 potatoes"),
        ("proxy_read_timeout", "-1"),
        ("backend_protocol", "GOPHER"),
        ("configuration_snippet", "return 200;"),
        ("rewrite_target", '/"; } evil { "'),
        ("permanent_redirect", "https://x;}"),
        ("auth_type", "basic"),
        ("cors_allow_origin", "https://a b"),
    ],
)
def test_a_fence_that_cannot_be_built_is_no_open_door(wish: str, value: str):
    made = build(world(ingress("1", "a", path("/", "web"), **{wish: value})))
    assert only(made, "a").denied
    assert made.problems["shop/1"]


def test_annotations_nobody_knows_change_nothing():
    options, wrong, unknown = read({PREFIX + "colour": "red", "other/x": "y"})
    assert not wrong and "is not known" in unknown[0]
    assert options.body_size == "1m"


def test_passwords():
    secret = {"data": {"auth": base64.b64encode(b"jo:$apr1$a$b\n").decode()}}
    wishes = {"auth_type": "basic", "auth_secret": "users", "auth_realm": "costs 5$"}
    asked = ingress("1", "a", path("/", "web"), **wishes)
    made = build(world(asked, secrets={"users": secret}))
    assert made.files[only(made, "a").auth_file] == b"jo:$apr1$a$b\n"
    assert 'auth_basic "costs 5${dollar}";' in render(made, SETTINGS)
    assert only(build(world(asked)), "a").denied
    empty = {"data": {"auth": base64.b64encode(b"no colon").decode()}}
    assert only(build(world(asked, secrets={"users": empty})), "a").denied


def test_a_canary_shares_the_path_of_another():
    stable = ingress("1", "a", path("/", "web"))
    canary = ingress(
        "2",
        "a",
        path("/", "api", 8080),
        canary="true",
        canary_weight="25",
        canary_by_header="X-Canary",
        canary_by_cookie="can",
    )
    found = text(stable, canary)
    assert 'split_clients "$request_id"' in found and "25.00%" in found
    assert "map $http_x_canary" in found and "map $cookie_can " in found
    alone = build(world(canary))
    assert "needs another Ingress" in alone.problems["shop/2"][0]


def test_wishes_become_directives():
    found = text(
        ingress(
            "1",
            "a",
            path("/", "web"),
            affinity="cookie",
            session_cookie_name="route",
            limit_rps="10",
            limit_connections="3",
            limit_whitelist="10.0.0.0/8",
            enable_cors="true",
            cors_allow_origin="https://*.example.com",
            proxy_body_size="8m",
            proxy_read_timeout="300",
            whitelist_source_range="192.0.2.0/24",
            upstream_vhost="inner.example.com",
            app_root="/home",
            server_alias="www.a",
        )
    )
    for line in (
        "hash $sticky_",
        '"route=$request_id; Path=/; HttpOnly"',
        "rate=10r/s;",
        "limit_conn conn_",
        "client_max_body_size 8m;",
        "proxy_read_timeout 300s;",
        "allow 192.0.2.0/24;",
        "deny all;",
        'proxy_set_header Host "inner.example.com";',
        'return 302 "$scheme://$http_host/home";',
        "server_name a www.a;",
        "Access-Control-Allow-Origin",
    ):
        assert line in found
    assert "grpc_pass grpc://" in text(ingress("1", "a", path("/", "web"), backend_protocol="GRPC"))


def test_a_name_beyond_the_cluster_is_resolved_when_it_is_asked():
    found = text(ingress("1", "a", path("/", "out")))
    assert "resolver 10.96.0.10" in found
    assert "proxy_pass http://$external_" in found


def test_what_users_write_stays_in_its_quotes():
    assert quoted('a"b\\c\n') == '"a\\"b\\\\c"'
    assert literal("$x") == '"${dollar}x"'
    found = text(ingress("1", "a", path('/x" { return 200; } #', "web", type="Exact")))
    assert 'location = "/x\\" { return 200; } #" {' in found


def test_the_world_without_some():
    left = without(world(ingress("1", "a"), ingress("2", "b")), ["shop/1"])
    assert [i["metadata"]["name"] for i in left.ingresses] == ["2"]
