"""Measure how long a large page takes to open: `python -m tests.recorder.opening`.

From the begin of the navigation until the first rows are drawn, by the browser's own clock; and
what it took to make the page of its recording.
"""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import anyio

from ioasid.recorder import draw, read, record
from ioasid.recorder._timeline import timeline_of
from ioasid.testing import StormSettings, storm
from tests.recorder.browser import chromium, show

TIMES = 7


def main() -> None:
    """Print the medians."""

    async def many() -> None:
        await storm(StormSettings(vms=20, ops=3500, seed=1))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "storm.jsonl"
        with record(path):
            anyio.run(many)
        page = path.with_suffix(".html")
        began = perf_counter()
        draw(path, page)
        drawn = perf_counter() - began
        decisions = timeline_of(read(path)).decisions
        opened: list[float] = []
        with chromium() as browser:
            for _ in range(TIMES):
                show(browser, page)
                script = "return Number(document.documentElement.dataset.drawn)"
                opened.append(browser.execute_script(script))
    print(
        f"{decisions:,} decisions: made in {drawn:.1f} s, open after {median(opened):.0f} ms "
        f"(median of {TIMES}, {min(opened):.0f} to {max(opened):.0f})"
    )


if __name__ == "__main__":
    main()
