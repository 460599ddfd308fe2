"""Paths and links of proxied servers."""

from __future__ import annotations

import gzip

import pytest

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.proxying.places import check_address, split
from wherry.kube.apiserver.proxying.rewriting import rewrite_body, rewrite_html, rewrite_url
from wherry.kube.apiserver.proxying.subresource import below
from wherry.kube.apiserver.request import NO_QUERY, parse_request

PREFIX = "/api/v1/namespaces/default/pods/web/proxy"


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("/a/b", f"{PREFIX}/a/b"),
        ("/a/", f"{PREFIX}/a/"),
        ("a/b", "a/b"),
        ("http://10.0.0.1:80/a?x=1#f", f"{PREFIX}/a?x=1#f"),
        ("http://other/a", "http://other/a"),
        ("https://asked/a", f"https://asked{PREFIX}/a"),
        (f"{PREFIX}/a", f"{PREFIX}/a"),
        ("http://[bad", "http://[bad"),
    ],
)
def test_an_address_of_its_own_leads_through_the_proxy(url: str, seen: str) -> None:
    assert rewrite_url(url, PREFIX, "10.0.0.1:80", "asked") == seen


def test_everything_but_links_stays_as_it_is() -> None:
    text = (
        '<!DOCTYPE html><p class=x>&lt;a href="/n"&gt; &#38; &nbsp;</p><?x?><script>"</a>"</script>'
    )
    assert rewrite_html(text, lambda url: "!") == text
    assert rewrite_html('<img SRC="/i" alt="a">', lambda url: f"/p{url}") == (
        '<img src="/p/i" alt="a">'
    )
    packed = rewrite_body(gzip.compress(b'<a href="/x">'), "gzip", lambda url: f"/p{url}")
    assert packed is not None and gzip.decompress(packed) == b'<a href="/p/x">'
    assert rewrite_body(b"\xff", "br", str) is None
    assert rewrite_body(b"no gzip", "gzip", str) is None


def test_the_path_behind_is_kept_but_for_detours() -> None:
    assert below(f"{PREFIX}/a%2Fb//c") == (PREFIX, "/a%2Fb//c")
    assert below(f"{PREFIX}/a/../../../b/") == (PREFIX, "/b/")
    assert below(f"{PREFIX}/%2e%2e/b") == (PREFIX, "/b")
    assert below(PREFIX) == (PREFIX, "")


def test_what_follows_the_proxy_is_not_ours_to_judge() -> None:
    info = parse_request("GET", f"{PREFIX}/x/../a%2Fb", NO_QUERY)
    assert (info.is_resource, info.name, info.subresource) == (True, "web", "proxy")
    tricked = parse_request("GET", "/api/v1/namespaces/default/pods/../secrets", NO_QUERY)
    assert not tricked.is_resource


def test_names_may_have_scheme_and_port() -> None:
    assert split("web", "pod") == ("", "web", "")
    assert split("web:80", "pod") == ("", "web", "80")
    assert split("https:web:", "pod") == ("https", "web", "")
    for wrong in ("", ":80", "ftp:web:80", "a:b:c:d"):
        with pytest.raises(StatusError, match="invalid pod request"):
            split(wrong, "pod")


@pytest.mark.parametrize("address", ["", "127.0.0.1", "::1", "169.254.1.1", "fe80::1", "ff01::1"])
def test_no_way_back_to_the_server_itself(address: str) -> None:
    with pytest.raises(StatusError, match="address not allowed"):
        check_address(address)
    check_address("10.1.2.3")
