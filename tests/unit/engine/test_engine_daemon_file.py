"""``daemon.json``: an operator's choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wherry.engine.daemon_file import DaemonOptions, load
from wherry.engine.errors import EngineError


def write(place: Path, document: Any) -> Path:
    path = place / "daemon.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_without_a_file_everything_is_as_by_default(tmp_path: Path) -> None:
    assert load(tmp_path / "daemon.json") == DaemonOptions()
    assert load(write(tmp_path, "")) == DaemonOptions()


def test_directives_are_read(tmp_path: Path) -> None:
    options = load(
        write(
            tmp_path,
            {
                "registry-mirrors": ["http://127.0.0.1:5000"],
                "insecure-registries": ["reg.example:5000", "10.0.0.0/8"],
                "userns-remap": "default",
                "labels": ["role=test"],
            },
        )
    )
    assert options.registries.mirrors == ("http://127.0.0.1:5000",)
    assert options.registries.insecure == ("reg.example:5000", "10.0.0.0/8")
    assert (options.userns_remap, options.labels) == ("default", ("role=test",))


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("{", "unable to configure the Docker daemon with file"),
        ("[]", "it is not a JSON object"),
        (
            {"storage-driver": "x", "bip": "y"},
            "the following directives don't match any configuration option: bip, storage-driver",
        ),
        ({"registry-mirrors": "x"}, "registry-mirrors is not a list of strings"),
        ({"log-opts": {"max-file": 3}}, "log-opts is not an object of strings"),
        ({"registry-mirrors": ["mirror"]}, 'invalid mirror: "mirror" is not the URL'),
        ({"log-driver": "smoke"}, "smoke"),
        ({"log-opts": {"colour": "red"}}, "unknown log opt 'colour' for json-file log driver"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, document: Any, why: str) -> None:
    with pytest.raises(EngineError) as refused:
        load(write(tmp_path, document))
    assert why in refused.value.message


def test_containers_log_as_the_operator_says_unless_they_say_otherwise(tmp_path: Path) -> None:
    options = load(write(tmp_path, {"log-driver": "local", "log-opts": {"max-file": "3"}}))
    assert options.log_config({}) == {"Type": "local", "Config": {"max-file": "3"}}
    assert options.log_config({"Type": "local", "Config": {"max-file": "1"}}) == {
        "Type": "local",
        "Config": {"max-file": "1"},
    }
    assert options.log_config({"Type": "none", "Config": None}) == {"Type": "none", "Config": {}}
