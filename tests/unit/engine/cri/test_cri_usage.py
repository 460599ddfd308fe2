"""How much a container has written."""

from pathlib import Path

from wherry.engine.cri.usage import measured


def test_a_file_of_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(8192))
    before = measured(tmp_path)
    (tmp_path / "linked").hardlink_to(tmp_path / "a" / "file")
    assert measured(tmp_path) == before
    assert before.inodes_used == 2


def test_of_a_layer_that_has_gone_nothing_is_there(tmp_path: Path) -> None:
    found = measured(tmp_path / "gone")
    assert (found.used_bytes, found.inodes_used) == (0, 0)
