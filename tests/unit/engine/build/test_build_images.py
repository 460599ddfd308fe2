"""The config of the image that a step makes."""

from __future__ import annotations

from wherry.engine.build.images import document
from wherry.engine.image.manifest import Platform


def test_the_container_a_step_ran_in_is_told() -> None:
    ran = {"Image": "alpine:3.10", "Hostname": "box", "Cmd": ["true"]}
    made = document(
        None,
        Platform("linux", "amd64"),
        {"Cmd": ["sh"]},
        created_by="true",
        container="abc",
        container_config=ran,
    )
    assert made["container"] == "abc" and made["container_config"] == ran
    assert made["config"] == {"Cmd": ["sh"]}


def test_a_step_without_a_container_tells_of_none() -> None:
    made = document(None, Platform("linux", "amd64"), {}, created_by="ENV a=1")
    assert "container" not in made and "container_config" not in made
