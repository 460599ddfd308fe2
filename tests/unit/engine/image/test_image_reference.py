"""Names are read as Docker reads them."""

from __future__ import annotations

import pytest

from wherry.engine.errors import BadParameter
from wherry.engine.image.reference import normalise, parse

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("reg.example/x__y/z-w:V_1.2", "reg.example/x__y/z-w:V_1.2", "reg.example/x__y/z-w:V_1.2"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        (f"app@sha256:{HEX}", f"docker.io/library/app@sha256:{HEX}", f"app@sha256:{HEX}"),
        ("Upper/app", "Upper/app:latest", "Upper/app:latest"),
    ],
)
def test_a_name_means_what_docker_takes_it_for(text: str, whole: str, familiar: str) -> None:
    reference = normalise(text)
    assert (str(reference), reference.familiar()) == (whole, familiar)
    assert normalise(reference.familiar()) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("app:", "invalid reference format"),
        ("app:-x", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a/./b", "invalid reference format"),
        ("-app", "invalid reference format"),
        ("../app", "invalid reference format"),
        ("app:" + "t" * 129, "invalid reference format"),
        ("app@sha256:short", "invalid reference format"),
        ("app\n", "invalid reference format"),
        (
            "Busybox",
            "invalid reference format: repository name (library/Busybox) must be lowercase",
        ),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("a/" * 130 + "b", "repository name must not be more than 255 characters"),
    ],
)
def test_what_is_no_name_is_refused_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(BadParameter) as refused:
        parse(text)
    assert refused.value.message == message


def test_a_tag_is_not_added_unless_asked() -> None:
    assert parse("busybox").tag == ""
    assert parse(f"busybox@sha256:{HEX}").with_default_tag().tag == ""


def test_a_tag_that_cannot_be_is_refused() -> None:
    with pytest.raises(BadParameter, match="invalid tag format"):
        parse("busybox").with_tag("a b")
