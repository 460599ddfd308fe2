"""What the controller in a pod takes from its surroundings."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherry.kube.ingress.__main__ import _resolver


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("search x\nnameserver fd00::1\nnameserver 10.96.0.10\n", "[fd00::1]"),
        ("# nameserver 192.0.2.1\nnameserver 10.96.0.10\n", "10.96.0.10"),
        ("", ""),
    ],
)
def test_the_pod_s_first_name_server_is_written_as_nginx_writes_addresses(
    tmp_path: Path, text: str, written: str
) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    assert _resolver(file) == written
