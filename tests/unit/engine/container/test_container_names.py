import re

import pytest

from wherry.engine.container import names
from wherry.engine.errors import BadParameter


def test_generated_names_are_valid_names():
    for attempt in (0, 1):
        for _ in range(200):
            name = names.generate(attempt)
            assert names.check(name) == name
            assert re.fullmatch(r"[a-z]+_[a-z]+\d?", name)


def test_a_slash_before_a_name_is_not_part_of_it():
    assert names.check("/web") == "web"


@pytest.mark.parametrize("name", ["", "/", "a", "-web", "we b", "web/one", "wéb", "web\n"])
def test_other_names_are_refused_in_docker_s_words(name):
    with pytest.raises(BadParameter) as caught:
        names.check(name)
    assert caught.value.message == (
        f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )
