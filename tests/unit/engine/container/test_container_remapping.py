"""Whose subordinate ids containers have."""

import os
import tempfile
from pathlib import Path

import pytest

from wherry.engine.container import remapping
from wherry.engine.errors import EngineError
from wherry.host.user_namespaces import Range


def test_ranges_are_put_one_behind_the_other():
    text = "web:100:10\n# x\nother:500:9\n33:700:5\nweb:bad:1\n"
    assert remapping.ranges(text, "web", 33) == [Range(0, 100, 10), Range(10, 700, 5)]


def test_a_user_without_ids_is_refused(tmp_path):
    with pytest.raises(EngineError, match="No subuid ranges found for user"):
        remapping.find("root", subuid=tmp_path / "none", subgid=tmp_path / "none")
    with pytest.raises(EngineError, match='"nobody-here" user lookup'):
        remapping.find("nobody-here")


def test_users_and_groups_come_by_name_or_number(tmp_path):
    (tmp_path / "subuid").write_text("root:1000:9\n")
    (tmp_path / "subgid").write_text("root:2000:9\n")
    files = {"subuid": tmp_path / "subuid", "subgid": tmp_path / "subgid"}
    for option in ("root", "0", "root:root", "0:0"):
        found = remapping.find(option, **files)
        assert found is not None and found.root == (1000, 2000)
    assert remapping.find("") is None


def test_the_way_is_opened_for_others_but_not_above(tmp_path):
    root = tmp_path / "data"
    inner = root / "containers"
    inner.mkdir(parents=True)
    for directory in (root, inner):
        directory.chmod(0o700)
    closed = [p for p in root.parents if not p.stat().st_mode & 0o001]
    if closed and os.geteuid() == 0:
        with pytest.raises(EngineError, match="allow 'o\\+x' on it"):
            remapping.open_way(root, inner)


def test_what_lay_behind_a_closed_door_stays_closed_when_a_way_is_opened():
    with tempfile.TemporaryDirectory() as place:  # pytest's own are closed above
        Path(place).chmod(0o755)
        _open_and_look(Path(place, "data"))


def _open_and_look(root):
    inner = root / "engine" / "containers"
    inner.mkdir(parents=True)
    secrets = root / "state.db"
    secrets.write_text("secret")
    secrets.chmod(0o644)
    logs = root / "log"
    logs.mkdir(mode=0o755)
    for closed in (root, root / "engine", inner):
        closed.chmod(0o700)
    remapping.open_way(root, inner)
    assert all(p.stat().st_mode & 0o777 == 0o711 for p in (root, root / "engine", inner))
    assert secrets.stat().st_mode & 0o777 == 0o640
    assert logs.stat().st_mode & 0o007 == 0
    secrets.chmod(0o644)
    remapping.open_way(root, inner)  # it is open: nothing more is changed
    assert secrets.stat().st_mode & 0o777 == 0o644
