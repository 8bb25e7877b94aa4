"""Take the pictures in docs/pictures/ again: `python -m tests.recorder.pictures`.

Look at every one of them afterwards, as somebody who sees it for the first time.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import anyio
from PIL import Image

from ioasid.recorder import draw, read, record
from ioasid.recorder._timeline import timeline_of
from ioasid.testing import StormSettings, storm
from tests.recorder.browser import chromium, show
from tests.recorder.recordings import of_the_guest
from tests.recorder.test_perfetto import ASK, perfetto

ROOT: Final = Path(__file__).parents[2]
PICTURES: Final = ROOT / "docs" / "pictures"


def of_twenty_vms(path: Path) -> Path:
    """A storm that is large enough to be one."""

    async def main() -> None:
        await storm(StormSettings(vms=20, ops=1500, seed=4))

    with record(path):
        anyio.run(main)
    return path


def of_a_story(name: str) -> Callable[[Path], Path]:
    """One of the short demos."""

    def recorded(path: Path) -> Path:
        command = [sys.executable, f"demos/{name}.py", "--record", str(path)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        return path

    recorded.__name__ = name
    return recorded


def first_row(path: Path, text: str, after: str) -> int:
    """The first row that says something, after the first that says something else."""
    rows = timeline_of(read(path)).rows
    begin = next(number for number, row in enumerate(rows) if after in row.text)
    return next(n for n in range(begin, len(rows)) if text in rows[n].text)


def take(
    name: str,
    recorded: Callable[[Path], Path],
    look_at: str,
    size: tuple[int, int],
    *,
    after: str = "",
    life: str = "",
) -> None:
    """Take one picture, of the page from a row on, in few colours."""
    with TemporaryDirectory() as folder:
        path = recorded(Path(folder) / f"{recorded.__name__.removeprefix('of_')}.jsonl")
        page, picture = path.with_suffix(".html"), PICTURES / f"{name}.png"
        draw(path, page)
        with chromium(*size) as browser:
            row = first_row(path, look_at, after)
            show(browser, page, f"#theme=light&row={row}&life={life}")
            browser.execute_script(
                "const row = document.querySelector('.chosen'); row.classList.remove('chosen');"
                "document.getElementById('facts').hidden = true;"
                "scrollBy(0, row.getBoundingClientRect().top"
                " - document.getElementById('top').offsetHeight - 4)"
            )
            # Until what came into sight is drawn.
            browser.execute_async_script("setTimeout(arguments[0], 300)")
            browser.save_screenshot(str(picture))
        image = Image.open(picture).convert("RGB")
        image.quantize(256, Image.Quantize.MAXCOVERAGE).save(picture, optimize=True)


def take_trace() -> None:
    """Take the picture of a trace, as Perfetto shows it."""
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "guest.json"
        draw(of_the_guest(trace.with_suffix(".jsonl")), trace)
        with perfetto(trace) as page, chromium(1240, 730, foreign=True) as browser:
            browser.get(page)
            browser.execute_async_script(ASK, {})
            # Until all is there, and again until what came into sight is drawn.
            browser.execute_async_script("setTimeout(arguments[0], 5000)")
            browser.execute_script("app.commands.runCommand('dev.perfetto.ExpandAllGroups')")
            browser.execute_async_script("setTimeout(arguments[0], 3000)")
            browser.save_screenshot(str(PICTURES / "trace.png"))


def main() -> None:
    """Take all of them."""
    PICTURES.mkdir(exist_ok=True)
    # What is taken is 143 lower than the window.
    take("guest", of_the_guest, "DMA with 1 starts", (1240, 970), after="vm-1 crashes")
    take("storm", of_twenty_vms, "crashes: what it has is kept", (1400, 800))
    take("the_bug", of_a_story("the_bug"), "DMA with 1 starts", (1240, 920))
    take("hung_device", of_a_story("hung_device"), "DMA with 1 starts", (1240, 870), life="0")
    take("noisy_neighbour", of_a_story("noisy_neighbour"), "create set vm-noisy", (1240, 700))
    take("comeback", of_a_story("comeback"), "Two drivers", (1240, 1180))
    take("forgotten_resync", of_a_story("forgotten_resync"), "an allocator", (1240, 770))
    take_trace()


if __name__ == "__main__":
    main()
