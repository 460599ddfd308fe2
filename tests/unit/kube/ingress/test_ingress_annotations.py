"""What annotations and settings there are, and that the documentation says so."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from wherry.kube.ingress import annotations, common
from wherry.kube.ingress.annotations import PREFIX, READERS
from wherry.kube.ingress.options import DEFAULTS, Options

PAGE = (Path(__file__).parents[4] / "docs" / "ingress.md").read_text()


def section(title: str) -> set[str]:
    """The names in the tables of a section."""
    text = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return {name for row in rows for name in re.findall(r"`([a-z0-9-]+)[`:]", row)}


def test_every_annotation_is_documented_and_no_other() -> None:
    known = {*READERS, *annotations._CANNOT, "auth-proxy-set-headers"}
    assert section("Annotations") - {"auth-"} == known


def test_every_setting_is_documented_and_no_other() -> None:
    known = {*common._OWN, *common._ESCAPES, *common._DEFAULTS_OF_ANNOTATIONS}
    assert section("Settings for all") == known


def test_every_wish_has_its_annotation() -> None:
    assert {field for field, _ in READERS.values() if field} == {
        field.name for field in fields(Options)
    }


def test_what_is_not_there_is_told_and_lets_nobody_in_who_would_not_be() -> None:
    options, wrong, unknown = annotations.read(
        {f"{PREFIX}ssl-passthrough": "true", f"{PREFIX}auth-cache-key": "x"}
    )
    assert options == DEFAULTS and not wrong
    assert [re.split("/| changes", said)[1] for said in unknown] == [
        "auth-cache-key",
        "ssl-passthrough",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ssl-ciphers", "A;evil"),
        ("ssl-protocols", "TLSv1.2; evil"),
        ("forwarded-for-header", "X evil"),
        ("large-client-header-buffers", "4 8k; evil"),
        ("skip-access-log-urls", "/a;evil"),
        ("gzip-types", "text/css; evil"),
        ("proxy-real-ip-cidr", "fe80::1%evil"),
        ("log-format-upstream", "x\nevil"),
        ("server-snippet", "evil"),
        ("allow-snippet-annotations", "true"),
        ("evil", "x"),
    ],
)
def test_a_setting_that_cannot_be_used_changes_nothing(key: str, value: str) -> None:
    read, problems = common.read({key: value})
    assert read == common.Common() and len(problems) == 1 and problems[0].startswith(key)


def test_settings_are_the_defaults_of_annotations() -> None:
    given, _ = common.read({"proxy-body-size": "8m", "proxy-read-timeout": "7"})
    options, _, _ = annotations.read({f"{PREFIX}proxy-read-timeout": "9"}, given.options)
    assert (options.body_size, options.read_timeout) == ("8m", 9)


def test_browsers_are_told_to_come_by_tls_as_long_as_that_is_wished() -> None:
    def told(**data: str) -> str:
        return common.read({k.replace("_", "-"): v for k, v in data.items()})[0].strict_transport

    assert told() == "max-age=31536000; includeSubDomains"
    assert told(hsts_max_age="5", hsts_include_subdomains="false") == "max-age=5"
    assert told(hsts_preload="true").endswith("; preload") and told(hsts="false") == ""
