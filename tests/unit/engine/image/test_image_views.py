"""The documents of the API have the fields of the version that is spoken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wherry.engine.image import progress, views
from wherry.engine.image.content import Layer
from wherry.engine.image.image import Image

CONFIG: dict[str, Any] = {
    "architecture": "arm64",
    "variant": "v8",
    "os": "linux",
    "created": "2024-05-01T10:00:00.5Z",
    "author": "me",
    "config": {"Cmd": ["sh"], "Env": ["A=1"], "Labels": {"x": "y"}, "Volumes": None},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]},
    "history": [
        {"created": "2024-05-01T09:00:00Z", "created_by": "COPY x", "comment": "one"},
        {"created_by": "CMD", "empty_layer": True},
    ],
}
IMAGE = Image("sha256:" + "a" * 64, CONFIG, ("sha256:" + "1" * 64,), ("box:1",), (), 42)


def summary(version: tuple[int, int], *tags: str) -> dict[str, Any]:
    return views.summary(IMAGE, version, tags=tags, digests=())


def test_an_unnamed_image_is_called_none_until_1_43() -> None:
    assert summary((1, 42))["RepoTags"] == ["<none>:<none>"]
    assert summary((1, 42))["RepoDigests"] == ["<none>@<none>"]
    assert summary((1, 43))["RepoTags"] == []
    assert summary((1, 42), "box:1")["RepoDigests"] == []


@pytest.mark.parametrize("version", [(1, 24), (1, 43)])
def test_the_virtual_size_is_there_until_1_44(version: tuple[int, int]) -> None:
    assert summary(version)["VirtualSize"] == 42
    assert "VirtualSize" not in summary((1, 44))
    assert views.inspect(IMAGE, version, [])["VirtualSize"] == 42
    assert "VirtualSize" not in views.inspect(IMAGE, (1, 44), [])


def test_a_summary_counts_neither_containers_nor_shared_layers_unasked() -> None:
    assert summary((1, 50), "box:1") == {
        "Containers": -1,
        "Created": 1714557600,
        "Id": IMAGE.id,
        "Labels": {"x": "y"},
        "ParentId": "",
        "RepoDigests": [],
        "RepoTags": ["box:1"],
        "SharedSize": -1,
        "Size": 42,
    }


def test_the_settings_lose_the_fields_of_containers_at_1_50() -> None:
    assert views.inspect(IMAGE, (1, 50), [])["Config"] == {
        "Cmd": ["sh"],
        "Env": ["A=1"],
        "Labels": {"x": "y"},
    }
    old = views.inspect(IMAGE, (1, 49), [])["Config"]
    assert old["Hostname"] == "" and old["AttachStdin"] is False and old["Entrypoint"] is None


def test_the_container_of_old_builds_is_there_until_1_45() -> None:
    assert views.inspect(IMAGE, (1, 44), [])["Container"] == ""
    assert "ContainerConfig" not in views.inspect(IMAGE, (1, 45), [])


def test_inspect_tells_the_directories_and_the_platform() -> None:
    document = views.inspect(IMAGE, (1, 50), [Path("/top"), Path("/mid"), Path("/low")])
    assert document["GraphDriver"] == {
        "Name": "overlay2",
        "Data": {"UpperDir": "/top", "LowerDir": "/mid:/low"},
    }
    assert (document["Os"], document["Architecture"], document["Variant"]) == (
        *("linux", "arm64", "v8"),
    )
    assert document["Metadata"] == {"LastTagTime": "0001-01-01T00:00:00Z"}
    assert document["Comment"] == ""


def test_a_missing_date_is_left_out_at_1_44() -> None:
    image = Image("sha256:b", {"rootfs": {"type": "layers"}}, ())
    assert views.inspect(image, (1, 43), [])["Created"] == "0001-01-01T00:00:00Z"
    assert "Created" not in views.inspect(image, (1, 44), [])
    assert views.summary(image, (1, 50), tags=(), digests=())["Created"] == 0


def test_history_is_newest_first_and_only_layers_have_a_size() -> None:
    layer = Layer("sha256:1", 42, 1, "sha256:1", 100, "tar")
    first, second = views.history(IMAGE, [layer], [IMAGE])
    assert first == {
        "Comment": "",
        "Created": 0,
        "CreatedBy": "CMD",
        "Id": IMAGE.id,
        "Size": 0,
        "Tags": ["box:1"],
    }
    assert (second["Id"], second["Size"], second["Tags"]) == ("<missing>", 42, None)


@pytest.mark.parametrize(
    ("current", "total", "bar"),
    [
        (0, 0, ""),
        (512, 0, "    512B"),
        (0, 100, f"[>{' ' * 50}]       0B/100B"),
        (1_500_000, 3_000_000, f"[{'=' * 25}>{' ' * 25}]    1.5MB/3MB"),
        (3_000_000, 3_000_000, f"[{'=' * 50}>]      3MB/3MB"),
        (200, 100, f"[{'=' * 50}>]     200B"),
    ],
)
def test_bars_are_drawn_as_docker_draws_them(current: int, total: int, bar: str) -> None:
    assert progress.bar(current, total) == bar
