from __future__ import annotations

import base64
import re
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from ingress_objects import (
    SETTINGS,
    certificate,
    ingress,
    only,
    path,
    slice_,
    text,
    world,
)

from wherry.kube.ingress.annotations import PREFIX, read
from wherry.kube.ingress.build import build
from wherry.kube.ingress.model import Match
from wherry.kube.ingress.render import render
from wherry.kube.ingress.world import CONTROLLER, World, is_ours, without


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
            ingress("2", "a", path("/c++", "api", 8080)),
            ingress("3", "a", path("/v[0-9]", "api", 8080, type="ImplementationSpecific")),
        )
    )
    matches = [location.match for location in made.servers["a"].locations.values()]
    assert matches == [Match.REGEX, Match.ELEMENTS, Match.REGEX]
    found = render(made, SETTINGS)
    assert 'rewrite "(?i)/old(/|$)(.*)" "/$2" break;' in found
    assert r'location ~* "^/c\\+\\+(?:/|\\z)" {' in found
    assert 'location ~* "^/v[0-9]" {' in found


def test_a_wildcard_is_one_label():
    assert r'server_name "~^[^.]+\\.b\\.com$";' in text(ingress("1", "*.b.com", path("/", "web")))


def test_backends_by_default():
    spec = {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}
    made = build(world(ingress("1", "", spec=spec)))
    assert only(made, "").service == "web"
    both = build(world(ingress("1", "a", path("/x", "api", 8080), spec=spec)))
    assert only(both, "a").service == "web"


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
        '"route=$request_id; Path=/; HttpOnly${cookie_secure}"',
        "rate=10r/s;",
        "limit_conn conn_",
        "client_max_body_size 8m;",
        "proxy_read_timeout 300s;",
        "allow 192.0.2.0/24;",
        "deny all;",
        'proxy_set_header Host "inner.example.com";',
        'return 302 "$scheme://$asked_host/home";',
        "server_name a www.a;",
        "Access-Control-Allow-Origin",
    ):
        assert line in found
    assert "grpc_pass grpc://" in text(ingress("1", "a", path("/", "web"), backend_protocol="GRPC"))


def test_a_name_beyond_the_cluster_is_resolved_when_it_is_asked():
    found = text(ingress("1", "a", path("/", "out")))
    assert "resolver 10.96.0.10" in found
    assert "proxy_pass http://$external_" in found


def test_the_world_without_some():
    left = without(world(ingress("1", "a"), ingress("2", "b")), ["shop/1"])
    assert [i["metadata"]["name"] for i in left.ingresses] == ["2"]


def test_services_of_similar_names_are_not_taken_for_each_other():
    spec = {"spec": {"ports": [{"port": 80}]}}
    services = {("a", "b-c"): spec, ("a-b", "c"): spec}
    slices = {("a", "b-c"): [slice_(1, "10.0.0.1")], ("a-b", "c"): [slice_(2, "10.0.0.2")]}
    asked = [ingress("1", "x", path("/", "b-c")), ingress("2", "y", path("/", "c"))]
    asked[0]["metadata"]["namespace"], asked[1]["metadata"]["namespace"] = "a", "a-b"
    made = build(
        World(
            asked,
            lambda *key: services.get(key),
            lambda *key: slices.get(key, []),
            lambda *_: None,
        )
    )
    found = render(made, SETTINGS)
    assert "server 10.0.0.1:1 " in found and "server 10.0.0.2:2 " in found


def test_a_host_is_not_taken_by_the_alias_of_another():
    made = build(
        world(
            ingress("1", "a.com", path("/", "web"), server_alias="b.com, www.a.com"),
            ingress("2", "b.com", path("/", "web"), server_alias="www.a.com"),
        )
    )
    assert list(made.servers["a.com"].aliases) == ["www.a.com"]
    assert not made.servers["b.com"].aliases
    assert made.problems == {
        "shop/1": ['alias "b.com" is the name of another host'],
        "shop/2": ['alias "www.a.com" is the name of another host'],
    }


def test_the_root_of_a_host_is_its_owners():
    made = build(
        world(
            ingress("1", "a", path("/", "web")), ingress("2", "a", path("/x", "web"), app_root="/x")
        )
    )
    assert "return 302" not in render(made, SETTINGS)
    assert made.problems["shop/2"] == ['app-root: "/" is that of ingress shop/1']


def secured(name: str, host: str, *hosts: str, secret: str = "cert") -> dict:
    tls = {"tls": [{"hosts": list(hosts), "secretName": secret}]}
    return ingress(name, host, path("/", "web"), spec=tls)


