"""Nothing that a user writes gets out of its place in nginx's configuration."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingress_objects import SETTINGS, ingress, only, path, text, world

from wherry.kube.ingress import common
from wherry.kube.ingress.annotations import READERS
from wherry.kube.ingress.build import build
from wherry.kube.ingress.render import render
from wherry.kube.ingress.text import literal, quoted


def test_what_users_write_stays_in_its_quotes():
    assert quoted('a"b\\c\n') == '"a\\"b\\\\c"'
    assert literal("$x") == '"${dollar}x"'
    found = text(ingress("1", "a", path('/x" { return 200; } #', "web", type="Exact")))
    assert 'location = "/x\\" { return 200; } #" {' in found


@pytest.mark.parametrize(
    ("wish", "value"),
    [
        ("whitelist_source_range", "fe80::1%x;} evil {"),
        ("denylist_source_range", "fe80::1%eth0"),
        ("limit_whitelist", "::1%a b"),
        ("whitelist_source_range", " , "),
        ("auth_realm", "off"),
        ("auth_url", "login.example.com"),
        ("auth_url", 'https://x"; evil'),
        ("auth_signin", "https://x{evil}"),
        ("auth_response_headers", "X-User, X evil"),
        ("auth_request_redirect", "a;evil"),
        ("auth_method", "EVIL"),
        ("auth_digest_secret", "x"),
        ("auth_tls_match_cn", "CN=("),
        ("mirror_target", "https://x;evil"),
        ("mirror_host", "x evil"),
        ("proxy_redirect_from", "a evil"),
        ("proxy_cookie_domain", "a b evil"),
        ("proxy_ssl_ciphers", "HIGH evil"),
        ("proxy_ssl_protocols", "TLSv1.2 evil"),
        ("proxy_ssl_verify", "on"),
        ("connection_proxy_header", "close; evil"),
        ("client_body_buffer_size", "1k evil"),
        ("custom_http_errors", "404 evil"),
        ("default_backend", "evil/x"),
        ("ssl_ciphers", "a'evil"),
        ("enable_modsecurity", "true"),
        ("auth_tls_secret", "shop/ca"),
        ("canary_by_header", "X$host"),
        ("session_cookie_name", "a;b"),
        ("session_cookie_domain", 'a"b'),
        ("upstream_hash_by", "${x} {"),
    ],
)
def test_nothing_gets_out_of_its_place(wish: str, value: str):
    made = build(world(ingress("1", "a", path("/", "web"), **{wish: value})))
    assert only(made, "a").denied
    assert "evil" not in render(made, SETTINGS)


def directives(path_: str, type: str) -> list[str]:
    """What nginx reads as its own words, a line each, with all texts left out."""
    asked = ingress(
        "1", "a", path(path_, "web", type=type), affinity="cookie", rewrite_target="/$1"
    )
    found = text(asked).partition("\n")[2]
    found = re.sub(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'', "Q", found)
    return re.sub("_[0-9a-f]{16}", "", found).splitlines()


@given(st.text(min_size=1, max_size=30), st.sampled_from(["Exact", "Prefix"]))
def test_a_path_is_one_word_of_the_configuration(written: str, type: str):
    other = "/x/" if type == "Exact" and written.endswith("/") else "/x"
    assert directives("/" + written, type) == directives(other, type)


BESIDE = {
    "auth_url": "http://login.example.com/",
    "auth_signin": "https://login.example.com/",
    "mirror_target": "http://other.example.com",
    "affinity": "cookie",
    "enable_cors": "true",
    "custom_http_errors": "404",
    "default_backend": "web",
    "proxy_buffering": "on",
    "proxy_redirect_from": "http://a/",
    "proxy_redirect_to": "http://b/",
    "limit_rps": "1",
}
"""Wishes by which most others come to be written."""
NASTY = st.lists(
    st.sampled_from(
        ["evil", " ", ";", "{", "}", '"', "'", "\\", "$", "\n", "#", "/", "http://a", "~"]
    )
).map("".join)


def own_words(found: str) -> list[str]:
    """The first words of all that nginx takes for directives."""
    bare = re.sub(
        r'"(?:[^"\\]|\\.)*"|\'[^\']*\'', "Q", re.sub("(?m)^#.*| # [a-z0-9.-]*$", "", found)
    )
    return [part.split()[0] for part in re.split(r"[;{}]", bare) if part.split()]


@given(st.sampled_from(sorted(READERS)), NASTY, st.booleans())
def test_no_wish_becomes_a_directive(key: str, value: str, canary: bool):
    wish = {key.replace("-", "_"): value}
    if canary:
        stable = ingress("1", "a", path("/", "web"), **BESIDE)
        wish = {"canary": "true", "canary_weight": "5", "canary_by_header": "X-Try", **wish}
        found = text(stable, ingress("2", "a", path("/", "api", 8080), **wish))
    else:
        found = text(ingress("1", "a", path("/", "web"), **{**BESIDE, **wish}))
    assert "evil" not in own_words(found)


@given(st.sampled_from(sorted(common._OWN)), NASTY)
def test_no_setting_becomes_a_directive(key: str, value: str):
    asked = replace(world(ingress("1", "a", path("/", "web"))), settings={key: value})
    assert "evil" not in own_words(render(build(asked), SETTINGS))
