"""The README's examples have the types that they show; conftest.py of the root runs them."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]

needs_mypy = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None, reason="mypy is not installed"
)


def examples() -> str:
    """The Python blocks of the README, one after the other as they run."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert 2 <= len(blocks)
    return "\n".join(blocks)


def check(program: str, folder: Path) -> str:
    """What `mypy --strict`, without the settings of this project, has to say of a program."""
    path = folder / "readme_examples.py"
    path.write_text(program, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file="]
    result = subprocess.run(
        [*command, f"--cache-dir={ROOT / '.mypy_cache' / 'readme'}", str(path)],
        cwd=folder,
        # Where the folders are linked under the names of the packages (see the Makefile).
        env=os.environ | {"MYPYPATH": str(ROOT / ".venv" / "links")},
        capture_output=True,
        text=True,
        check=False,
    )
    return str(result.stdout + result.stderr)


@needs_mypy
@pytest.mark.slow
def test_examples_are_typed(tmp_path: Path) -> None:
    """A type checker accepts every example as it stands."""
    assert "" == check(examples(), tmp_path)


@needs_mypy
@pytest.mark.slow
def test_wrong_example_is_noticed(tmp_path: Path) -> None:
    """A type checker knows the library's types: an example that misuses one is not accepted."""
    program = examples().replace("await allocator.attach_spid(pasid, spid=101)", "pasid.bind(101)")
    assert '"Ioasid" has no attribute "bind"' in check(program, tmp_path)
