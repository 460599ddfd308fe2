"""Links are followed as the kernel would, and lead nowhere above the top."""

import pytest

from wherry.engine.image import linkwalk

LINKS = {"lib": "usr/lib", "usr/lib": "/usr/lib64", "up": "../../etc", "a/b": "../c", "x": "x"}


@pytest.mark.parametrize(
    ("path", "led"),
    [
        ("/etc/./passwd/", "etc/passwd"),
        ("../../etc", "etc"),
        ("lib/libc.so", "usr/lib64/libc.so"),
        ("up/passwd", "etc/passwd"),
        ("a/b/d", "c/d"),
        ("", ""),
    ],
)
def test_where_a_path_leads(path, led):
    assert linkwalk.resolve(path, lambda parts: LINKS.get("/".join(parts))) == led


def test_a_circle_is_told():
    with pytest.raises(linkwalk.TooManyLinks):
        linkwalk.resolve("x", lambda parts: LINKS.get("/".join(parts)))
