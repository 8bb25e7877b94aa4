"""Chromium without a window, to look at pages with."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CHROMIUM: Final = shutil.which("chromium")
DRIVER: Final = shutil.which("chromedriver")

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None or find_spec("selenium") is None,
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)
OPTIONS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@contextmanager
def chromium(width: int = 1280, height: int = 900, *, foreign: bool = False) -> Iterator["Chrome"]:
    """A browser with an empty profile of its own; whatever a page logs as an error fails.

    A `foreign` page may log what it likes. Nothing but loopback is reached from either.
    """
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    assert CHROMIUM is not None
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = CHROMIUM
        for each in (*OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(each)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        browser = Chrome(options, Service(DRIVER))
        try:
            yield browser
            log: list[dict[str, str]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
            severe = [each for each in log if each["level"] == "SEVERE"]
            assert foreign or [] == severe
        finally:
            browser.quit()


def show(browser: "Chrome", page: Path, where: str = "") -> None:
    """Open a page, and wait until it is drawn."""
    from selenium.webdriver.support.wait import WebDriverWait

    browser.get("about:blank")
    browser.get(page.as_uri() + where)
    WebDriverWait(browser, 30).until(
        lambda it: it.execute_script("return document.documentElement.dataset.drawn")
    )
