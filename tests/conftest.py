"""The backends every async test runs on."""

import platform
import random
import signal
from typing import Any

import pytest

# A shell may have it ignored for what runs in its background, and so for all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def anyio_backend(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, dict[str, Any]]:
    """Name the backend of one test: asyncio, asyncio on uvloop, or trio.

    trio gets a clock of its own that jumps to the next deadline when every task has
    waited for a millisecond: an hour's timeout passes at once, and no time leaks from
    one test into the next. With none it would spin while a thread works, and the thread
    would hardly get to run. It shuffles its tasks, from the same seed in every test.
    """
    match request.param:
        case "asyncio":
            return "asyncio", {}
        case "uvloop":
            if platform.system() == "Windows" or platform.python_implementation() != "CPython":
                pytest.skip("uvloop runs on CPython and not on Windows")
            return "asyncio", {"use_uvloop": True}
        case "trio":
            from trio._core import _run
            from trio.testing import MockClock

            monkeypatch.setattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
            monkeypatch.setattr(_run, "_r", random.Random(1))
            return "trio", {"clock": MockClock(autojump_threshold=0.001)}
        case unknown:
            raise AssertionError(unknown)
