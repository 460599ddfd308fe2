"""Files of environment variables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.kubelet.env_files import EnvFileFault, find

TEXT = """
# settings
A='1'
  B='two words'  # why not
EMPTY=''
SHELL= 'x'
LINES='one
# two
three' # and on
A='later'
"""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("A", "1"),
        ("B", "two words"),
        ("EMPTY", ""),
        ("SHELL", ""),
        ("LINES", "one\n# two\nthree"),
        ("two", None),
    ],
)
def test_values_stand_in_single_quotes(key, value):
    assert find(TEXT, key) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\nA", "at line 2: missing '='"),
        ("='1'", "at line 1: empty variable name"),
        ("A ='1'", "at line 1: whitespace before '=' is not allowed"),
        ("A=1", "at line 1: value must be enclosed in single quotes"),
        ('A="1"', "at line 1: value must be enclosed in single quotes"),
        ("A='1' 2", "at line 1: unexpected content after closing quote"),
        ("A='1\n2'3", "at line 2: unexpected content after closing quote"),
        ("\nA='1\n2", "starting at line 2: unclosed single quote"),
    ],
)
def test_what_is_no_assignment_is_told_with_its_line(text, why):
    with pytest.raises(EnvFileFault, match=f"invalid environment variable format {why}$"):
        find(text, "B")


def test_behind_the_key_nothing_is_looked_at():
    assert find("A='1'\nrubbish", "A") == "1"


names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True)
values = st.text(st.characters(exclude_characters="'\r", exclude_categories=("Cs",)), max_size=30)


@given(st.dictionaries(names, values, max_size=6))
def test_what_is_written_is_read(variables):
    text = "".join(f"{name}='{value}'\n" for name, value in variables.items())
    assert {name: find(text, name) for name in variables} == variables


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        find(text, "A")
    except EnvFileFault as fault:
        assert "line" in str(fault)
