"""What the documentation names is there, and what the command can is documented."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.cli import _parser

ROOT = Path(__file__).parents[3]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
FILES = {f"/{path.relative_to(ROOT)}" for path in ROOT.glob("[!.]*/**/*.py")}


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from options(below)
        else:
            yield from action.option_strings


def test_every_option_is_documented() -> None:
    text = "".join(page.read_text() for page in PAGES)
    said = set(options(_parser())) - {"-h", "--help", "--version"}
    assert [one for one in sorted(said) if not re.search(rf"{one}(?![\w-])", text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_leads_to_is_there(page: Path) -> None:
    text = page.read_text()
    links = [at for at in re.findall(r"\]\(([^)#]+)", text) if not at.startswith("http")]
    assert [at for at in links if not (page.parent / at).exists()] == []
    # A module is named from the top of the repository or of the sources, or as its room's own.
    modules = re.findall(r"`([a-z_/]+\.py)`", text)
    assert [at for at in modules if not any(path.endswith(f"/{at}") for path in FILES)] == []
