from __future__ import annotations

from pathlib import Path

import pytest

from wherry.kube.store.address import EtcdAddress, canonical, parse


def test_sqlite_is_the_default() -> None:
    assert parse("") is parse("sqlite") is None
    assert canonical("sqlite") == ""


def test_members_have_a_port_by_default() -> None:
    assert parse("etcd://a:1,b,[::1]:3") == EtcdAddress(("a:1", "b:2379", "[::1]:3"))


def test_tls_names_its_files() -> None:
    word = "etcds://a:1?ca=/x/ca&cert=/x/c&key=/x/k"
    assert parse(word) == EtcdAddress(("a:1",), True, Path("/x/ca"), Path("/x/c"), Path("/x/k"))
    assert canonical(word) == word


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("http://a", "want sqlite, etcd://"),
        ("etcd://", "an empty member"),
        ("etcd://a,,b", "an empty member"),
        ("etcd://a:x", "a:x"),
        ("etcd://a/path", "want sqlite"),
        ("etcd://a?ca=/x", "ca needs etcds://"),
        ("etcds://a?cert=/x", "cert and key come together"),
        ("etcds://a?user=me", "unknown option user"),
    ],
)
def test_what_cannot_be_read_is_told(word: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(word)
