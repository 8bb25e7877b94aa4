"""The documentation as a site: every page has its place, leads on, and fetches nothing."""

import importlib.util
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pytest

from tests.recorder.browser import chromium, needs_chromium

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
CONFIG: Final = ROOT / "zensical.toml"
PAGES: Final = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")

needs_zensical = pytest.mark.skipif(
    importlib.util.find_spec("zensical") is None, reason="needs zensical: pip install '.[docs]'"
)


def leaves(nav: Any) -> Iterator[str]:
    """The pages of a navigation, in order."""
    if isinstance(nav, str):
        yield nav
        return
    for each in nav.values() if isinstance(nav, dict) else nav:
        yield from leaves(each)


def linked_from(name: str) -> set[str]:
    """The pages that a page links to."""
    path = PAGES[name]
    targets = (each.partition("#")[0] for each in LINK.findall(path.read_text(encoding="utf-8")))
    found = {(path.parent / each).resolve() for each in targets if each.endswith(".md")}
    return {other for other, its_path in PAGES.items() if its_path in found}


def test_every_page_is_in_the_navigation() -> None:
    """Every page is there, once, and nothing else."""
    nav = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["project"]["nav"]
    assert sorted(PAGES) == sorted(leaves(nav))


@pytest.mark.parametrize("name", PAGES)
def test_every_page_leads_on(name: str) -> None:
    """A page ends with what to read next, and that is another page."""
    last = PAGES[name].read_text(encoding="utf-8").rstrip().rpartition("\n\n")[2]
    assert last.startswith("**Read next:**")
    assert LINK.search(last)


@pytest.mark.parametrize("name", [each for each in PAGES if "/" not in each or "reference" in each])
def test_every_page_explains_its_words(name: str) -> None:
    """A page that does not explain every word itself leads to the glossary."""
    assert name == "glossary.md" or "glossary.md" in linked_from(name)


def test_the_index_leads_everywhere() -> None:
    """Whoever begins at the index comes to every page, in at most two steps."""
    one_step = linked_from("index.md")
    two_steps = one_step.union(*map(linked_from, one_step))
    assert set() == PAGES.keys() - two_steps - {"index.md"}


class Html(HTMLParser):
    """The links of a built page, what it fetches when it is opened, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors.update(found[each] for each in ("id", "name") if each in found)
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if "src" in found:
            self.fetched.append(found["src"])
        if tag == "link" and found.get("rel") in {"stylesheet", "icon", "preload", "preconnect"}:
            self.fetched.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(CONFIG, folder)
    shutil.copytree(DOCS, folder / "docs")
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == built.returncode, built.stdout + built.stderr
    return folder / "build" / "site"


@needs_zensical
@pytest.mark.slow
def test_links_of_the_site(site: Path) -> None:
    """A link of a built page leads to a file, and to an anchor that is in it."""
    pages = {path: Html(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(PAGES) <= len(pages)
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links are for a server's root
        for link in (*page.links, *page.fetched):
            url = urlsplit(link)
            if url.scheme or link == "#":
                continue
            aim = (path.parent / unquote(url.path)).resolve() if url.path else path
            aim = aim / "index.html" if aim.is_dir() else aim
            anchors = pages[aim].anchors if aim in pages else set()
            if not aim.exists() or (url.fragment and unquote(url.fragment) not in anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert [] == broken


@needs_zensical
@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """No script, style, font or picture of a built page is another site's."""
    strangers = {
        each
        for path in site.rglob("*.html")
        for each in Html(path.read_text(encoding="utf-8")).fetched
        if urlsplit(each).netloc
    }
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    strangers |= set(re.findall(r"url\((https?:[^)]+)\)", styles))
    assert set() == strangers


@needs_zensical
@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_the_site_in_a_browser(site: Path, width: int) -> None:
    """A page loads only what the site has, says no error, and is not wider than the window."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    origin = f"http://127.0.0.1:{server.server_port}/"
    try:
        with chromium(width, 900) as browser:
            browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
            )
            for name in ("index", "stories/guest", "reference/messages"):
                browser.get(f"{origin}{name}.html")
                loaded = browser.execute_script(
                    "return performance.getEntriesByType('resource').map(each => each.name)"
                )
                assert [] == [each for each in loaded if not each.startswith(origin)]
                script = "return document.documentElement.scrollWidth"
                assert browser.execute_script(script) <= width
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
