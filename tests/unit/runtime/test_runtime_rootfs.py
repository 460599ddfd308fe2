"""What is said to the kernel about overlays, and what it says about mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherry.runtime.rootfs import mount_points, overlay_options, unescape


def test_options_name_the_layers_topmost_first() -> None:
    options = overlay_options(["/top", "/bottom"], "/u", "/w")
    assert (
        options
        == "index=off,redirect_dir=off,metacopy=off,lowerdir=/top:/bottom,upperdir=/u,workdir=/w"
    )


@pytest.mark.parametrize("odd", ["/a:b", "/a,b", "/a b", "/a\\b"])
def test_paths_with_signs_that_separate_are_not_written(odd: str) -> None:
    assert overlay_options([odd], "/u", "/w") is None


def test_more_than_a_page_is_not_written() -> None:
    assert overlay_options(["/" + "x" * 39] * 95, "/u", "/w") is not None
    assert overlay_options(["/" + "x" * 39] * 105, "/u", "/w") is None


def test_mounts_are_listed_in_the_order_to_unmount() -> None:
    text = (
        "1 0 0:1 / / rw - ext4 d rw\n"
        "2 1 0:2 / /data/a rw - tmpfs d rw\n"
        "3 2 0:3 / /data/a/with\\040space rw - tmpfs d rw\n"
        "4 1 0:4 / /database rw - tmpfs d rw\n"
    )
    assert mount_points(text, Path("/data")) == [Path("/data/a/with space"), Path("/data/a")]
    assert unescape("a\\134b\\011") == "a\\b\t"
