"""The backends every async test runs on."""

import platform
from typing import Any

import pytest


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Name the backend of one test: asyncio, asyncio on uvloop, or trio.

    trio gets a clock of its own that jumps to the next deadline as soon as
    every task waits: an hour's timeout passes at once, and no time leaks from
    one test into the next.
    """
    match request.param:
        case "asyncio":
            return "asyncio", {}
        case "uvloop":
            if platform.system() == "Windows" or platform.python_implementation() != "CPython":
                pytest.skip("uvloop runs on CPython and not on Windows")
            return "asyncio", {"use_uvloop": True}
        case "trio":
            from trio.testing import MockClock

            return "trio", {"clock": MockClock(autojump_threshold=0)}
        case unknown:
            raise AssertionError(unknown)
