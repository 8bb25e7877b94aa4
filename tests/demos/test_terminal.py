"""Every demo fits into 80 columns, keeps its colours to itself, and ends with its pipe."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
TRACE: Final = "tests/conformance/data/scenario-01_normal_lifecycle.json"
DEMOS: Final = {
    **{path.stem: () for path in sorted((ROOT / "demos").glob("*.py"))},
    "many_vms": ("--vms", "3", "--devices", "1", "--ops", "200"),
    "replay": (TRACE,),
}
PARTS: Final = ("__init__", "migrate_fleet", "story", "terminal")
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


def shown(name: str, **environment: str) -> str:
    """What a demo prints into a pipe."""
    plain = {name: value for name, value in os.environ.items() if "COLOR" not in name}
    return subprocess.run(
        [sys.executable, f"demos/{name}.py", *DEMOS[name]],
        cwd=ROOT,
        env=plain | {"PYTHONIOENCODING": "utf-8"} | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=True,
    ).stdout


def words(text: str) -> list[str]:
    """The words of a text, figures of time aside."""
    return re.sub(r"\d+ m?s\b", "TIME", text).split()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DEMOS if name not in PARTS])
def test_80_columns(name: str) -> None:
    """No line is longer, whatever the terminal, and a pipe gets no escapes."""
    text = shown(name, COLUMNS="200")
    assert "\x1b" not in text
    assert 80 >= max(len(line.rstrip()) for line in text.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["guest_sva", "the_bug"])
def test_colours_in_a_pipe(name: str) -> None:
    """FORCE_COLOR brings the colours through a pipe, and they change no text."""
    coloured = shown(name, FORCE_COLOR="1")
    assert COLOUR.search(coloured)
    assert words(shown(name)) == words(COLOUR.sub("", coloured))


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGPIPE")
def test_a_pipe_that_ends() -> None:
    """Whoever reads three lines gets three, and no traceback."""
    command = f"{sys.executable} demos/guest_sva.py | head -n 3"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert (3, "") == (len(done.stdout.splitlines()), done.stderr)
