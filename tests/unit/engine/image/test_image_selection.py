"""The filters of docker images and docker image prune."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.engine.errors import BadParameter
from wherry.engine.filters import Filters
from wherry.engine.image.image import Image
from wherry.engine.image.selection import listed, moment, prunable

DAY = 86_400_000_000_000
NOW = moment("2024-06-10T00:00:00Z", 0)


def image(name: str, day: int, *tags: str, **labels: str) -> Image:
    config: dict[str, Any] = {
        "created": f"2024-06-{day:02}T00:00:00Z",
        "config": {"Labels": labels},
        "rootfs": {"diff_ids": []},
    }
    return Image(f"sha256:{name}", config, (), tags)


OLD = image("old", 1, "box:1", "reg.example/team/app:2", tier="web")
NEW = image("new", 5, "box:2")
BARE = image("bare", 3)
STEP = image("step", 2)
ALL = [OLD, NEW, BARE, STEP]


def shown(all_: bool = False, **filters: list[str]) -> list[str]:
    chosen = listed(
        ALL,
        Filters({key.replace("_", ""): value for key, value in filters.items()}),
        all_=all_,
        now=NOW,
        resolve=lambda name: next(one for one in ALL if name in one.repo_tags),
        has_children=lambda one: one == STEP.id,
    )
    return [one.image.id[7:] for one in chosen]


def test_the_newest_come_first_and_steps_of_builds_are_hidden() -> None:
    assert shown() == ["new", "bare", "old"]
    assert shown(all_=True) == ["new", "bare", "step", "old"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"dangling": ["true"]}, ["bare"]),
        ({"dangling": ["false"]}, ["new", "old"]),
        ({"label": ["tier"]}, ["old"]),
        ({"label": ["tier=db"]}, []),
        ({"before": ["box:2"]}, ["bare", "old"]),
        ({"since": ["box:1"]}, ["new", "bare"]),
        ({"until": ["8d"]}, None),
        ({"until": ["2024-06-04"]}, ["bare", "old"]),
        ({"until": ["216h"]}, []),
        ({"until": ["192h"]}, ["old"]),
        ({"reference": ["box"]}, ["new", "old"]),
        ({"reference": ["box:*"]}, ["new", "old"]),
        ({"reference": ["b?x:[2-9]"]}, ["new"]),
        ({"reference": ["*/*/app"]}, ["old"]),
        ({"reference": ["*app*"]}, []),
        ({"reference": ["nope", "box:1"]}, ["old"]),
    ],
)
def test_filters(filters: dict[str, list[str]], expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(BadParameter):
            shown(**filters)
    else:
        assert shown(**filters) == expected


def test_only_the_names_that_match_are_shown() -> None:
    (chosen,) = listed(
        [OLD],
        Filters({"reference": ["box"]}),
        all_=False,
        now=NOW,
        resolve=lambda name: OLD,
        has_children=lambda one: False,
    )
    assert chosen.tags == ["box:1"]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"colour": ["red"]}, "invalid filter 'colour'"),
        ({"dangling": ["maybe"]}, "invalid filter 'dangling="),
        ({"reference": ["[a"]}, "syntax error in pattern"),
    ],
)
def test_wrong_filters_are_refused(filters: dict[str, list[str]], message: str) -> None:
    with pytest.raises(BadParameter, match=message):
        shown(**filters)


def pruned(**filters: list[str]) -> list[str]:
    wanted = {key.replace("no_label", "label!"): value for key, value in filters.items()}
    found = prunable(ALL, Filters(wanted), now=NOW, has_children=lambda one: one == STEP.id)
    return sorted(one.id[7:] for one in found)


def test_prune_means_images_without_a_name_unless_told_otherwise() -> None:
    assert pruned() == ["bare"]
    assert pruned(dangling=["false"]) == ["bare", "new", "old"]
    assert pruned(dangling=["false"], until=["2024-06-02"]) == ["old"]
    assert pruned(dangling=["false"], label=["tier"]) == ["old"]
    assert pruned(dangling=["false"], no_label=["tier"]) == ["bare", "new"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", NOW - 600_000_000_000),
        ("24h", NOW - DAY),
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("2024-06-09", NOW - DAY),
        ("2024-06-09T12:00", NOW - DAY // 2),
        ("2024-06-09T00:00:00+02:00", NOW - DAY - DAY // 12),
    ],
)
def test_moments(text: str, expected: int) -> None:
    assert moment(text, NOW) == expected
