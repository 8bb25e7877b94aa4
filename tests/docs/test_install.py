"""What the pages say to install: from a checkout, with extras that there are."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHERS = {"trio", "distributed"}
"""What is on an index; this project is not."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_installed_is_there(page: Path) -> None:
    """It is the checkout, with extras of `pyproject.toml`, or another project."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    for what in re.findall(r"pip install (?:-e )?([^\s`)]+)", page.read_text("utf-8")):
        if what not in OTHERS:
            found = re.fullmatch(r"\.|'\.\[([a-z,]+)\]'", what)
            assert found, what
            assert set((found[1] or "test").split(",")) <= extras.keys(), what
