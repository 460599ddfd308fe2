"""The machine's own resolv.conf."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from wherry.host import resolv_conf
from wherry.host.resolv_conf import Latest, host_file, parse

HOST = "# comment\n; another\nnameserver 10.0.0.2\nsearch a b\noptions edns0\nsortlist x\n"


def test_the_host_s_file_is_read():
    assert str(parse(HOST)) == "nameserver 10.0.0.2\nsearch a b\noptions edns0\n"
    assert str(parse("domain one\nsearch two three\nnameserver\n")) == "search two three\n"
    assert str(parse("")) == ""


def test_the_servers_behind_systemd_s_stub(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "run/systemd/resolve").mkdir(parents=True)
    stub = tmp_path / "etc/resolv.conf"
    real = tmp_path / "run/systemd/resolve/resolv.conf"
    assert host_file(tmp_path, direct=True) == ""
    stub.write_text("nameserver 127.0.0.53\n")
    assert host_file(tmp_path, direct=True) == "nameserver 127.0.0.53\n"
    real.write_text("nameserver 10.0.0.2\n")
    assert host_file(tmp_path, direct=True) == "nameserver 10.0.0.2\n"
    assert host_file(tmp_path, direct=False) == "nameserver 127.0.0.53\n"
    stub.write_text("nameserver 127.0.0.53\nnameserver 10.0.0.9\n")
    assert "10.0.0.9" in host_file(tmp_path, direct=True)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "run/systemd/resolve").mkdir(parents=True)
    return tmp_path / "etc"


def servers(latest: Latest) -> list[str]:
    return list(latest.now().servers)


def test_the_latest_is_that_of_any_way_to_change_a_file(etc: Path):
    """Written again, put in its place, led elsewhere, gone; within one tick of the clock."""
    latest, file = Latest(root=etc.parent), etc / "resolv.conf"
    assert servers(latest) == []
    file.write_text("nameserver 10.0.0.1\n")
    assert servers(latest) == ["10.0.0.1"]
    file.write_text("nameserver 10.0.0.2\n")
    assert servers(latest) == ["10.0.0.2"]
    (etc / "next").write_text("nameserver 10.0.0.3\n")
    (etc / "next").rename(file)
    assert servers(latest) == ["10.0.0.3"]
    (etc / "other").write_text("nameserver 10.0.0.4\n")
    (etc / "link").symlink_to("other")
    (etc / "link").rename(file)
    assert servers(latest) == ["10.0.0.4"]
    (etc / "other").write_text("nameserver 10.0.0.5\n")
    assert servers(latest) == ["10.0.0.5"]
    file.unlink()
    assert servers(latest) == []


def test_behind_systemd_s_stub_the_file_that_it_keeps_is_followed(etc: Path):
    latest, real = Latest(root=etc.parent), etc.parent / "run/systemd/resolve/resolv.conf"
    (etc / "resolv.conf").write_text("nameserver 127.0.0.53\noptions edns0 trust-ad\n")
    assert servers(latest) == ["127.0.0.53"]
    real.write_text("nameserver 10.0.0.1\n")
    assert servers(latest) == ["10.0.0.1"]
    real.write_text("nameserver 10.0.0.2\n")
    assert servers(latest) == ["10.0.0.2"]
    (etc / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    assert servers(latest) == ["127.0.0.1"]


def test_what_has_not_changed_is_the_same_and_not_read_again(
    etc: Path, monkeypatch: pytest.MonkeyPatch
):
    latest, file = Latest(root=etc.parent), etc / "resolv.conf"
    file.write_text("nameserver 10.0.0.1\n")
    found = latest.now()
    file.write_text("nameserver 10.0.0.1\n# the same\n")
    assert latest.now() is found
    long_ago = time.time() - 60
    os.utime(file, (long_ago, long_ago))
    assert latest.now() is found
    monkeypatch.setattr(resolv_conf, "_read", None)
    assert latest.now() is found
