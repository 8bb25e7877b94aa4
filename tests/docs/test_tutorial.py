"""The tutorial's programs are those that its pages show, and its last page happens as it says."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

TUTORIAL: Final = Path(__file__).parents[2] / "docs" / "tutorial"
PROGRAMS: Final = tuple(sorted(TUTORIAL.glob("*.py")))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: str(program.name))
def test_pages_show_the_programs(program: Path) -> None:
    """A program stands in one page as it is, below its name."""
    shown = f"```python\n{program.read_text(encoding='utf-8')}```\n"
    pages = [page.read_text(encoding="utf-8") for page in TUTORIAL.glob("*.md")]
    [page] = [page for page in pages if shown in page]
    assert f"`{program.name}`" in page.partition(shown)[0]


class Terminal:
    """What somebody types who follows the last page."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "ioasid.sock")
        self._folder = folder

    @contextmanager
    def started(self, *command: str, until: str) -> Iterator["subprocess.Popen[str]"]:
        """Start a program, and wait until it says something."""
        with subprocess.Popen(
            [sys.executable, *command],
            cwd=self._folder,
            env=os.environ | {"IOASID_SOCKET": self.socket},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                lines = iter(process.stdout.readline, "")
                assert any(until in line for line in lines), f"{command} never said {until!r}"
                yield process
            finally:
                process.kill()

    def ioasid(self, *arguments: str) -> str:
        """Run the command, and return what it prints."""
        return subprocess.run(
            [sys.executable, "-m", "ioasid", "--socket", self.socket, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        ).stdout

    def run(self, program: Path) -> str:
        """Run a program of the tutorial on the service, and return what it prints."""
        return subprocess.run(
            [sys.executable, str(program), self.socket],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout


PAGES: Final = ("first-allocation", "first-subscriber", "first-driver", "first-crash", "first-test")


@pytest.mark.slow
def test_as_typed(tmp_path: Path) -> None:
    """Who saves and adds what the pages say, and runs that, sees what they quote."""
    for name in PAGES:
        page = (TUTORIAL / f"{name}.md").read_text(encoding="utf-8")
        programs = typed(page, f"{name}.py", tmp_path)
        printed = " ".join(as_words(run_in(tmp_path, each)) for each in programs)
        for quoted in re.findall(r"^```text\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL):
            if "──" not in quoted:  # else it is a drawing
                parts = map(as_words, quoted.split("..."))
                assert [] == [part for part in parts if part not in printed], name


def typed(page: str, unnamed: str, folder: Path) -> list[str]:
    """Type what a page shows into a folder; the names of the programs, in order."""
    names: list[str] = []
    for text, code in re.findall(
        r"(.*?)^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL
    ):
        named = re.findall(r"(?:[Ss]ave\s(?:this|it)\sas|to|end\sof)\s`(\w+\.py)`", text)
        added = re.search(r"\b[Aa]dd\b", text) is not None
        name = named[-1] if named else names[-1] if added else f"{len(names)}-{unnamed}"
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(code)
        names.append(name)
    return sorted({*names})


def run_in(folder: Path, program: str) -> str:
    """Run a program of a folder, and return what it prints."""
    command = [sys.executable, program]
    return subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True, timeout=60
    ).stdout


@pytest.mark.slow
def test_first_service(tmp_path: Path) -> None:
    """A driver that is killed keeps its ID from reuse; it comes back, and so after a restart."""
    terminal = Terminal(tmp_path)
    drive = str(TUTORIAL / "drive.py")
    serve = ("-m", "ioasid", "serve", "--journal", "ioasid.journal")
    with terminal.started(*serve, until="serving") as service:
        with terminal.started(drive, terminal.socket, until="dma0 is served") as driver:
            assert "vm-1 may use 1 as 101\n" == terminal.run(TUTORIAL / "guest.py")
            assert "copier:dma0: 1" in terminal.ioasid("find", "1")
            driver.kill()
            driver.wait()
        terminal.ioasid("free", "1")
        why = terminal.ioasid("why", "1")
        shown = (TUTORIAL / "first-service.md").read_text(encoding="utf-8")
        assert as_words(why) in as_words(shown)
        with terminal.started(drive, terminal.socket, until="dma0 is served") as driver:
            terminal.ioasid("free", "1", "--wait")
            assert "" == terminal.ioasid("why", "1")
            terminal.ioasid("free-set", "vm-1", "--yes", "--wait")
            pasid = terminal.run(TUTORIAL / "guest.py").split()[3]
            service.send_signal(signal.SIGINT)
            service.wait()
            with terminal.started(*serve, until="serving"):
                assert driver.stdout is not None
                said = "".join(driver.stdout.readline() for _ in range(2))
                assert f"```text\n{said}```" in shown
                assert "copier:dma0: 1" in terminal.ioasid("find", pasid)


def as_words(text: str) -> str:
    """A text without line breaks and figures of time."""
    return re.sub(r"\d+ m?s\b", "TIME", " ".join(text.split()))
