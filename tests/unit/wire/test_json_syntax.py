import pytest

from wherry.wire.json_syntax import first_value


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"{} trailing", (2, "")),
        (b' [1, {"a": null}]x', (17, "")),
        (b'{"a":', (0, "unexpected EOF")),
        (b"", (0, "unexpected EOF")),
        (b"{x", (0, "invalid character 'x' looking for beginning of object key string")),
        (b"nope", (0, "invalid character 'o' in literal null (expecting 'u')")),
    ],
)
def test_the_first_value_of_a_stream_ends_somewhere_or_has_a_fault(body, found):
    assert first_value(body) == found
