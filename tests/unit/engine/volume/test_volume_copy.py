import os

import pytest

from wherry.engine.volume.copy import copy_tree


def copied(tmp_path, source="data"):
    root = os.open(tmp_path / "image", os.O_RDONLY | os.O_DIRECTORY)
    target = tmp_path / "volume"
    target.mkdir()
    try:
        copy_tree(root, source, target)
    finally:
        os.close(root)
    return target


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "image" / "data"
    path.mkdir(parents=True)
    return path


def test_content_modes_and_times_are_kept(tmp_path, data):
    (data / "a").mkdir()
    (data / "a" / "f").write_bytes(b"x" * 100_000)
    (data / "a" / "f").chmod(0o4750)
    os.utime(data / "a" / "f", (1000, 2000))
    data.chmod(0o1777)
    os.utime(data / "a", (1, 2))
    target = copied(tmp_path)
    file = target / "a" / "f"
    assert file.read_bytes() == b"x" * 100_000
    assert (file.stat().st_mode & 0o7777, file.stat().st_mtime) == (0o4750, 2000)
    assert (target / "a").stat().st_mtime == 2
    assert target.stat().st_mode & 0o7777 == 0o1777


def test_links_stay_links(tmp_path, data):
    (data / "f").write_text("one")
    os.link(data / "f", data / "g")
    (data / "s").symlink_to("/etc/passwd")
    os.mkfifo(data / "p")
    target = copied(tmp_path)
    assert (target / "f").samefile(target / "g")
    assert os.readlink(target / "s") == "/etc/passwd"
    assert (target / "p").is_fifo()


def test_a_link_on_the_way_stays_inside(tmp_path, data):
    (data / "f").write_text("inside")
    (tmp_path / "image" / "www").symlink_to("/data")
    assert (copied(tmp_path, "www") / "f").read_text() == "inside"


def test_a_deep_tree_is_copied(tmp_path, data):
    here = data
    for _ in range(300):
        here = here / "d"
        here.mkdir()
    (here / "f").write_text("deep")
    target = copied(tmp_path)
    assert (target / here.relative_to(data) / "f").read_text() == "deep"
