"""Where the command line begins, and what `ioasid` itself is."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import ioasid


def run(*arguments: str) -> str:
    """What Python prints, in an interpreter of its own."""
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("missing", "command", "needs", "extras"),
    [
        (["click"], "--help", "the command line needs what the extra `service`", "service"),
        (["rich"], "status", "the command line needs what the extra `service`", "service"),
        (
            ["aetcd"],
            "-s {}/s serve --fleet http://127.0.0.1:9",
            "this command needs what the extra `fleet`",
            "fleet",
        ),
        (["textual"], "top", "this command needs what the extra `top`", "top"),
        (
            ["click", "textual"],
            "top",
            "the command line needs what the extra `service` and `top`",
            "service,top",
        ),
        (
            ["click", "textual"],
            "status",
            "the command line needs what the extra `service`",
            "service",
        ),
    ],
)
def test_without_its_extra_it_says_which(
    missing: list[str], command: str, needs: str, extras: str, tmp_path: Path
) -> None:
    """A plain installation has the command, which says in a line what to install, and 126."""
    program = (
        f"import sys; sys.modules |= dict.fromkeys({missing!r})\n"
        f"sys.argv = ['ioasid', *{command.format(tmp_path).split()!r}]\n"
        "from ioasid.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    text = f"ioasid: {needs} brings; to install that, in a checkout: pip install '.[{extras}]'\n"
    # What a service says on its log stands before it.
    assert (126, True) == (done.returncode, done.stderr.endswith(text))
    assert "Traceback" not in done.stderr


def test_it_is_interrupted_while_it_is_loaded() -> None:
    """Ctrl-C has the same status as later, and no traceback."""
    program = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from ioasid.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (130, "", "") == (done.returncode, done.stdout, done.stderr)


def test_what_else_is_missing_is_a_bug() -> None:
    """Only what an extra brings is explained by an extra."""
    program = (
        "import sys; sys.modules['ioasid.service._completion'] = None\n"
        "from ioasid.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert 1 == done.returncode
    assert "ModuleNotFoundError: import of ioasid.service._completion" in done.stderr


def test_as_a_module() -> None:
    """`python -m ioasid` is the command line, too."""
    assert "ioasid why 17" in run("-m", "ioasid", "--help")


def test_the_version_is_that_of_the_distribution() -> None:
    """It is said in one place, which everybody else reads."""
    assert importlib.metadata.version("ioasid") == ioasid.__version__
    assert f"ioasid, version {ioasid.__version__}\n" == run("-m", "ioasid", "--version")


def test_it_brings_nothing_along() -> None:
    """Whoever asks for the version, or for one package, has not imported the others."""
    found = run("-c", "import sys, ioasid; print([n for n in sys.modules if 'ioasid.' in n])")
    assert "[]\n" == found