def test_certificates_are_for_the_hosts_of_ones_own_rules():
    secrets = {"cert": certificate()}
    made = build(
        world(ingress("1", "a", path("/", "web")), secured("2", "b", "a"), secrets=secrets)
    )
    assert not made.servers["a"].ssl and not made.servers["b"].ssl
    wild = build(world(secured("1", "x.a.com", "*.a.com"), secrets=secrets))
    assert wild.servers["x.a.com"].ssl and wild.servers["x.a.com"].certificate in wild.files
    assert wild.problems["shop/1"] == [
        'secret "shop/cert" has a certificate that is not for x.a.com'
    ]
    assert not build(world(secured("1", "y.x.a.com", "*.a.com"))).servers["y.x.a.com"].ssl


def test_passwords_in_files_with_comments_and_names_with_spaces():
    data = {"auth": base64.b64encode(b"# staff\nJo Bloggs:$apr1$a$b\n\n").decode()}
    wishes = {"auth_type": "basic", "auth_secret": "users"}
    asked = ingress("1", "a", path("/", "web"), **wishes)
    made = build(world(asked, secrets={"users": {"data": data}}))
    assert made.files[only(made, "a").auth_file] == b"Jo Bloggs:$apr1$a$b\n"
    assert 'proxy_set_header Authorization "";' in render(made, SETTINGS)


def test_ports_are_those_of_tcp():
    spec = {"ports": [{"name": "u", "port": 80, "protocol": "UDP"}, {"name": "t", "port": 80}]}
    held = [slice_(1, "10.0.0.1", name="u"), slice_(2, "10.0.0.1", name="t")]
    asked = ingress("1", "a", path("/", "web"))
    made = build(World([asked], lambda *_: {"spec": spec}, lambda *_: held, lambda *_: None))
    assert only(made, "a").upstream.endpoints == (("10.0.0.1", 2),)


def test_a_zone_of_another_key_has_another_name():
    """nginx refuses to reload where a zone that it has is to have another key."""
    plain = text(ingress("1", "a", path("/", "web"), limit_rps="1"))
    exempt = text(ingress("1", "a", path("/", "web"), limit_rps="1", limit_whitelist="::1"))
    zones = [re.findall(r"zone=(\w+):", found) for found in (plain, exempt)]
    assert not set(zones[0]) & set(zones[1])


@pytest.mark.parametrize(
    ("version", "kept"),
    [((1, 22, 1), False), ((1, 27, 3), False), ((1, 27, 4), True), ((1, 28, 0), True)],
)
def test_idle_connections_outlive_a_reload_where_nginx_can(version: tuple[int, ...], kept: bool):
    settings = replace(SETTINGS, version=version)
    found = render(build(world(ingress("1", "a", path("/", "web")))), settings)
    assert ("keepalive_min_timeout 3s;" in found) == kept


def test_names_of_hosts_may_be_long():
    host = ".".join(["a" * 60] * 4)
    assert f"server_name {host};" in text(ingress("1", host, path("/", "web")))


def test_passwords_by_user():
    data = {name: base64.b64encode(b"$apr1$a$b").decode() for name in ("jo", "ann")}
    wishes = {"auth_type": "basic", "auth_secret": "users", "auth_secret_type": "auth-map"}
    asked = ingress("1", "a", path("/", "web"), **wishes)
    made = build(world(asked, secrets={"users": {"data": data}}))
    assert made.files[only(made, "a").auth_file] == b"jo:$apr1$a$b\nann:$apr1$a$b\n"
    data["jo"] = base64.b64encode(b"x\nroot:y").decode()
    assert only(build(world(asked, secrets={"users": {"data": data}})), "a").denied


def test_what_nobody_thought_of_takes_no_other_down():
    strange = ingress("1", "a", path("/", "web"))
    strange["spec"]["rules"][0]["http"]["paths"].append(7)
    made = build(world(strange, ingress("2", "b", path("/", "web"))))
    assert "cannot be served" in made.problems["shop/1"][0]
    assert only(made, "b").upstream is not None


@pytest.mark.parametrize(
    "wishes",
    [
        {"auth_tls_secret": "shop/none"},
        {"auth_tls_secret": "Not A Name"},
        {"auth_tls_secret": "shop/none", "proxy_body_size": "much"},
    ],
)
def test_a_host_that_cannot_ask_for_certificates_lets_nobody_in(wishes: dict[str, str]):
    """By no path: other Ingresses of the host rely on it."""
    made = build(
        world(ingress("1", "a", path("/", "web"), **wishes), ingress("2", "a", path("/x", "web")))
    )
    assert made.servers["a"].closed
    assert "proxy_pass" not in render(made, SETTINGS)


def test_a_wrong_wish_beside_it_takes_no_fence_of_a_host_away():
    authorities = certificate()["data"]["tls.crt"]
    wishes = {"auth_tls_secret": "shop/ca", "proxy_body_size": "much"}
    asked = [ingress("1", "a", path("/", "web"), **wishes), ingress("2", "a", path("/x", "web"))]
    made = build(world(*asked, secrets={"ca": {"data": {"ca.crt": authorities}}}))
    assert made.servers["a"].clients is not None and only(made, "a").denied
    assert "ssl_verify_client on;" in render(made, SETTINGS)
