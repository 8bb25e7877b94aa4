"""The page, in a real browser: what is drawn is what was recorded, and nothing covers anything."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ioasid.recorder import draw, read
from ioasid.recorder._page import page_of
from ioasid.recorder._rows import Timeline
from ioasid.recorder._timeline import timeline_of
from tests.recorder.browser import chromium, needs_chromium, show
from tests.recorder.recordings import ALL, of_a_crash, of_a_hang, of_a_storm, of_the_guest

DRAW_ALL = "window.dispatchEvent(new Event('beforeprint'));"
ROWS = """
return [...document.querySelectorAll('#page .row')].map((row) => [
  Number(row.dataset.row), row.classList[1], row.querySelector('title').textContent]);
"""
BARS = """
return [...document.querySelectorAll('#page .bar')].map((bar) => [Number(bar.dataset.life),
  [...bar.querySelectorAll('.body')].map((each) => each.dataset.waits)]);
"""
BOXES = """
const box = (each) => { const it = each.getBoundingClientRect();
  return [it.left, it.top + scrollY, it.right, it.bottom + scrollY, each.textContent]; };
return [[...document.querySelectorAll('#page text')].map(box),
  [...document.querySelectorAll('#page .bar')].flatMap((bar) =>
    [...bar.querySelectorAll('.body')].map((each) =>
      [...box(each).slice(0, 4), bar.dataset.life]))];
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all of these tests."""
    with chromium() as it:
        yield it


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Timeline, Path]]:
    """A page of each recording, with what it was drawn from."""
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for recorded in ALL:
        path = recorded(folder / f"{recorded.__name__}.jsonl")
        page = path.with_suffix(".html")
        draw(path, page)
        found[recorded.__name__] = timeline_of(read(path)), page
    return found


def test_it_needs_nothing_else(pages: dict[str, tuple[Timeline, Path]]) -> None:
    """A page names no address, loads nothing, and is one file."""
    text = pages["of_the_guest"][1].read_text(encoding="utf-8")
    assert [] == re.findall(r"https?://|\bsrc=|@import|\bfetch\(|<link", text)
    assert "{{" not in text.partition('id="data"')[0]


def test_text_of_a_recording_is_no_markup() -> None:
    """Names with markup in them end no script and add no element."""
    timeline = timeline_of(read(Path(__file__).parent / "markup.jsonl"))
    page = page_of(timeline)
    assert "</script><b>" not in page
    assert "\\u003c/script>\\u003cb>" in page


def expected_rows(timeline: Timeline) -> list[list[Any]]:
    """What a page has to show, row by row."""
    return [[n, str(row.kind), row.text] for n, row in enumerate(timeline.rows)]


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("name", ["of_the_guest", "of_a_crash", "of_a_hang"])
def test_what_is_drawn_was_recorded(
    browser: Any, pages: dict[str, tuple[Timeline, Path]], name: str
) -> None:
    """Every row is there, once, in order, and every life has its bar with what it waited for."""
    timeline, page = pages[name]
    show(browser, page)
    browser.execute_script(DRAW_ALL)
    assert expected_rows(timeline) == browser.execute_script(ROWS)
    drawn: dict[int, set[str]] = {}
    for life, waits in browser.execute_script(BARS):
        drawn.setdefault(life, set()).update(waits)
    assert [*range(len(timeline.lives))] == sorted(drawn)
    for life in timeline.lives:
        assert {str(each.waits) for each in life.spans} == drawn[life.number] - {""}


@needs_chromium
@pytest.mark.slow
def test_a_storm_is_drawn_whole(browser: Any, pages: dict[str, tuple[Timeline, Path]]) -> None:
    """With more actors than columns the rows are the same, and say which actor it was."""
    timeline, page = pages["of_a_storm"]
    show(browser, page)
    browser.execute_script(DRAW_ALL)
    rows = browser.execute_script(ROWS)
    assert [[n, kind] for n, kind, _ in expected_rows(timeline)] == [each[:2] for each in rows]
    for (_, _, text), (_, _, shown) in zip(expected_rows(timeline), rows, strict=True):
        assert text in shown


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("name", ["of_the_guest", "of_a_crash", "of_a_hang", "of_a_storm"])
def test_nothing_overlaps(browser: Any, pages: dict[str, tuple[Timeline, Path]], name: str) -> None:
    """No text covers another, and no bar another or a text beside the lives."""
    show(browser, pages[name][1])
    browser.execute_script(DRAW_ALL)
    texts, bars = browser.execute_script(BOXES)
    assert len(texts) > 10
    assert [] == [*overlapping(texts)]
    lives = [(*bar[:4], bar[4]) for bar in bars]
    assert [] == [(a, b) for a, b in overlapping(lives) if a[4] != b[4]]


def overlapping(boxes: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Pairs of boxes that share more than an edge, where one is inside of the other's height."""
    ordered = sorted(boxes, key=lambda box: box[1])
    for number, one in enumerate(ordered):
        for other in ordered[number + 1 :]:
            if other[1] >= one[3] - 2:
                break
            if one[0] < other[2] - 1 and other[0] < one[2] - 1:
                yield one, other


