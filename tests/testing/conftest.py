"""The backends of storms: an event loop whose order and time are the same in every run."""

import random
from typing import Any

import pytest

from ioasid.testing._loop import SeededLoop, Stuck
from ioasid.testing._picker import Picker


def _stuck(reason: str) -> None:
    raise Stuck(reason)


def _loop() -> SeededLoop:
    return SeededLoop(Picker(None), _stuck, stuck_after=3600, max_steps=100_000_000)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, dict[str, Any]]:
    """Name the backend of one test: in virtual time, and with the same order in every run.

    How much of everything a small storm comes to depends on who is faster, and so does whether a
    fault shows. uvloop can't be told who goes first; on it, a storm only has to keep the rules.
    """
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": _loop}
    from trio._core import _run
    from trio.testing import MockClock

    monkeypatch.setattr(_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(_run, "_r", random.Random(1))
    return "trio", {"clock": MockClock(autojump_threshold=0)}
