"""The short stories: every claim holds on every backend, and what happened can be drawn."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demos import forgotten_resync, story
from demos.the_bug import FreeThenNotify
from ioasid.recorder import draw, read
from ioasid.recorder._rows import Kind
from ioasid.recorder._timeline import timeline_of

ROOT = Path(__file__).parents[2]
STORIES = ("the_bug", "hung_device", "noisy_neighbour", "comeback")


def run(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a demo as a program."""
    return subprocess.run(
        [sys.executable, f"demos/{name}.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("name", STORIES)
def test_every_claim_holds(name: str, backend: str, tmp_path: Path) -> None:
    """It ends well, in 80 columns, and its recording has its headings and nothing unexpected."""
    path = tmp_path / "story.jsonl"
    finished = run(name, "--backend", backend, "--record", str(path))
    assert (0, "") == (finished.returncode, finished.stderr)
    assert "Every claim holds." in finished.stdout
    assert "NOT SO" not in finished.stdout
    assert max(map(len, finished.stdout.splitlines())) <= 80
    draw(path, tmp_path / "story.html")
    headings = [row.text for row in timeline_of(read(path)).rows if row.kind is Kind.NOTE]
    assert headings
    assert all(f"\n{each}\n" in finished.stdout for each in headings)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["the_bug", "hung_device", "restart", "guest_sva"])
def test_its_page_shows_what_it_prints(name: str) -> None:
    """What a page of docs/stories/ quotes is what the demo prints, figures of time aside."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs/stories").glob("*.md")]
    [page] = [page for page in pages if f"python demos/{name}.py" in page]
    quoted = re.findall(r"^ *```text\n(.*?)^ *```$", page, flags=re.MULTILINE | re.DOTALL)
    printed = words(run(name).stdout)
    assert quoted
    assert all(words(each) in printed for each in quoted)


def words(text: str) -> str:
    """A text in one line, figures of time aside."""
    return " ".join(re.sub(r"\d+ m?s\b", "TIME", text).split())


def test_the_model_has_the_bug() -> None:
    """Free-then-notify hands a number on while a transfer with it is in flight."""
    model = FreeThenNotify()
    first = model.alloc()
    model.table[first] = "vm-1"
    model.free(first)
    assert first == model.alloc()
    model.table[first] = "vm-2"
    assert ("vm-2", [first]) == (model.complete(first), model.to_tell)


def test_a_claim_that_does_not_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and the exit code is 1, whatever else holds."""
    false = bool("")

    async def tell(it: Any) -> None:
        it.claim("one is two", false)
        it.claim("one is one", not false)

    assert 1 == story.run(tell, "A story.\n\nMore of it.", [])
    assert "✗ NOT SO: one is two\n✓ one is one\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*STORIES, "guest_sva", "many_vms", "migrate", "restart"])
def test_nowhere_to_record(name: str) -> None:
    """A file that cannot be written is said in a line, with exit code 2, before anything begins."""
    finished = run(name, "--record", "no/such/folder/file.jsonl")
    assert 2 == finished.returncode
    assert "No such file or directory: 'no/such/folder/file.jsonl'" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.slow
def test_the_explorer_finds_the_forgotten_resync(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first driver fails under a schedule that is recorded, the second under none."""
    path = tmp_path / "found.jsonl"
    assert 0 == forgotten_resync.main(["--record", str(path)])
    printed = capsys.readouterr().out
    assert "the driver still has [1], which is free" in printed
    assert "with the library's table, none of 200 schedules fails" in printed
    texts = [row.text for row in timeline_of(read(path)).rows]
    assert any(each.startswith("lags:") for each in texts)
    assert any(each.startswith("Resync") for each in texts)


@pytest.mark.slow
def test_a_bug_that_is_not_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is nothing to find the exit code is 1."""
    monkeypatch.setattr(forgotten_resync, "Forgetful", forgotten_resync.Careful)
    assert 1 == forgotten_resync.main([])
    assert "NOT SO" in capsys.readouterr().out