@needs_chromium
@pytest.mark.slow
def test_filters(browser: Any, pages: dict[str, tuple[Timeline, Path]]) -> None:
    """By VM, actor, ID and kind: what is left is what the recording has of it."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.select import Select

    timeline, page = pages["of_the_guest"]
    fixed = ("note", "opening")

    def shown() -> list[int]:
        browser.execute_script(DRAW_ALL)
        rows = [number for number, kind, _ in browser.execute_script(ROWS) if kind not in fixed]
        browser.execute_script("window.dispatchEvent(new Event('afterprint'))")
        return rows

    def rows_of(name: str) -> list[int]:
        return [n for n, row in enumerate(timeline.rows) if name in (row.source, *row.targets)]

    show(browser, page)
    Select(browser.find_element(By.ID, "actor")).select_by_value("vtd")
    assert rows_of("vtd") == shown()
    browser.find_element(By.ID, "clear").click()
    number = browser.find_element(By.ID, "ioasid")
    number.send_keys("2")
    two = [n for n, row in enumerate(timeline.rows) if 2 in row.ioasids]
    assert two == shown()
    browser.find_element(By.ID, "clear").click()
    Select(browser.find_element(By.ID, "vm")).select_by_value("vm-2")
    mine = shown()
    assert {*rows_of("kvm:vm-2"), *rows_of("vfio:vm-2")} <= {*mine}
    assert not {*rows_of("kvm:vm-1"), *rows_of("vfio:vm-1")} & {*mine}
    browser.find_element(By.ID, "clear").click()
    browser.find_element(By.ID, "kinds").click()
    browser.find_element(By.NAME, "step").click()
    steps = {n for n, row in enumerate(timeline.rows) if row.kind == "step"}
    assert steps
    assert not steps & {*shown()}


@needs_chromium
@pytest.mark.slow
def test_an_id_is_followed(browser: Any, pages: dict[str, tuple[Timeline, Path]]) -> None:
    """A bar that is clicked leaves its life alone, and says how long it waited for whom."""
    from selenium.webdriver.common.by import By

    timeline, page = pages["of_the_guest"]
    life = next(each for each in timeline.lives if each.generation == 2)
    show(browser, page, f"#row={life.first}")
    browser.find_element(By.CSS_SELECTOR, f'.bar[data-life="{life.number}"] .body').click()
    rows = [n for n, kind, _ in browser.execute_script(ROWS) if kind not in ("note", "opening")]
    assert [n for n, row in enumerate(timeline.rows) if life.number in row.lives] == rows
    told = browser.find_element(By.ID, "facts").text
    assert re.search(r"PASID 1 of vm-1 .* for CPU \(kvm:vm-1\), then .* DEVICE .* IOMMU", told)


@needs_chromium
@pytest.mark.slow
def test_keys(browser: Any, pages: dict[str, tuple[Timeline, Path]]) -> None:
    """Rows, crashes and what is stuck are found by keys alone; Escape shows everything again."""
    from selenium.webdriver.common.by import By

    def press(keys: str) -> None:
        browser.switch_to.active_element.send_keys(keys)

    def chosen() -> Any:
        return browser.execute_script(
            "return Number(document.querySelector('.chosen').dataset.row)"
        )

    timeline, page = pages["of_a_crash"]
    show(browser, page)
    press("jjk")
    assert 0 == chosen()
    press("G")
    assert len(timeline.rows) - 1 == chosen()
    press("gc")
    assert next(n for n, row in enumerate(timeline.rows) if row.kind == "crash") == chosen()
    dark = browser.execute_script("return document.documentElement.dataset.theme")
    press("d")
    assert dark != browser.execute_script("return document.documentElement.dataset.theme")
    press("?")
    assert browser.find_element(By.ID, "about").is_displayed()
    browser.find_element(By.CSS_SELECTOR, "#about button").click()
    timeline, page = pages["of_a_hang"]
    show(browser, page)
    press("q")
    assert "It is not back at the end" in browser.find_element(By.ID, "facts").text
    press("\ue00c")
    assert len(timeline.rows) == len(browser.execute_script(ROWS))


@needs_chromium
@pytest.mark.slow
def test_printed(browser: Any, pages: dict[str, tuple[Timeline, Path]]) -> None:
    """Printed, all rows are there, on white, and the controls are not."""
    timeline, page = pages["of_the_guest"]
    show(browser, page, "#theme=dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script(DRAW_ALL)
    try:
        assert "light" == browser.execute_script("return document.documentElement.dataset.theme")
        assert len(timeline.rows) == len(browser.execute_script(ROWS))
        assert not browser.execute_script(
            "return [...document.querySelectorAll('#bar button, #bar label')].some((each) =>"
            " each.offsetParent)"
        )
        # On paper it is as wide as the paper.
        assert browser.execute_script(
            "return document.querySelector('#page svg').getBoundingClientRect().width"
            " <= document.documentElement.clientWidth"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_recordings_are_drawn_alike(tmp_path: Path) -> None:
    """A page is made of nothing but its recording: drawn again, it is the same."""
    for recorded in (of_the_guest, of_a_crash, of_a_hang, of_a_storm):
        path = recorded(tmp_path / "any.jsonl")
        assert page_of(timeline_of(read(path))) == page_of(timeline_of(read(path)))
